//! Grammars for the answers of language models: JSON schemas, regular expressions, choices and
//! tool calls, as constraints of [`vispec_core`].
//!
//! A [`GrammarCompiler`] belongs to a tokenizer and compiles any number of grammars. Each answer
//! gets its own [`Constraint`](vispec_core::Constraint) from its [`Grammar`]. The library
//! `llguidance` does the parsing.
//!
//! Where a grammar allows only one text, such as the names of required properties, the tokens are
//! those of the tokenizer for that text. They are known before the target's pass, so they are a
//! free draft.

mod closing;
mod compiler;
mod constraint;
mod error;
mod source;
mod vocabulary;

pub use compiler::{Grammar, GrammarCompiler};
pub use constraint::GrammarConstraint;
pub use error::GrammarError;
pub use source::{CallCount, GrammarSource, ToolSignature};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
