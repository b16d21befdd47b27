//! Measuring one cell: every prompt of a task, answered plainly and speculatively.
//!
//! ```text
//! EvaluateFlags ─► Setup: engine, task, settings ─┬─► cell: both arms ─► records.jsonl
//!                                                 └─► throughput: batches ─► throughput.json
//! ```
//!
//! `docs/measuring.md` explains the files and figures.

mod arms;
mod cell;
mod costs;
mod divergence;
mod flags;
mod prompts;
mod setup;
mod throughput;

pub use flags::EvaluateFlags;

use examples_answer::failure::Failure;
use setup::Setup;

/// Measures the cell that the flags describe.
///
/// # Errors
/// Usage if flags are invalid; any error of task, models and files; and at the end, an error if
/// prompts could not be answered.
pub fn run(flags: &EvaluateFlags) -> Result<(), Failure> {
    let setup = Setup::new(flags)?;
    match flags.batch() {
        None => cell::measure(setup, &flags.out),
        Some(batch) => throughput::measure(setup, batch, &flags.out),
    }
}
