//! Reads tensors of the reference implementation and compares ours with them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device, Tensor};
use safetensors::{Dtype, SafeTensors};
use vispec_processor::{DecodedImage, ImageOptions, ProcessedImage, Processor};

use crate::device::DeviceSpec;
use crate::precision::{DtypeChoice, Precision};
use crate::weights::{Checkpoint, RenameRule};

/// Maximum difference, as a fraction of the largest value.
const TOLERANCE: f64 = 1e-4;

pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

pub(crate) fn model_dir(model: &str) -> PathBuf {
    fixtures().join("models").join(model)
}

pub(crate) fn device() -> Device {
    DeviceSpec::Flex.open().unwrap()
}

pub(crate) fn f32_precision() -> Precision {
    Precision::choose(DtypeChoice::F32, DType::F32, &device()).unwrap()
}

/// Returns the image of the case `img-large` after the model's image processor.
pub(crate) fn large_image(model: &str) -> ProcessedImage {
    let path = fixtures()
        .join("cases")
        .join(model)
        .join("img-large/image_0.png");
    let image = DecodedImage::open(path, &ImageOptions::default()).unwrap();
    let processor = Processor::from_dir(model_dir(model)).unwrap();
    processor.image_processor().process(&image).unwrap()
}

/// The tensors of one golden file as f64, which represents all of their types exactly.
pub(crate) struct Golden(HashMap<String, Vec<f64>>);

impl Golden {
    /// Reads the intermediate tensors of a vision tower.
    pub(crate) fn vision(model: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/vision");
        Self::read(&folder.join(format!("{model}.safetensors")))
    }

    /// Reads a case of Qwen3-VL.
    pub(crate) fn qwen3(model: &str, case: &str) -> Self {
        let folder = fixtures().join("qwen3-vl/cases").join(model).join(case);
        Self::read(&folder.join("tensors.safetensors"))
    }

    fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let values = |view: &safetensors::tensor::TensorView<'_>| match view.dtype() {
            Dtype::F32 => view
                .data()
                .chunks_exact(4)
                .map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap())))
                .collect(),
            Dtype::I64 => view
                .data()
                .chunks_exact(8)
                .map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64)
                .collect(),
            other => panic!("{other:?}"),
        };
        Self(
            file.iter()
                .map(|(name, view)| (name.to_owned(), values(&view)))
                .collect(),
        )
    }

    pub(crate) fn values(&self, name: &str) -> &[f64] {
        &self.0[name]
    }

    pub(crate) fn indices(&self, name: &str) -> Vec<usize> {
        self.0[name].iter().map(|&v| v as usize).collect()
    }

    #[track_caller]
    pub(crate) fn assert_close<const D: usize>(&self, name: &str, found: &Tensor<D>) {
        let found = found.to_data();
        self.assert_values_close(name, found.as_slice::<f32>().unwrap());
    }

    #[track_caller]
    pub(crate) fn assert_values_close(&self, name: &str, found: &[f32]) {
        let expected = &self.0[name];
        assert_eq!(found.len(), expected.len(), "{name}: number of elements");
        let largest = expected.iter().fold(0.0f64, |max, v| max.max(v.abs()));
        let error = found
            .iter()
            .zip(expected)
            .fold(0.0f64, |max, (a, b)| max.max((f64::from(*a) - b).abs()))
            / largest;
        println!("{name}: relative error {error:.1e}");
        assert!(error <= TOLERANCE, "{name}: relative error {error:e}");
    }
}

/// Writes the config of a model with some fields changed to a temporary directory.
pub(crate) fn changed_config(
    model: &str,
    change: impl FnOnce(&mut serde_json::Value),
) -> tempfile::TempDir {
    let text = std::fs::read(model_dir(model).join("config.json")).unwrap();
    let mut config = serde_json::from_slice(&text).unwrap();
    change(&mut config);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    dir
}

/// Renames the tensors of a model with `newer` and checks that `rules` undo it.
pub(crate) fn assert_newer_names_load(
    model: &str,
    rules: &[RenameRule],
    newer: impl Fn(&str) -> String,
) {
    let bytes = std::fs::read(model_dir(model).join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let renamed: Vec<_> = file
        .iter()
        .map(|(name, view)| (newer(name), view))
        .collect();
    assert!(renamed.iter().any(|(name, _)| file.tensor(name).is_err()));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    safetensors::serialize_to_file(renamed, None, &path).unwrap();
    let original = Checkpoint::open(&model_dir(model), rules).unwrap();
    let renamed = Checkpoint::open(dir.path(), rules).unwrap();
    assert!(original.names().eq(renamed.names()));
}
