//! The tiny models of the repository, with and without the server.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use serde_json::{Value, json};
use vispec::core::{GenerationConfig, MatchPicks, NoDraft, PositionUniforms, generate};
use vispec::models::EncodedPrompt;
use vispec::{
    DecodedImage, DtypeChoice, Engine, EngineSettings, ImageOptions, LoadOptions, Messages, Method,
    Sampler, SchedulerOptions, TreeChoice, TreeShape,
};
use vispec_processor::{Media, Part, SpecialText, Video};
use vispec_serve::EngineModel;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

/// The same pair for all tests.
pub fn model() -> Arc<EngineModel> {
    static MODEL: OnceLock<Arc<EngineModel>> = OnceLock::new();
    Arc::clone(MODEL.get_or_init(|| Arc::new(load_with(16 << 20))))
}

/// The pair with memory for conversations.
pub fn load_with(conversation_memory: usize) -> EngineModel {
    load(conversation_memory, SchedulerOptions::default())
}

/// The pair with memory for conversations and the given number of slots.
pub fn load(conversation_memory: usize, scheduler: SchedulerOptions) -> EngineModel {
    open(LoadOptions {
        settings: EngineSettings {
            conversation_memory,
            scheduler,
            ..options().settings
        },
        ..options()
    })
}

/// The pair with only prompt lookup.
pub fn load_lookup() -> EngineModel {
    open(LoadOptions {
        method: Some(Method::PromptLookup),
        ..options()
    })
}

/// The target without its draft.
pub fn load_plain() -> EngineModel {
    open(LoadOptions {
        method: Some(Method::None),
        ..options()
    })
}

/// The pair with a chat template that supports tools.
pub fn load_with_tools() -> EngineModel {
    let template = "../examples/chat-templates/qwen-tools.jinja";
    open(LoadOptions {
        chat_template: Some(fixtures().join(template)),
        ..options()
    })
}

fn options() -> LoadOptions {
    LoadOptions {
        dtype: DtypeChoice::F32,
        tree: TreeChoice::Sized(TreeShape::default().into()),
        settings: EngineSettings {
            image_options: ImageOptions {
                max_pixels: 1 << 20,
                max_side: 2048,
                ..ImageOptions::default()
            },
            ..EngineSettings::default()
        },
        ..LoadOptions::default()
    }
}

fn open(options: LoadOptions) -> EngineModel {
    open_pair(("qwen-tied", Some("qwen-tied-q4")), options)
}

/// Another target, with or without a draft.
pub fn load_pair(target: &str, draft: Option<&str>) -> EngineModel {
    open_pair((target, draft), options())
}

fn open_pair((target, draft): (&str, Option<&str>), options: LoadOptions) -> EngineModel {
    let place = |dir: &str, name: &str| fixtures().join(dir).join(name).display().to_string();
    let draft = draft.map(|draft| place("drafts", draft));
    let engine = Engine::load(&place("models", target), draft.as_deref(), options);
    EngineModel {
        id: "tiny".to_owned(),
        engine: engine.unwrap(),
    }
}

pub fn image_path() -> PathBuf {
    fixtures().join("cases/qwen-tied/q4-img-large/image_0.png")
}

pub fn image_file() -> Vec<u8> {
    std::fs::read(image_path()).unwrap()
}

pub fn data_url(bytes: &[u8]) -> String {
    let base64 = base64::engine::general_purpose::STANDARD.encode(bytes);
    format!("data:image/png;base64,{base64}")
}

/// A question about the picture, in the form that clients send.
pub fn question(text: &str) -> Value {
    json!({"model": "tiny", "messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": data_url(&image_file())}},
        {"type": "text", "text": text},
    ]}]})
}

/// Text and number of tokens, computed without a server and without a draft.
pub struct Plain {
    pub text: String,
    pub pieces: Vec<String>,
    pub prompt_tokens: usize,
    pub tokens: Vec<u32>,
}

/// The answer of plain decoding to the same question.
pub fn plain(text: &str, sampler: Sampler, seed: u64, max_new_tokens: usize) -> Plain {
    let model = model();
    let image = DecodedImage::from_bytes(&image_file(), &ImageOptions::default()).unwrap();
    let messages = Messages::from_prompt(None, text, 1);
    let (prompt, _) = model.engine.models().encode(&messages, &[image]).unwrap();
    decode(&model, &prompt, sampler, seed, max_new_tokens)
}

/// The answer of plain decoding to a question about a video, which comes before the question.
pub fn plain_video(model: &EngineModel, video: Video, text: &str, sampler: Sampler) -> Plain {
    let messages = Messages::showing(None, text, vec![Part::Video]);
    let media = Media {
        images: &[],
        videos: &[video],
    };
    let models = model.engine.models();
    let (prompt, _) = models.encode_media(&messages, media).unwrap();
    decode(model, &prompt, sampler, 3, 24)
}

/// The frames of a case of the reference.
pub fn frame_paths(case: &str) -> Vec<PathBuf> {
    let dir = fixtures().join(case);
    let case: Value =
        serde_json::from_slice(&std::fs::read(dir.join("case.json")).unwrap()).unwrap();
    let frames = case["videos"][0]["frames"].as_array().unwrap().iter();
    frames
        .map(|frame| dir.join(frame.as_str().unwrap()))
        .collect()
}

/// The same frames as files.
pub fn frame_files(case: &str) -> Vec<Vec<u8>> {
    let paths = frame_paths(case).into_iter();
    paths.map(|path| std::fs::read(path).unwrap()).collect()
}

/// The continuation of a text by plain decoding, without a chat template.
pub fn plain_completion(text: &str, max_new_tokens: usize) -> Plain {
    let model = model();
    let (prompt, _) = model.engine.models().encode_text(text, &|| true).unwrap();
    decode(&model, &prompt, Sampler::Greedy, 0, max_new_tokens)
}

fn decode(
    model: &EngineModel,
    prompt: &EncodedPrompt,
    sampler: Sampler,
    seed: u64,
    max_new_tokens: usize,
) -> Plain {
    let processor = model.engine.models().processor();
    let config = GenerationConfig {
        max_new_tokens,
        stop_tokens: processor.eos_token_ids().iter().copied().collect(),
    };
    let rule = MatchPicks::new(sampler, PositionUniforms::new(seed));
    let target = model.engine.models().target();
    let answer = generate(target, NoDraft, rule, prompt, config, &mut ()).unwrap();
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
