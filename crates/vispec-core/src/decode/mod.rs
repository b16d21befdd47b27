//! The decoding loop.

mod batch;
mod checks;
mod session;
mod stop;

pub use batch::{Batch, Ended, Pass, PassRows, PassTimes, SequenceId};
pub use session::{Session, Step, Work};
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
    /// Why the generation ended.
    pub finish_reason: FinishReason,
    /// Counts and times.
    pub stats: GenerationStats,
}

/// Runs a [`Session`] until it ends.
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

/// Like [`generate`], but in a cache that may already hold the first tokens of the prompt (see
/// [`Session::start_in`]). Also returns the cache for the next turn (see [`Session::into_parts`]).
///
/// # Errors
/// Same as [`generate`].
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
    let mut session = Session::start_in(target, drafter, rule, beginning, config)?;
    loop {
        if let Work::Done(finish_reason) = session.work()? {
            let (tokens, stats, cache) = session.into_parts();
            let generation = Generation {
                tokens,
                finish_reason,
                stats,
            };
            return Ok((generation, cache));
        }
        session.step(target, observer)?;
    }
}
