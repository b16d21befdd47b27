//! Compares each stage of the tower with the reference implementation.

use vispec_processor::PixelValues;

use super::*;
use crate::qwen2_5_vl::RENAME_RULES;
use crate::qwen2_5_vl::golden::{Golden, device, f32_precision, model_dir};
use crate::qwen3_vl::Qwen3Config;
use crate::weights::Checkpoint;

fn load(model: &str) -> Qwen3Vision {
    let config = Qwen3Config::read(&model_dir(model)).unwrap();
    let checkpoint = Checkpoint::open(&model_dir(model), RENAME_RULES).unwrap();
    let weights = Weights::new(&checkpoint, &device(), f32_precision());
    let vision = Qwen3Vision::load(&weights.at("visual"), &config.vision);
    weights.skip("model");
    weights.skip("lm_head");
    weights.finish().unwrap();
    vision
}

fn image(golden: &Golden) -> ProcessedImage {
    let grid = golden.indices("image_grid_thw");
    let data: Vec<f32> = golden
        .values("pixel_values")
        .iter()
        .map(|&v| v as f32)
        .collect();
    let patches = grid.iter().product();
    ProcessedImage::Qwen {
        pixels: PixelValues {
            shape: vec![patches, data.len() / patches],
            data,
        },
        grid_thw: [grid[0], grid[1], grid[2]],
    }
}

fn check_stages(model: &str) {
    println!("{model}");
    let vision = load(model);
    let golden = Golden::qwen3(model, "img-small");
    let image = image(&golden);
    let like = (&vision.device, vision.dtype);
    let (pixels, grid) = vision
        .config
        .tower
        .patch_input()
        .read(&image, like)
        .unwrap();
    let embedded = vision.patch_embed.forward(pixels.clone());
    golden.assert_close("vision.patch_embed", &embedded);
    let corners = Corners::new(
        grid,
        vision.config.tower.merge_size,
        vision.config.position_side,
    );
    let positions = corners.mix(&vision.pos_embed.val(), like);
    golden.assert_close("vision.pos_embed", &positions);
    let angles = rotary_angles(
        grid,
        vision.config.tower.merge_size,
        vision.config.tower.head_dim(),
    );
    golden.assert_values_close("vision.rot_pos_emb", &angles);
    let rotary = vision.rotary(grid);
    let mut x = vision.embed(pixels, grid);
    for (idx, block) in vision.blocks.iter().enumerate() {
        x = block.forward(x, &rotary, vision.frames(grid));
        golden.assert_close(&format!("vision.block{idx}"), &x);
    }
    let features = vision.encode(&image).unwrap();
    golden.assert_close("vision.image_features", &features.tokens);
    assert_eq!(features.levels.len(), vision.config.deepstack_blocks.len());
    for (level, values) in features.levels.iter().enumerate() {
        golden.assert_close(&format!("vision.image_deepstack_{level}"), values);
    }
}

#[test]
fn stages_with_two_levels() {
    check_stages("qwen3-tied");
}

#[test]
fn stages_with_three_levels() {
    check_stages("qwen3-untied");
}

#[test]
fn frames_do_not_see_each_other() {
    let vision = load("qwen3-untied");
    let one = image(&Golden::qwen3("qwen3-untied", "img-small"));
    let ProcessedImage::Qwen { pixels, grid_thw } = &one else {
        panic!()
    };
    let twice = ProcessedImage::Qwen {
        pixels: PixelValues {
            data: [pixels.data.clone(), pixels.data.clone()].concat(),
            shape: vec![2 * pixels.shape[0], pixels.shape[1]],
        },
        grid_thw: [2, grid_thw[1], grid_thw[2]],
    };
    let (once, twice) = (vision.encode(&one).unwrap(), vision.encode(&twice).unwrap());
    let pairs = once.levels.iter().zip(&twice.levels);
    for (once, twice) in pairs.chain([(&once.tokens, &twice.tokens)]) {
        let expected = Tensor::cat(vec![once.clone(), once.clone()], 0).into_data();
        let tolerance = burn::tensor::Tolerance::relative(1e-5).set_absolute(1e-5);
        let found = twice.clone().into_data();
        found.assert_approx_eq::<f32>(&expected, tolerance);
    }
}

#[test]
fn images_of_another_model_are_refused() {
    let vision = load("qwen3-tied");
    let pixels = |elements: usize| PixelValues {
        data: vec![0.0; 4 * elements],
        shape: vec![4, elements],
    };
    let field = |image: ProcessedImage| match vision.encode(&image).unwrap_err() {
        ModelError::ConfigValue { path, field, .. } => {
            assert!(path.ends_with("config.json"));
            field
        }
        other => panic!("{other}"),
    };
    let clip = ProcessedImage::Clip { pixels: pixels(3) };
    assert_eq!(field(clip), "model_type");
    let qwen = ProcessedImage::Qwen {
        pixels: pixels(1176),
        grid_thw: [1, 2, 2],
    };
    assert_eq!(field(qwen), "vision_config.patch_size");
}
