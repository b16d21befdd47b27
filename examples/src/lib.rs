//! What the binaries of this package share: flags, running a generation, records, exit codes.

pub mod failure;
pub mod flags;
pub mod memory;
pub mod record;
pub mod run;
pub mod stream;
