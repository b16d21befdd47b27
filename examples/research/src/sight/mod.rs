//! Answers of a language model that learns to see: about words before training, about pictures
//! after.

mod naming;
mod word_answers;

pub use naming::name_pictures;
pub use word_answers::write_word_answers;

use std::path::Path;

use vispec_core::{GenerationConfig, GenerationObserver, Sampler, TargetModel as _, TreeShape};
use vispec_models::{
    DeviceSpec, DraftVocab, DtypeChoice, EncodedPrompt, Engine, EngineOptions, KvPrecision,
    LayerIds, Method,
};
use vispec_processor::{DecodedImage, Messages};

use crate::together::Together;
use examples_answer::failure::Failure;
use examples_answer::run::Settings;

/// Number of answers generated together.
const BATCH: usize = 16;

/// A question with the key of its answer.
struct Asked<K> {
    key: K,
}

impl<K> GenerationObserver for Asked<K> {}

/// A question of [`answer_all`].
struct Question<K> {
    key: K,
    text: String,
    image: Option<DecodedImage>,
}

/// Lets the model answer all questions greedily; `done` receives the tokens of each answer.
fn answer_all<K>(
    engine: &Engine,
    max_new_tokens: usize,
    mut questions: impl Iterator<Item = Result<Question<K>, Failure>>,
    mut done: impl FnMut(K, &[u32]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let settings = Settings {
        grammar: None,
        config: GenerationConfig {
            max_new_tokens,
            stop_tokens: engine.processor().eos_token_ids().iter().copied().collect(),
        },
        sampler: Sampler::Greedy,
        seed: 0,
        tree: TreeShape::default().into(),
    };
    let mut together: Together<'_, EncodedPrompt, Asked<K>> =
        Together::new(engine, Method::None, BATCH);
    loop {
        while together.has_room()
            && let Some(question) = questions.next()
        {
            let Question { key, text, image } = question?;
            let images: Vec<DecodedImage> = image.into_iter().collect();
            let messages = Messages::from_prompt(None, &text, images.len());
            let prepared = engine.processor().prepare(&messages, &images);
            let prompt = engine
                .target()
                .encode(&prepared.map_err(anyhow::Error::from)?)?;
            let cache = engine.target().new_cache();
            let cache = cache.map_err(|error| anyhow::anyhow!(error))?;
            together.start(Asked { key }, (prompt, cache), &settings)?;
        }
        if together.is_empty() {
            return Ok(());
        }
        for finished in together.pass() {
            done(finished.observer.key, finished.session?.tokens())?;
        }
    }
}

/// Loads a target without a draft.
fn load(dir: &Path, device: DeviceSpec) -> Result<Engine, Failure> {
    let options = EngineOptions {
        target: dir.to_owned(),
        draft: None,
        draft_vocab: DraftVocab::default(),
        draft_layer_ids: LayerIds::default(),
        device: device.open()?,
        dtype: DtypeChoice::Auto,
        kv: KvPrecision::default(),
    };
    Ok(Engine::load(&options)?)
}
