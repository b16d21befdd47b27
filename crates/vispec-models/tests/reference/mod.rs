//! Cases of the reference implementation, as `fixtures/README.md` describes them.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use vispec_models::{DeviceSpec, DtypeChoice, EncodedPrompt, Engine, EngineOptions};
use vispec_processor::{DecodedImage, ImageLimits, Messages};

pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

#[derive(Debug, Deserialize)]
pub struct Settings {
    pub depth: usize,
    pub top_k: usize,
    pub total_token: usize,
    pub max_new_tokens: usize,
}

#[derive(Debug, Deserialize)]
pub struct Case {
    #[serde(skip)]
    pub dir: PathBuf,
    pub method: String,
    pub model: String,
    pub draft: String,
    pub settings: Settings,
    pub messages: serde_json::Value,
    pub images: Vec<String>,
    pub input_ids: Vec<u32>,
    pub ar_ids: Vec<u32>,
    pub acceptance_len: Vec<u32>,
}

impl Case {
    pub fn read(name: &str) -> Self {
        let dir = fixtures().join("cases").join(name);
        let text = fs::read(dir.join("case.json")).unwrap();
        Self {
            dir,
            ..serde_json::from_slice(&text).unwrap()
        }
    }

    pub fn all() -> Vec<Self> {
        let mut names = Vec::new();
        for model in fs::read_dir(fixtures().join("cases")).unwrap() {
            let model = model.unwrap();
            for case in fs::read_dir(model.path()).unwrap() {
                let (model, case) = (model.file_name(), case.unwrap().file_name());
                names.push(format!(
                    "{}/{}",
                    model.to_str().unwrap(),
                    case.to_str().unwrap()
                ));
            }
        }
        names.sort();
        names.iter().map(|name| Self::read(name)).collect()
    }

    pub fn name(&self) -> String {
        let cases = fixtures().join("cases");
        self.dir.strip_prefix(cases).unwrap().display().to_string()
    }

    pub fn engine(&self) -> Engine {
        Engine::load(&EngineOptions {
            target: fixtures().join(&self.model),
            draft: Some(fixtures().join(&self.draft)),
            device: test_device().open().unwrap(),
            dtype: DtypeChoice::F32,
        })
        .unwrap()
    }

    pub fn images(&self) -> Vec<DecodedImage> {
        let open = |name: &String| DecodedImage::open(self.dir.join(name), &ImageLimits::default());
        self.images.iter().map(|name| open(name).unwrap()).collect()
    }

    pub fn messages(&self) -> Messages {
        Messages::from_json_value(&self.messages).unwrap()
    }

    pub fn encode(&self, engine: &Engine) -> EncodedPrompt {
        engine.encode(&self.messages(), &self.images()).unwrap().0
    }

    /// The reference forgets the image of LLaVA-1.5 in the draft; this project does not.
    pub fn draft_sees_what_ours_sees(&self) -> bool {
        !(self.model.ends_with("llava-15") && !self.images.is_empty())
    }

    pub fn tensors(&self) -> Tensors {
        Tensors::read(&self.dir.join("tensors.safetensors"))
    }
}

/// Device of the tests: the CPU, or the one that `VISPEC_TEST_DEVICE` names.
pub fn test_device() -> DeviceSpec {
    match std::env::var("VISPEC_TEST_DEVICE") {
        Ok(name) => name.parse().unwrap(),
        Err(_) => DeviceSpec::Flex,
    }
}

#[derive(Debug)]
pub struct Array {
    pub shape: Vec<usize>,
    pub values: Vec<f64>,
}

pub struct Tensors(HashMap<String, Array>);

impl Tensors {
    pub fn read(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        Self(
            file.iter()
                .map(|(name, view)| {
                    let data = view.data();
                    let values = match view.dtype() {
                        Dtype::F32 => data
                            .chunks_exact(4)
                            .map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap())))
                            .collect(),
                        Dtype::I64 => data
                            .chunks_exact(8)
                            .map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64)
                            .collect(),
                        Dtype::U8 => data.iter().map(|&b| f64::from(b)).collect(),
                        other => panic!("{name} is {other:?}"),
                    };
                    (
                        name.to_owned(),
                        Array {
                            shape: view.shape().to_vec(),
                            values,
                        },
                    )
                })
                .collect(),
        )
    }

    pub fn get(&self, name: &str) -> Option<&Array> {
        self.0.get(name)
    }
}

/// Largest difference over largest reference value.
#[track_caller]
pub fn assert_close(what: &str, found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}: number of elements");
    let largest = expected.iter().fold(1e-6f64, |m, v| m.max(v.abs()));
    let difference = found
        .iter()
        .zip(expected)
        .fold(0.0f64, |m, (a, b)| m.max((f64::from(*a) - b).abs()));
    assert!(
        difference <= tolerance * largest,
        "{what}: differs by {difference:e}, largest value {largest:e}"
    );
}
