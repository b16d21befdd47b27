//! Cases of the reference implementation, which `fixtures/README.md` describes, and helpers that
//! several test programs share.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test program uses a part of this, and may panic"
)]

pub mod eagle3;
pub mod qwen3;
pub mod shared;
pub mod stored;
pub mod torch_archive;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Tensor};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use vispec_core::{
    BoxError, Generation, GenerationConfig, GenerationObserver, MatchPicks, PositionUniforms,
    Sampler, TreeShape, generate,
};
use vispec_models::{
    DeviceSpec, DraftVocab, DtypeChoice, EncodedPrompt, Engine, EngineOptions, KvPrecision,
    LayerIds, Method,
};
use vispec_processor::{DecodedImage, ImageOptions, Messages};

pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

/// One target of each family that has a ViSpec draft, with this draft.
pub const VISPEC: [(&str, &str); 3] = [
    ("qwen-untied", "qwen-untied-q2"),
    ("llava-next", "llava-next-q2"),
    ("llava-15", "llava-15-q2"),
];

/// One target of each family.
pub const TARGETS: [&str; 4] = ["qwen-untied", "qwen3-untied", "llava-next", "llava-15"];

/// Every drafter: target, draft, method.
pub const DRAFTERS: [(&str, Option<&str>, Method); 9] = [
    ("qwen-untied", Some("qwen-untied-q2"), Method::Vispec),
    ("llava-next", Some("llava-next-q2"), Method::Vispec),
    ("llava-15", Some("llava-15-q2"), Method::Vispec),
    ("qwen-untied", Some("qwen-untied-eagle2"), Method::Eagle2),
    ("qwen-untied", Some("qwen-untied-medusa"), Method::Medusa),
    ("qwen-untied", None, Method::PromptLookup),
    ("qwen-tied", Some("qwen-tied-eagle3-sglang"), Method::Eagle3),
    (
        "qwen-tied",
        Some("qwen-tied-eagle3-vllm-mrope"),
        Method::Eagle3,
    ),
    (
        "qwen3-untied",
        Some("qwen3-untied-eagle3-vllm-mrope-qwen3vl"),
        Method::Eagle3,
    ),
];

/// Loads a target and a draft of the fixtures.
pub fn load(target: &str, draft: Option<&str>, dtype: DtypeChoice) -> Engine {
    load_with_kv(target, draft, dtype, KvPrecision::Auto)
}

/// Like [`load`], but with caches of another data type.
pub fn load_with_kv(
    target: &str,
    draft: Option<&str>,
    dtype: DtypeChoice,
    kv: KvPrecision,
) -> Engine {
    let draft = draft.map(|draft| fixtures().join("drafts").join(draft));
    engine(fixtures().join("models").join(target), draft, dtype, kv)
}

/// Loads a target and a draft from any directories.
pub fn load_dirs(target: PathBuf, draft: Option<PathBuf>, dtype: DtypeChoice) -> Engine {
    engine(target, draft, dtype, KvPrecision::Auto)
}

fn engine(target: PathBuf, draft: Option<PathBuf>, dtype: DtypeChoice, kv: KvPrecision) -> Engine {
    Engine::load(&EngineOptions {
        target,
        draft,
        draft_vocab: DraftVocab::Auto,
        draft_layer_ids: LayerIds::Auto,
        device: test_device().open().unwrap(),
        dtype,
        kv,
    })
    .unwrap()
}

/// Returns the image of a case such as `qwen-untied/img-short`.
pub fn image_of(case: &str) -> DecodedImage {
    let path = match case.starts_with("qwen3") {
        true => {
            // The cases of Qwen3-VL have other names.
            let case = case.replace("img-short", "img-small");
            qwen3::cases_dir().join(case.replace("img-long", "img-odd"))
        }
        false => fixtures().join("cases").join(case),
    };
    let path = path.join("image_0.png");
    DecodedImage::open(path, &ImageOptions::default()).unwrap()
}

/// Encodes a question about the image of the model's `img-short` case.
pub fn question(engine: &Engine, model: &str, question: &str) -> EncodedPrompt {
    let messages = Messages::from_prompt(None, question, 1);
    let image = image_of(&format!("{model}/img-short"));
    engine.encode(&messages, &[image]).unwrap().0
}

/// Copies a directory of the fixtures, so that it can be changed.
pub fn copy_of(dir: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in fs::read_dir(fixtures().join(dir)).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    copy
}

/// Returns the elements of a tensor on any device, as f32.
pub fn floats(tensor: &Tensor<2>) -> Vec<f32> {
    Tensor::<2>::cast(tensor.clone(), DType::F32)
        .into_data()
        .try_into_vec()
        .unwrap()
}

/// Pseudo-random numbers that are the same in every run (splitmix64).
pub struct Numbers(pub u64);

impl Numbers {
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }
}

/// Creates a tree shape from upstream's `depth`, `top_k` and `total_token`.
pub fn shape(depth: usize, top_k: usize, total_token: usize) -> TreeShape {
    TreeShape::from_upstream(depth, top_k, total_token).unwrap()
}

/// Settings for decoding an answer.
#[derive(Debug, Clone, Copy)]
pub struct Decoding {
    pub sampler: Sampler,
    pub seed: u64,
    pub max_new_tokens: usize,
}

impl Decoding {
    pub fn greedy(max_new_tokens: usize) -> Self {
        Self {
            sampler: Sampler::Greedy,
            seed: 0,
            max_new_tokens,
        }
    }

    pub fn answer(
        self,
        engine: &Engine,
        prompt: &EncodedPrompt,
        method: Method,
        shape: TreeShape,
    ) -> Generation {
        self.try_answer(engine, prompt, method, shape, &mut ())
            .unwrap()
    }

    pub fn try_answer(
        self,
        engine: &Engine,
        prompt: &EncodedPrompt,
        method: Method,
        shape: TreeShape,
        observer: &mut dyn GenerationObserver,
    ) -> Result<Generation, BoxError> {
        let drafter = engine.drafter(method, shape)?;
        let config = GenerationConfig {
            max_new_tokens: self.max_new_tokens,
            stop_tokens: engine.processor().eos_token_ids().iter().copied().collect(),
        };
        let rule = MatchPicks::new(self.sampler, PositionUniforms::new(self.seed));
        Ok(generate(
            engine.target(),
            drafter,
            rule,
            prompt,
            config,
            observer,
        )?)
    }
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
        load_dirs(
            fixtures().join(&self.model),
            Some(fixtures().join(&self.draft)),
            DtypeChoice::F32,
        )
    }

    pub fn images(&self) -> Vec<DecodedImage> {
        let open =
            |name: &String| DecodedImage::open(self.dir.join(name), &ImageOptions::default());
        self.images.iter().map(|name| open(name).unwrap()).collect()
    }

    pub fn messages(&self) -> Messages {
        Messages::from_json_value(&self.messages).unwrap()
    }

    pub fn encode(&self, engine: &Engine) -> EncodedPrompt {
        engine.encode(&self.messages(), &self.images()).unwrap().0
    }

    /// Returns whether the reference's draft has the same input as this project's. The reference
    /// does not pass the image to the draft of LLaVA-1.5.
    pub fn draft_sees_what_ours_sees(&self) -> bool {
        !self.model.ends_with("llava-15") || self.images.is_empty()
    }

    pub fn tensors(&self) -> Tensors {
        Tensors::read(&self.dir.join("tensors.safetensors"))
    }
}

/// Returns the device of the tests: the CPU, or the one that `VISPEC_TEST_DEVICE` names.
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

/// Asserts that the largest difference, relative to the largest reference value, is within the
/// tolerance.
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
