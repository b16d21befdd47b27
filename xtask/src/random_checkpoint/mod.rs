//! Checkpoints with random weights, for measurements where no published checkpoint is available.
//!
//! They have the shapes and files of a published model, so they need the same time and memory.
//! Their output is meaningless.

mod drawn;
mod eagle3;
mod noise;
mod qwen2_5_vl;
mod qwen3_vl;
mod shape;
mod tensors;
mod text_files;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

pub(crate) use shape::ShapeName;
use tensors::Drawn;

#[derive(Args, Debug)]
pub(crate) struct RandomCheckpointFlags {
    /// Model whose shapes the checkpoint has
    #[arg(long)]
    shape: ShapeName,
    /// Directory to write, which must not exist yet
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Directory for an EAGLE-3 draft with up to 32,000 outputs; must not exist yet
    #[arg(long, value_name = "DIR")]
    eagle3: Option<PathBuf>,
    /// How weights are written
    #[arg(long, default_value = "stored")]
    weights: WeightsKept,
    /// Seed of the weights; the same seed gives the same bytes
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// How weights are written.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum WeightsKept {
    /// As numbers, like in published models
    Stored,
    /// As names and shapes, in a few megabytes; programs of this workspace generate other random
    /// weights at each start, directly on the device
    Described,
}

/// Writes a checkpoint in bf16, and a draft for it if requested. Each directory gets its final name
/// once it is complete.
///
/// The configuration, tokenizer and chat template are adapted from a model of the same family in
/// `models`.
pub(crate) fn write(flags: &RandomCheckpointFlags, models: &Path) -> Result<()> {
    let shape = flags.shape.shape();
    for out in [Some(&flags.out), flags.eagle3.as_ref()]
        .into_iter()
        .flatten()
    {
        if out.exists() {
            bail!("{}: exists already and is not overwritten", out.display());
        }
    }
    // The draft is written first: it is small, and may turn out to be impossible.
    if let Some(out) = &flags.eagle3 {
        whole(out, |dir| {
            eagle3::write(dir, &shape, flags.weights, flags.seed)
        })?;
    }
    whole(&flags.out, |dir| {
        text_files::write(&models.join(shape.family.fixture()), dir, &shape)?;
        match flags.weights {
            WeightsKept::Stored => tensors::write(dir, &shape, flags.seed),
            WeightsKept::Described => drawn::write::<Drawn<'_>>(dir, &shape.tensors(), []),
        }
    })
}

/// Writes descriptions of a checkpoint and of an EAGLE-3 draft for it.
pub(crate) fn describe(
    shape: ShapeName,
    out: PathBuf,
    eagle3: PathBuf,
    models: &Path,
) -> Result<()> {
    let flags = RandomCheckpointFlags {
        shape,
        out,
        eagle3: Some(eagle3),
        weights: WeightsKept::Described,
        seed: 0,
    };
    write(&flags, models)
}

/// Fills a directory under a temporary name and then renames it.
fn whole(out: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let Some(name) = out.file_name() else {
        bail!("{}: not the name of a directory", out.display());
    };
    let mut partial_name = name.to_owned();
    partial_name.push(".partial");
    let partial = out.with_file_name(partial_name);
    fs::create_dir(&partial).with_context(|| partial.display().to_string())?;
    let written = fill(&partial)
        .and_then(|()| fs::rename(&partial, out).with_context(|| out.display().to_string()));
    if written.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_dir_all(&partial);
    }
    written
}

#[cfg(test)]
mod tests;
