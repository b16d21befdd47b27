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
    let mut session = Session::start(target, drafter, rule, prompt, config, observer)?;
    loop {
        if let Some(finish_reason) = session.finish_reason() {
            let (tokens, stats) = session.into_parts();
            return Ok(Generation {
                tokens,
                finish_reason,
                stats,
            });
        }
        session.step(observer)?;
    }
}
