//! Builds and starts the programs of this workspace.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Programs that can distribute their work over several processes.
const SHARING: [&str; 2] = ["make_target", "train"];

/// A directory of programs.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    dir: PathBuf,
    /// Number of processes of the programs that distribute their work.
    ranks: usize,
}

impl Programs {
    /// Uses programs that are already built.
    pub(crate) fn of(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            ranks: 1,
        }
    }

    /// Sets the number of processes for programs that can distribute their work.
    pub(crate) fn on(self, ranks: usize) -> Self {
        Self { ranks, ..self }
    }

    /// Returns the command that starts a program.
    pub(crate) fn command(&self, name: &str) -> Command {
        let path = self.path(name);
        if self.ranks == 1 || !SHARING.contains(&name) {
            return Command::new(path);
        }
        let mut command = Command::new("mpirun");
        // By default, a process has as many threads as there are cores, so divide the cores.
        command.args(["--bind-to", "none", "-n", &self.ranks.to_string()]);
        if std::env::var_os(THREADS).is_none() {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            command.env(THREADS, (cores / self.ranks).max(1).to_string());
        }
        command.arg(path);
        command
    }

    /// Returns the path of a program.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        let file = format!("{name}{}", std::env::consts::EXE_SUFFIX);
        self.dir.join(file)
    }
}

/// Environment variable with the number of threads of a process.
const THREADS: &str = "RAYON_NUM_THREADS";

/// Builds programs of `examples` in release mode, with the same packages as `cargo build
/// --release`. With another selection, features would differ and most packages would be built
/// again.
pub(crate) fn build(names: &[&str]) -> Result<Programs> {
    build_for(names, 1)
}

/// Like [`build`], but for programs that distribute their work over `ranks` processes.
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
