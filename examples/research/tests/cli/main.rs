//! The programs from a user's point of view: what they print where, and how they reject bad input.

#![cfg(unix)] // memory is bounded with ulimit
#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test may panic, and nothing is used from outside"
)]

mod evaluation;
#[allow(
    dead_code,
    reason = "shared by the tests of all programs, of which some ask less"
)]
#[path = "../../../answer/tests/cli/program.rs"]
mod program;
mod programs;
mod tasks;
mod throughput;
