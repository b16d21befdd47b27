//! Measuring one cell: every prompt of a task answered plainly and speculatively, side by side.
//!
//! ```text
//! EvaluateFlags ─► Cell: engine, task, settings ─► prompts ─► both arms ─► records.jsonl
//! ```
//!
//! docs/measuring.md explains the files and figures.

mod arms;
mod cell;
mod costs;
mod divergence;
mod flags;
mod prompts;

pub use cell::run;
pub use flags::EvaluateFlags;
