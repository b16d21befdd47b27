//! Runs on a tiny target: equality with inference, batches, interruption, export, configs.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod batches;
mod configs;
mod eagle3;
mod equality;
mod interruption;
mod outcome;
mod qwen3;
mod ranks;
mod samples;
mod threads;
