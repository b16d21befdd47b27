//! The tiny models of the repository, behind the server and without it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use serde_json::{Value, json};
use vispec_core::{GenerationConfig, MatchPicks, PositionUniforms, Sampler, TreeShape, generate};
use vispec_models::{DeviceSpec, DtypeChoice, EncodedPrompt, Engine, EngineOptions, Method};
use vispec_processor::{DecodedImage, ImageLimits, Messages, SpecialText};
use vispec_serve::EngineModel;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

/// The same pair for all tests.
pub fn model() -> Arc<EngineModel> {
    static MODEL: OnceLock<Arc<EngineModel>> = OnceLock::new();
    Arc::clone(MODEL.get_or_init(|| Arc::new(load())))
}

fn load() -> EngineModel {
    let engine = Engine::load(&EngineOptions {
        target: fixtures().join("models/qwen-tied"),
        draft: Some(fixtures().join("drafts/qwen-tied-q4")),
        draft_vocab: None,
        device: DeviceSpec::Flex.open().unwrap(),
        dtype: DtypeChoice::F32,
    });
    EngineModel {
        id: "tiny".to_owned(),
        engine: engine.unwrap(),
        method: Method::Vispec,
        tree: TreeShape::default().into(),
        image_limits: ImageLimits {
            max_pixels: 1 << 20,
            max_side: 2048,
        },
    }
}

pub fn image_file() -> Vec<u8> {
    std::fs::read(fixtures().join("cases/qwen-tied/q4-img-large/image_0.png")).unwrap()
}

pub fn data_url(bytes: &[u8]) -> String {
    let base64 = base64::engine::general_purpose::STANDARD.encode(bytes);
    format!("data:image/png;base64,{base64}")
}

/// A question about the picture as a client sends it.
pub fn question(text: &str) -> Value {
    json!({"model": "tiny", "messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": data_url(&image_file())}},
        {"type": "text", "text": text},
    ]}]})
}

/// Text and number of tokens without a server and without a draft.
pub struct Plain {
    pub text: String,
    pub pieces: Vec<String>,
    pub prompt_tokens: usize,
    pub tokens: Vec<u32>,
}

/// What plain decoding answers to the same question.
pub fn plain(text: &str, sampler: Sampler, seed: u64, max_new_tokens: usize) -> Plain {
    let model = model();
    let image = DecodedImage::from_bytes(&image_file(), &ImageLimits::default()).unwrap();
    let messages = Messages::from_prompt(None, text, 1);
    let (prompt, _) = model.engine.encode(&messages, &[image]).unwrap();
    decode(&model, &prompt, sampler, seed, max_new_tokens)
}

/// What plain decoding makes of a text without a chat template.
pub fn plain_completion(text: &str, max_new_tokens: usize) -> Plain {
    let model = model();
    let (prompt, _) = model.engine.encode_text(text).unwrap();
    decode(&model, &prompt, Sampler::Greedy, 0, max_new_tokens)
}

fn decode(
    model: &EngineModel,
    prompt: &EncodedPrompt,
    sampler: Sampler,
    seed: u64,
    max_new_tokens: usize,
) -> Plain {
    let processor = model.engine.processor();
    let config = GenerationConfig {
        max_new_tokens,
        stop_tokens: processor.eos_token_ids().iter().copied().collect(),
    };
    let rule = MatchPicks::new(sampler, PositionUniforms::new(seed));
    let drafter = vispec_core::NoDraft;
    let target = model.engine.target();
    let answer = generate(target, drafter, rule, prompt, config, &mut ()).unwrap();
    let decode = |ids: &[u32]| {
        processor
            .tokenizer()
            .decode(ids, SpecialText::Skip)
            .unwrap()
    };
    Plain {
        text: decode(&answer.tokens),
        pieces: answer.tokens.iter().map(|&id| decode(&[id])).collect(),
        prompt_tokens: answer.stats.prompt_tokens(),
        tokens: answer.tokens,
    }
}
