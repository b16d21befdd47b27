//! Compares each stage of the tower with the reference implementation.

use vispec_processor::{PixelValues, ProcessedImage};

use super::*;
use crate::qwen2_5_vl::QwenConfig;
use crate::qwen2_5_vl::golden::{Golden, device, f32_precision, large_image, model_dir};
use crate::weights::Checkpoint;

fn load(model: &str) -> QwenVision {
    let config = QwenConfig::read(&model_dir(model)).unwrap();
    let checkpoint = Checkpoint::open(&model_dir(model), &[]).unwrap();
    let weights = Weights::new(&checkpoint, &device(), f32_precision());
    let vision = QwenVision::load(&weights.at("visual"), &config.vision);
    weights.skip("model");
    weights.skip("lm_head");
    weights.finish().unwrap();
    vision
}

fn check_stages(model: &str) {
    println!("{model}");
    let (vision, golden, image) = (load(model), Golden::vision(model), large_image(model));
    let ProcessedImage::Qwen { pixels, grid_thw } = &image else {
        panic!("{image:?}")
    };
    let [frames, rows, columns] = *grid_thw;
    let grid = TokenGrid {
        frames,
        rows: rows / 2,
        columns: columns / 2,
    };

    let order = vision.window_order(grid);
    assert_eq!(order.from_processor, golden.indices("window_index"));
    let mut bounds = vec![0];
    for run in &order.runs {
        bounds.extend((1..=run.groups).map(|n| run.start + n * run.len));
    }
    assert_eq!(bounds, golden.indices("cu_window_seqlens"));
    let angles = rotary_angles(
        grid,
        vision.config.tower.merge_size,
        vision.config.tower.head_dim(),
    );
    golden.assert_values_close("rot_pos_emb", &angles);

    let data = TensorData::new(pixels.data.clone(), [pixels.shape[0], pixels.shape[1]]);
    let embedded = vision
        .patch_embed
        .forward(Tensor::from_data(data, &vision.device));
    golden.assert_close("patch_embed", &embedded);
    let rotary = vision.rotary(grid, &order);
    let mut x = vision.patches_in_window_order(embedded, &order);
    for idx in 0..vision.blocks.len() {
        x = vision.block(idx, x, &rotary, grid, &order);
        golden.assert_close(&format!("block{idx}"), &x);
    }
    golden.assert_close("merger_window_order", &vision.merger.forward(x));
    golden.assert_close("output", &vision.encode(&image).unwrap());
}

#[test]
fn stages_with_windows_of_16_tokens() {
    check_stages("qwen-tied");
}

#[test]
fn stages_with_windows_of_4_tokens() {
    check_stages("qwen-untied");
}

#[test]
fn frames_do_not_see_each_other() {
    let (vision, image) = (load("qwen-untied"), large_image("qwen-untied"));
    let ProcessedImage::Qwen {
        pixels,
        grid_thw: [_, rows, columns],
    } = &image
    else {
        panic!()
    };
    let twice = ProcessedImage::Qwen {
        pixels: PixelValues {
            data: [pixels.data.clone(), pixels.data.clone()].concat(),
            shape: vec![2 * pixels.shape[0], pixels.shape[1]],
        },
        grid_thw: [2, *rows, *columns],
    };
    let once = vision.encode(&image).unwrap();
    let expected = Tensor::cat(vec![once.clone(), once], 0).into_data();
    vision
        .encode(&twice)
        .unwrap()
        .into_data()
        .assert_approx_eq::<f32>(
            &expected,
            burn::tensor::Tolerance::relative(1e-5).set_absolute(1e-5),
        );
}

#[test]
fn images_that_do_not_fit_are_refused() {
    let vision = load("qwen-tied");
    let pixels = |rows: usize, elements: usize| PixelValues {
        data: vec![0.0; rows * elements],
        shape: vec![rows, elements],
    };
    let field = |image: ProcessedImage| match vision.encode(&image).unwrap_err() {
        ModelError::ConfigValue { path, field, .. } => {
            assert!(path.ends_with("config.json"));
            field
        }
        other => panic!("{other}"),
    };
    let qwen = |pixels, grid_thw| ProcessedImage::Qwen { pixels, grid_thw };
    assert_eq!(
        field(ProcessedImage::Clip {
            pixels: pixels(4, 3)
        }),
        "model_type"
    );
    assert_eq!(
        field(qwen(pixels(4, 1536), [1, 2, 2])),
        "vision_config.patch_size"
    );
    assert_eq!(
        field(qwen(pixels(4, 1176), [1, 4, 2])),
        "vision_config.patch_size"
    );
    let merge = "vision_config.spatial_merge_size";
    assert_eq!(field(qwen(pixels(3, 1176), [1, 3, 1])), merge);
    assert_eq!(field(qwen(pixels(0, 1176), [1, 0, 2])), merge);
    assert_eq!(field(qwen(pixels(4, 1176), [1 << 40, 1 << 40, 2])), merge);
}
