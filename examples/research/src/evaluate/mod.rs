//! Measuring a cell, or several that differ only in their draft trees: every prompt of a task,
//! answered plainly once and speculatively for each cell.
//!
//! ```text
//! EvaluateFlags ─► Setup: engine, task, settings ─┬─► cells: all arms ─► records.jsonl
//!                                                 └─► throughput: batches ─► throughput.json
//! ```
//!
//! `docs/measuring.md` explains the files and figures.

mod arms;
mod cells;
mod costs;
mod divergence;
mod flags;
mod prompts;
mod setup;
mod throughput;

pub use flags::EvaluateFlags;

use examples_answer::failure::Failure;
use setup::Setup;

/// Measures the cells that the flags describe.
///
/// # Errors
/// Usage if flags are invalid; any error of task, models and files; and at the end, an error if
/// prompts could not be answered.
pub fn run(flags: &EvaluateFlags) -> Result<(), Failure> {
    let setup = Setup::new(flags)?;
    match flags.batch() {
        None => cells::measure(setup, flags.shard),
        Some(batch) => throughput::measure(setup, batch),
    }
}
