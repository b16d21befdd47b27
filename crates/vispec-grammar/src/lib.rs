//! Grammars for the answers of language models: JSON schemas, regular expressions, choices and
//! tool calls, as constraints of [`vispec_core`].
//!
//! A [`GrammarCompiler`] belongs to a tokenizer and compiles any number of grammars; each answer
//! gets a [`Constraint`](vispec_core::Constraint) of its own from its [`Grammar`].
//! Parsing is that of the library `llguidance`.
//!
//! Where a grammar leaves one text only, such as the names of required properties, the tokens are
//! those that the tokenizer makes of it: they are known before the target is asked, and so they
//! are a draft that costs nothing.

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
