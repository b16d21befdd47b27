//! Compares features of whole images, from the file to the language model's input, with the
//! reference implementation.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device, Tensor};
use safetensors::{Dtype, SafeTensors, serialize_to_file, tensor::TensorView};
use vispec_models::llava::{LlavaConfig, LlavaVision};
use vispec_models::qwen2_5_vl::{QwenConfig, QwenVision};
use vispec_models::weights::{Checkpoint, Weights};
use vispec_models::{DeviceSpec, DtypeChoice, ModelError, Precision};
use vispec_processor::{DecodedImage, ImageOptions, ProcessedImage, Processor};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

fn device() -> Device {
    DeviceSpec::Flex.open().unwrap()
}

enum Vision {
    Qwen(Box<QwenVision>),
    Llava(Box<LlavaVision>),
}

impl Vision {
    fn load(dir: &Path, dtype: DtypeChoice) -> Self {
        let checkpoint = Checkpoint::open(dir, &[]).unwrap();
        let precision = Precision::choose(dtype, checkpoint.main_dtype(), &device()).unwrap();
        let weights = Weights::new(&checkpoint, &device(), precision);
        let vision = match QwenConfig::read(dir) {
            Ok(config) => Self::Qwen(Box::new(QwenVision::load(
                &weights.at("visual"),
                &config.vision,
            ))),
            Err(ModelError::UnsupportedArchitecture { .. }) => {
                let config = LlavaConfig::read(dir).unwrap();
                Self::Llava(Box::new(LlavaVision::load(&weights, &config)))
            }
            Err(error) => panic!("{error}"),
        };
        for text in ["model", "lm_head", "language_model"] {
            weights.skip(text);
        }
        weights.finish().unwrap();
        vision
    }

    fn encode(&self, image: &ProcessedImage) -> Vec<f32> {
        let features: Tensor<2> = match self {
            Self::Qwen(vision) => vision.encode(image).unwrap(),
            Self::Llava(vision) => vision.encode(image).unwrap(),
        };
        assert_eq!(features.dtype(), DType::F32);
        features.to_data().as_slice::<f32>().unwrap().to_vec()
    }
}

fn image(model: &str, case: &Path) -> ProcessedImage {
    let processor = Processor::from_dir(fixtures().join("models").join(model)).unwrap();
    let image = DecodedImage::open(case.join("image_0.png"), &ImageOptions::default()).unwrap();
    processor.image_processor().process(&image).unwrap()
}

/// Returns the largest difference relative to the largest value.
fn relative_error(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len(), "number of elements");
    let largest = expected.iter().fold(0.0f32, |max, v| max.max(v.abs()));
    found
        .iter()
        .zip(expected)
        .fold(0.0f32, |max, (a, b)| max.max((a - b).abs()))
        / largest
}

/// Returns the features of the reference, if the case has them.
fn reference_features(case: &Path) -> Option<Vec<f32>> {
    let bytes = std::fs::read(case.join("tensors.safetensors")).ok()?;
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let view = file.tensor("vision.features").ok()?;
    assert_eq!(view.dtype(), Dtype::F32);
    Some(
        view.data()
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect(),
    )
}

fn check_cases(model: &str) {
    let vision = Vision::load(&fixtures().join("models").join(model), DtypeChoice::F32);
    let mut checked = 0;
    for case in std::fs::read_dir(fixtures().join("cases").join(model)).unwrap() {
        let case = case.unwrap().path();
        let Some(expected) = reference_features(&case) else {
            continue;
        };
        let error = relative_error(&vision.encode(&image(model, &case)), &expected);
        assert!(error < 1e-4, "{}: relative error {error:e}", case.display());
        checked += 1;
    }
    assert!(checked > 0, "{model}: no case with features");
}

#[test]
fn features_of_qwen() {
    check_cases("qwen-tied");
    check_cases("qwen-untied");
}

#[test]
fn features_of_llava() {
    check_cases("llava-15");
}

#[test]
fn packed_features_of_llava_next() {
    check_cases("llava-next");
}

/// With weights in bf16 and activations in f32, results are close to f32 and contain no NaN.
#[test]
fn bf16_weights_give_nearly_the_same() {
    for model in ["qwen-untied", "llava-15", "llava-next"] {
        let dir = fixtures().join("models").join(model);
        let image = image(
            model,
            &fixtures().join("cases").join(model).join("img-large"),
        );
        let exact = Vision::load(&dir, DtypeChoice::F32).encode(&image);
        let rounded = Vision::load(&dir, DtypeChoice::Bf16).encode(&image);
        let error = relative_error(&rounded, &exact);
        println!("{model}: bf16 differs by {error:.1e}");
        assert!(error > 0.0 && error < 0.05, "{model}: {error:e}");
    }
}

/// The error names every tensor that the vision tower needs and the file lacks.
#[test]
fn a_missing_tensor_is_named() {
    let source = fixtures().join("models/llava-next");
    let bytes = std::fs::read(source.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let kept: Vec<(String, TensorView<'_>)> = file
        .iter()
        .filter(|(name, _)| *name != "image_newline" && !name.contains("layer_norm1.bias"))
        .map(|(name, view)| (name.to_owned(), view))
        .collect();
    let dir = tempfile::tempdir().unwrap();
    serialize_to_file(kept, None, &dir.path().join("model.safetensors")).unwrap();

    let checkpoint = Checkpoint::open(dir.path(), &[]).unwrap();
    let precision = Precision::choose(DtypeChoice::F32, DType::F32, &device()).unwrap();
    let weights = Weights::new(&checkpoint, &device(), precision);
    let _ = LlavaVision::load(&weights, &LlavaConfig::read(&source).unwrap());
    weights.skip("language_model");
    let ModelError::Weights { mut report, .. } = weights.finish().unwrap_err() else {
        panic!()
    };
    report.missing.sort();
    let layer = |n| format!("vision_tower.vision_model.encoder.layers.{n}.layer_norm1.bias");
    // Layer 3 is not used.
    assert_eq!(
        report.missing,
        ["image_newline".to_owned(), layer(0), layer(1), layer(2)]
    );
    assert!(report.unexpected.is_empty() && report.misshapen.is_empty());
}
