//! The programs of this package.

use std::path::Path;

use crate::program::{Program, model};

impl Program {
    pub fn demo() -> Self {
        Self::new(env!("CARGO_BIN_EXE_demo"))
    }

    pub fn inspect() -> Self {
        Self::new(env!("CARGO_BIN_EXE_inspect"))
    }

    pub fn custom_target() -> Self {
        Self::new(env!("CARGO_BIN_EXE_custom_target"))
    }

    pub fn draft_vocab() -> Self {
        Self::new(env!("CARGO_BIN_EXE_draft_vocab"))
    }

    pub fn captions() -> Self {
        Self::new(env!("CARGO_BIN_EXE_captions"))
    }

    pub fn chat() -> Self {
        Self::new(env!("CARGO_BIN_EXE_chat"))
    }

    /// `generate` without any flags.
    pub fn bare() -> Self {
        Self::new(env!("CARGO_BIN_EXE_generate"))
    }

    /// `generate` with a target from the fixtures.
    pub fn generate(target: &str) -> Self {
        Self::generate_in(&model(target))
    }

    pub fn generate_in(target: &Path) -> Self {
        Self::bare().path("--target", target)
    }
}
