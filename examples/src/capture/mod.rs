//! The program `capture` apart from its flags: from conversations to stored samples.

pub mod flags;
pub mod progress;
pub mod report;
pub mod run;
pub mod sample;
pub mod sizes;
