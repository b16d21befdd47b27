//! The two names everything else is written in: a token id and a boxed plug-in error.

/// Id of a token in the target's vocabulary.
pub type TokenId = u32;

/// Error of a plug-in (target model, drafter), opaque to this crate.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;
