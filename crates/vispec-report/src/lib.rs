//! Records of measured generations, and reports derived from them.
//!
//! A *cell* is a combination of one target, one method with its draft, one set of settings and one
//! task. The program `evaluate` answers each prompt of a task twice, once with plain decoding and
//! once with speculative decoding, and writes one [`PromptRecord`](record::PromptRecord) per prompt
//! into the directory of the cell. Everything else is derived from these records and can be
//! regenerated at any time.
//!
//! ```text
//! evaluate --> cell.json, records.jsonl --> statistics --> tables, plots, page
//!                                       \-> predict
//! ```
//!
//! The crate does not depend on models or tensors.

mod cell;
pub mod collection;
mod error;
mod page;
mod paper;
pub mod plots;
pub mod predict;
mod random;
pub mod record;
pub mod report;
mod series;
pub mod statistics;
#[cfg(feature = "synthetic")]
pub mod synthetic;
pub mod tables;
mod whole_file;

pub use error::{ReportError, Result};
pub use whole_file::write_whole;

/// Compiles the examples of the README as doc tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
