//! The binaries as a user runs them: their output, and how they reject bad input.

#![cfg(unix)] // memory is bounded with ulimit
#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test may panic, and nothing is used from outside"
)]

mod answers;
mod captions;
mod chat;
mod checkpoints;
mod configs;
mod files;
mod flags;
mod images;
mod json_schemas;
mod program;
mod programs;
mod prompts;
mod videos;
