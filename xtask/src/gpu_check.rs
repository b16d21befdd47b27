//! `cargo xtask gpu-check`: builds the device check with its backend and runs it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum as _};

use crate::random_checkpoint::{self, ShapeName};

/// Backends, each a Cargo feature of vispec-models.
const BACKENDS: [&str; 6] = ["cuda", "rocm", "wgpu", "vulkan", "metal", "flex"];

#[derive(Args)]
pub(crate) struct Flags {
    /// The device: cuda or cuda:N, rocm or rocm:N, wgpu, vulkan, metal, or flex (the CPU, for
    /// comparison)
    device: String,
    /// Folder for the results
    #[arg(long, default_value = "target/gpu-check")]
    out: PathBuf,
    /// Shapes of models to measure with random weights, which are generated on the device; a shape
    /// that does not fit into its memory is skipped with a message
    #[arg(long = "shape", default_values = ["qwen2.5-vl-3b", "qwen2.5-vl-7b"])]
    shapes: Vec<ShapeName>,
    /// Cargo profile; dev optimises dependencies, which is enough to check whether answers are
    /// right
    #[arg(long, default_value = "release")]
    profile: String,
    /// More flags of the check, after --, such as --dtype bf16 --bandwidth 4800 --cases 10
    #[arg(last = true)]
    more: Vec<String>,
}

/// Runs the check. Answers that differ from the reference are an error.
pub(crate) fn run(flags: &Flags, root: &Path) -> Result<()> {
    let backend = flags.device.split(':').next().unwrap_or_default();
    if !BACKENDS.contains(&backend) {
        bail!(
            "{}: expected one of {}, with :N for the second and later GPUs",
            flags.device,
            BACKENDS.join(", ")
        );
    }
    let described =
        tempfile::tempdir().context("could not create a folder for descriptions of models")?;
    let models = root.join("fixtures/models");
    let mut measured = Vec::new();
    for shape in &flags.shapes {
        let name = shape.to_possible_value();
        let name = name
            .context("every shape has a name")?
            .get_name()
            .to_owned();
        let target = described.path().join(&name);
        let draft = described.path().join(format!("{name}-eagle3"));
        random_checkpoint::describe(*shape, target.clone(), draft.clone(), &models)?;
        measured.extend(["--target".into(), target, "--draft".into(), draft]);
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .current_dir(root)
        .args(["run", "--package", "vispec-models", "--profile"])
        .arg(&flags.profile)
        .args(["--features", backend, "--example", "device_check", "--"])
        .args(["--device", &flags.device, "--out"])
        .arg(std::path::absolute(&flags.out)?)
        .args(measured)
        .args(&flags.more)
        .status()
        .context("cargo could not be started")?;
    if !status.success() {
        bail!("the check failed: {status}");
    }
    Ok(())
}
