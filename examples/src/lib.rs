//! What the binaries of this package share: flags, running a generation, records, exit codes.

pub mod evaluate;
pub mod failure;
pub mod flags;
pub mod memory;
pub mod record;
pub mod run;
pub mod stream;
pub mod tree;

/// Compiles the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
