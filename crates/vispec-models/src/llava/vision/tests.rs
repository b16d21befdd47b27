//! Compares each stage with the reference implementation.

use super::*;
use crate::qwen2_5_vl::golden::{Golden, device, f32_precision, large_image, model_dir};
use crate::weights::Checkpoint;

fn load(model: &str) -> (LlavaVision, LlavaConfig) {
    let config = LlavaConfig::read(&model_dir(model)).unwrap();
    let checkpoint = Checkpoint::open(&model_dir(model), &[]).unwrap();
    let weights = Weights::new(&checkpoint, &device(), f32_precision());
    let vision = LlavaVision::load(&weights, &config);
    weights.skip("language_model");
    weights.finish().unwrap();
    (vision, config)
}

fn pixels(image: &ProcessedImage) -> Tensor<4> {
    let PixelValues { data, shape } = image.pixels();
    let [channels, height, width] = shape[shape.len() - 3..] else {
        panic!("{shape:?}")
    };
    let tiles = data.len() / (channels * height * width);
    Tensor::from_data(
        TensorData::new(data.clone(), [tiles, channels, height, width]),
        &device(),
    )
}

fn check_stages(model: &str) {
    println!("{model}");
    let (vision, config) = load(model);
    let golden = Golden::vision(model);
    let pixels = pixels(&large_image(model));
    // The model does not load the last layer; load it here to compare its output as well.
    let checkpoint = Checkpoint::open(&model_dir(model), &[]).unwrap();
    let weights = Weights::new(&checkpoint, &device(), f32_precision());
    let weights = weights.at("vision_tower.vision_model");
    for n_layers in 0..=config.vision.layers {
        let tower = ClipVision::load(&weights, &config.vision, n_layers);
        golden.assert_close(
            &format!("hidden_states_{n_layers}"),
            &tower.forward(pixels.clone()),
        );
    }
    assert_eq!(config.feature_layers, config.vision.layers - 1);
    golden.assert_close("projected", &vision.project_tiles(pixels));
}

#[test]
fn stages_of_llava() {
    check_stages("llava-15");
}

#[test]
fn stages_of_llava_next() {
    check_stages("llava-next");
}

#[test]
fn many_tiles_are_computed_as_few_are() {
    let (vision, _) = load("llava-next");
    let pixels = pixels(&large_image("llava-next"));
    let [tiles, _, _, _] = pixels.dims();
    assert_eq!(tiles, TILES_AT_ONCE);
    let one = vision.project_tiles(pixels.clone());
    let expected = Tensor::cat(vec![one.clone(), one.clone().slice(s![..2, .., ..])], 0);
    let found = Tensor::cat(vec![pixels.clone(), pixels.slice(s![..2, .., .., ..])], 0);
    vision
        .project_tiles(found)
        .into_data()
        .assert_approx_eq::<f32>(
            &expected.into_data(),
            burn::tensor::Tolerance::relative(1e-5).set_absolute(1e-5),
        );
}

#[test]
fn images_that_do_not_fit_are_refused() {
    let (llava, _) = load("llava-15");
    let (next, _) = load("llava-next");
    let field =
        |vision: &LlavaVision, image: &ProcessedImage| match vision.encode(image).unwrap_err() {
            ModelError::ConfigValue { field, .. } => field,
            other => panic!("{other}"),
        };
    assert_eq!(field(&llava, &large_image("llava-next")), "model_type");
    assert_eq!(field(&next, &large_image("llava-15")), "model_type");
    let ProcessedImage::Anyres {
        pixels,
        original_size,
    } = large_image("llava-next")
    else {
        panic!()
    };
    let with_size = |size| ProcessedImage::Anyres {
        pixels: pixels.clone(),
        original_size: size,
    };
    let wide = ImageSize::new(10, 300);
    assert_eq!(field(&next, &with_size(wide)), "vision_config.image_size");
    assert!(next.encode(&with_size(ImageSize::new(0, 3))).is_err());
    assert!(next.encode(&with_size(original_size)).is_ok());
}
