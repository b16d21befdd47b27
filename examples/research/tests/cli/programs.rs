//! The programs of this package.

use std::path::Path;

use crate::program::{Program, model};

impl Program {
    /// Returns `evaluate` with a target of the fixtures and output to `out`.
    pub fn evaluate(target: &str, out: &Path) -> Self {
        Self::new(env!("CARGO_BIN_EXE_evaluate"))
            .path("--target", &model(target))
            .path("--out", out)
            .args("--dtype f32")
    }

    pub fn tasks() -> Self {
        Self::new(env!("CARGO_BIN_EXE_tasks"))
    }
}
