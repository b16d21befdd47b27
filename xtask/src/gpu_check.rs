//! `cargo xtask gpu-check`: builds the check of a device with its backend, and runs it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

/// Backends that are a Cargo feature of vispec-models.
const BACKENDS: [&str; 6] = ["cuda", "rocm", "wgpu", "vulkan", "metal", "flex"];

#[derive(Args)]
pub(crate) struct Flags {
    /// The device: cuda or cuda:N, rocm or rocm:N, wgpu, vulkan, metal, or flex (the CPU, to compare)
    device: String,
    /// Folder for the results
    #[arg(long, default_value = "target/gpu-check")]
    out: PathBuf,
    /// Cargo profile: dev optimises dependencies and is enough to see whether answers are right
    #[arg(long, default_value = "release")]
    profile: String,
    /// More flags of the check, behind --, such as --dtype bf16 --target DIR --draft DIR --cases 10
    #[arg(last = true)]
    more: Vec<String>,
}

/// Runs the check. Answers that are not those of the reference are an error.
pub(crate) fn run(flags: &Flags, root: &Path) -> Result<()> {
    let backend = flags.device.split(':').next().unwrap_or_default();
    if !BACKENDS.contains(&backend) {
        bail!(
            "{}: expected one of {}, with :N for the second and later GPUs",
            flags.device,
            BACKENDS.join(", ")
        );
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .current_dir(root)
        .args(["run", "--package", "vispec-models", "--profile"])
        .arg(&flags.profile)
        .args(["--features", backend, "--example", "device_check", "--"])
        .args(["--device", &flags.device, "--out"])
        .arg(std::path::absolute(&flags.out)?)
        .args(&flags.more)
        .status()
        .context("cargo could not be started")?;
    if !status.success() {
        bail!("the check failed: {status}");
    }
    Ok(())
}
