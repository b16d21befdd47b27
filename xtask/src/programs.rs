//! The programs of this workspace, for chores that run them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Those that can share their work among processes.
const SHARING: [&str; 2] = ["make_target", "train"];

/// A directory of programs.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    dir: PathBuf,
    /// Processes of those that share their work.
    ranks: usize,
}

impl Programs {
    /// Programs that somebody built.
    pub(crate) fn of(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            ranks: 1,
        }
    }

    /// The same, run in so many processes where they can share their work.
    pub(crate) fn on(self, ranks: usize) -> Self {
        Self { ranks, ..self }
    }

    /// How a program is started.
    pub(crate) fn command(&self, name: &str) -> Command {
        let path = self.path(name);
        if self.ranks == 1 || !SHARING.contains(&name) {
            return Command::new(path);
        }
        let mut command = Command::new("mpirun");
        // A process has as many threads as it has cores.
        command.args(["--bind-to", "none", "-n", &self.ranks.to_string()]);
        if std::env::var_os(THREADS).is_none() {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            command.env(THREADS, (cores / self.ranks).max(1).to_string());
        }
        command.arg(path);
        command
    }

    /// Where a program is.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        let file = format!("{name}{}", std::env::consts::EXE_SUFFIX);
        self.dir.join(file)
    }
}

/// Number of threads of a process.
const THREADS: &str = "RAYON_NUM_THREADS";

/// Builds programs of `examples` in release mode, as `cargo build --release` does: with another selection
/// of packages features would differ, and most would be built once more.
pub(crate) fn build(names: &[&str]) -> Result<Programs> {
    build_for(names, 1)
}

/// The same for so many processes that share their work.
pub(crate) fn build_for(names: &[&str], ranks: usize) -> Result<Programs> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let root = crate::root();
    let mut command = Command::new(cargo);
    command.args(["build", "--release"]);
    if ranks > 1 {
        command.args(["--features", "mpi"]);
    }
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
    Ok(Programs::of(&target.join("release")).on(ranks))
}
