//! Measures one cell: answers a task plainly and speculatively, and writes records for
//! `cargo xtask report`.

use std::process::ExitCode;

use clap::Parser;
use examples_answer::command_line;
use examples_answer::failure::exit_code;
use examples_research::evaluate::{self, EvaluateFlags};

/// Answer the prompts of a task plainly and speculatively, and record the tokens, accepted tokens
/// and times of both
#[derive(Parser, Debug)]
struct Flags {
    #[command(flatten)]
    cell: EvaluateFlags,
}

fn main() -> ExitCode {
    let flags: Flags = command_line::parse(env!("CARGO_BIN_NAME"));
    exit_code(|| evaluate::run(&flags.cell))
}
