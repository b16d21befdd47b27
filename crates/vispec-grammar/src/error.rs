//! Errors of grammars.

/// Longest message of the parser that is passed on, in bytes: it can quote the grammar.
const MAX_REASON: usize = 400;

/// Why there is no grammar, or why it gave up.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GrammarError {
    /// It is too long to be looked at.
    #[error("the grammar has {bytes} bytes, expected at most {limit}")]
    TooLong {
        /// Its bytes, a schema as JSON.
        bytes: usize,
        /// Most bytes.
        limit: usize,
    },
    /// It makes no sense, allows nothing, needs too much work or uses what is not supported.
    #[error("the grammar cannot be used: {reason}")]
    Invalid {
        /// What the parser says.
        reason: String,
    },
    /// The same of what tools are called with.
    #[error("the tools cannot be called by their schemas: {reason}")]
    InvalidTools {
        /// What the parser says.
        reason: String,
    },
    /// Following it became too much work.
    #[error("the grammar is too complex to go on with: {reason}")]
    TooComplex {
        /// What the parser says.
        reason: String,
    },
    /// The tokens of a tokenizer cannot be spelled in bytes.
    #[error("no grammar can be followed with this tokenizer: {reason}")]
    Tokenizer {
        /// What is wrong with it.
        reason: String,
    },
}

/// The first line of a message, without what the parser notes for its developers.
pub(crate) fn reason(error: impl ToString) -> String {
    let message = error.to_string();
    let line = message.lines().next().unwrap_or_default();
    let end = line.floor_char_boundary(MAX_REASON);
    line[..end].to_owned()
}
