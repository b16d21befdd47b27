//! One generation with a loaded engine.

use std::time::{Duration, Instant};

use vispec::grammar::Grammar;
use vispec_core::{
    AcceptanceRule, AdjustedPicks, DecodeError, ForcedTokens, Generation, GenerationConfig,
    GenerationObserver, LogitAdjustments, MatchPicks, PositionUniforms, Sampler, TargetModel as _,
    TreeSize, generate_in,
};
use vispec_models::{ConversationStore, EncodeTimes, EncodedPrompt, Engine, Method};

use crate::failure::Failure;
use crate::flags::DecodeFlags;

/// Settings of a generation, except the drafter.
#[derive(Debug, Clone)]
pub struct Settings {
    /// When to stop.
    pub config: GenerationConfig,
    /// How tokens are chosen.
    pub sampler: Sampler,
    /// Seed of sampling.
    pub seed: u64,
    /// Size of the draft trees.
    pub tree: TreeSize,
    /// Grammar of the answer, if it is constrained.
    pub grammar: Option<Grammar>,
}

impl Settings {
    /// Takes the settings from flags.
    ///
    /// # Errors
    /// [`Failure::Usage`] if a flag is out of range.
    pub fn new(flags: &DecodeFlags, engine: &Engine, tree: TreeSize) -> Result<Self, Failure> {
        Ok(Self {
            config: flags.config(engine),
            sampler: flags.sampler()?,
            seed: flags.seed,
            tree,
            grammar: None,
        })
    }

    fn rule(&self, method: Method) -> Box<dyn AcceptanceRule> {
        let uniforms = PositionUniforms::new(self.seed);
        let Some(grammar) = &self.grammar else {
            return Box::new(MatchPicks::new(self.sampler, uniforms));
        };
        let forced = match method {
            Method::None => ForcedTokens::Decoded,
            _ => ForcedTokens::Drafted,
        };
        let nothing = LogitAdjustments::default();
        let rule = AdjustedPicks::new(self.sampler, uniforms, nothing, &[]);
        Box::new(rule.with_constraint(Box::new(grammar.constraint()), forced))
    }
}

/// Times of a generation outside the decoding loop.
#[derive(Debug, Clone, Copy, Default)]
pub struct OuterTimes {
    /// Reading checkpoints.
    pub load: Duration,
    /// Image processing and vision tower.
    pub encode: EncodeTimes,
}

/// A finished generation.
#[derive(Debug, Clone)]
pub struct Run {
    /// Drafting method.
    pub method: Method,
    /// Tokens and statistics.
    pub generation: Generation,
    /// Prefill and decoding together.
    pub elapsed: Duration,
}

/// Answers `prompt`.
///
/// # Errors
/// Any error of the models.
pub fn answer(
    engine: &Engine,
    prompt: &EncodedPrompt,
    method: Method,
    settings: &Settings,
    observer: &mut dyn GenerationObserver,
) -> Result<Run, Failure> {
    let nothing = ConversationStore::new(0);
    answer_next(engine, (prompt, &nothing), method, settings, observer)
}

/// Answers `prompt`; reads only the part that is not in `store`, and adds the answer to it.
///
/// # Errors
/// Any error of the models.
pub fn answer_next(
    engine: &Engine,
    (prompt, store): (&EncodedPrompt, &ConversationStore),
    method: Method,
    settings: &Settings,
    observer: &mut dyn GenerationObserver,
) -> Result<Run, Failure> {
    let target = engine.target();
    let drafter = engine.drafter(method, settings.tree.clone())?;
    let rule = settings.rule(method);
    let started = Instant::now();
    let cache = match store.cache_for(target, prompt) {
        Some(cache) => cache,
        None => target.new_cache().map_err(DecodeError::Target)?,
    };
    let config = settings.config.clone();
    let (generation, cache) =
        generate_in(target, drafter, rule, (prompt, cache), config, observer)?;
    store.keep(prompt, &generation.tokens, cache);
    Ok(Run {
        method,
        generation,
        elapsed: started.elapsed(),
    })
}

/// Generates a few tokens with each method, so that cold caches do not affect a comparison.
///
/// # Errors
/// Any error of the models.
pub fn warm_up(
    engine: &Engine,
    prompt: &EncodedPrompt,
    methods: &[Method],
    settings: &Settings,
) -> Result<(), Failure> {
    let mut short = settings.clone();
    short.config.max_new_tokens = short.config.max_new_tokens.min(WARM_UP_TOKENS);
    for &method in methods {
        answer(engine, prompt, method, &short, &mut ())?;
    }
    Ok(())
}

const WARM_UP_TOKENS: usize = 8;
