//! Errors of grammars.

/// Maximum length of a parser message that is passed on, in bytes; messages can quote the grammar.
const MAX_REASON: usize = 400;

/// Error of compiling or following a grammar.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GrammarError {
    /// The grammar is too long.
    #[error("the grammar has {bytes} bytes, expected at most {limit}")]
    TooLong {
        /// Length in bytes; a schema is counted as JSON.
        bytes: usize,
        /// Maximum length in bytes.
        limit: usize,
    },
    /// The grammar is malformed, allows nothing, needs too much work or uses unsupported features.
    #[error("the grammar cannot be used: {reason}")]
    Invalid {
        /// Message of the parser.
        reason: String,
    },
    /// The schema of a tool's arguments is unusable in one of these ways.
    #[error("the schemas of the tools cannot be used: {reason}")]
    InvalidTools {
        /// Message of the parser.
        reason: String,
    },
    /// Following the grammar needed too much work.
    #[error("the grammar is too complex to continue: {reason}")]
    TooComplex {
        /// Message of the parser.
        reason: String,
    },
    /// The tokens of a tokenizer cannot be converted to bytes.
    #[error("grammars are not supported with this tokenizer: {reason}")]
    Tokenizer {
        /// Cause of the problem.
        reason: String,
    },
}

/// Returns the first line of a message, without the parser's notes for its developers.
pub(crate) fn reason(error: impl ToString) -> String {
    let message = error.to_string();
    let line = message.lines().next().unwrap_or_default();
    let end = line.floor_char_boundary(MAX_REASON);
    line[..end].to_owned()
}
