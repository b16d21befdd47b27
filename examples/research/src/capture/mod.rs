//! The implementation of the program `capture`: from conversations to stored samples.
//!
//! ```text
//! position ─► Questions ─┬─► AnswerReader (stage 1) ─────────────┬─► Sample ─► CaptureWriter
//!                        └─► AnswerWriter (stage 2), N at a time ┘
//! ```

pub mod flags;
pub mod progress;
pub mod report;
pub mod run;
pub mod sizes;

mod own_questions;
mod question;
mod read;
mod sample;
mod write;
