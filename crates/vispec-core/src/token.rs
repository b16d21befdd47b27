//! Two basic types: the token id and the boxed error of a plug-in.

/// Id of a token in the target's vocabulary.
pub type TokenId = u32;

/// Error of a plug-in (target model, drafter), opaque to this crate.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;
