//! The decoding loop.

mod session;
mod stop;

pub use session::{Session, Step};
pub use stop::{FinishReason, GenerationConfig};

use crate::{
    AcceptanceRule, DecodeError, Drafter, GenerationObserver, GenerationStats, TargetModel, TokenId,
};

/// A finished generation.
#[derive(Clone, PartialEq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Generation {
    /// Tokens emitted, a stop token included.
    pub tokens: Vec<TokenId>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Counts and times.
    pub stats: GenerationStats,
}

/// Runs a [`Session`] to its end.
///
/// # Errors
/// [`DecodeError`] if the prompt is empty or too long, or a plug-in fails.
pub fn generate<T, D, A>(
    target: &T,
    drafter: D,
    rule: A,
    prompt: &T::Prompt,
    config: GenerationConfig,
    observer: &mut dyn GenerationObserver,
) -> Result<Generation, DecodeError>
where
    T: TargetModel,
    D: Drafter<T>,
    A: AcceptanceRule,
{
    let cache = target.new_cache().map_err(DecodeError::Target)?;
    generate_in(target, drafter, rule, (prompt, cache), config, observer)
        .map(|(generation, _)| generation)
}

/// [`generate`] in a cache that may hold the first tokens of the prompt, as
/// [`Session::start_in`] takes it; hands the cache back for the next turn, as
/// [`Session::into_cache`] gives it.
///
/// # Errors
/// As [`generate`].
pub fn generate_in<T, D, A>(
    target: &T,
    drafter: D,
    rule: A,
    beginning: (&T::Prompt, T::Cache),
    config: GenerationConfig,
    observer: &mut dyn GenerationObserver,
) -> Result<(Generation, T::Cache), DecodeError>
where
    T: TargetModel,
    D: Drafter<T>,
    A: AcceptanceRule,
{
    let mut session = Session::start_in(target, drafter, rule, beginning, config, observer)?;
    loop {
        if let Some(finish_reason) = session.finish_reason() {
            let generation = Generation {
                tokens: session.tokens().to_vec(),
                finish_reason,
                stats: session.stats().clone(),
            };
            return Ok((generation, session.into_cache()));
        }
        session.step(observer)?;
    }
}
