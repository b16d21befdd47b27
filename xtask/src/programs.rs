//! The programs of this workspace, for chores that run them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// A directory of programs.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    dir: PathBuf,
}

impl Programs {
    /// Programs that somebody built.
    pub(crate) fn of(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
        }
    }

    /// Where a program is.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        let file = format!("{name}{}", std::env::consts::EXE_SUFFIX);
        self.dir.join(file)
    }
}

/// Builds programs of `examples` in release mode.
pub(crate) fn build(names: &[&str]) -> Result<Programs> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let root = crate::root();
    let mut command = Command::new(cargo);
    command.args(["build", "--release", "-p", "vispec-examples"]);
    for name in names {
        command.args(["--bin", name]);
    }
    let status = command.current_dir(&root).status();
    let status = status.context("cargo could not be started")?;
    if !status.success() {
        bail!("{} could not be built: {status}", names.join(", "));
    }
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root.join("target"), |dir| root.join(dir));
    Ok(Programs {
        dir: target.join("release"),
    })
}
