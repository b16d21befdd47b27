//! Printing the contents of a capture.

use std::collections::BTreeMap;
use std::io::{self, Write};

use vispec_data::capture::{CaptureStage, LeftOutKind, Manifest, PAPER_SAMPLES, StorageKind};

use super::sizes::{disk_gigabytes, paper_gigabytes, text_within_disk};

const GB: f64 = 1e9;

/// Writes the contents of a capture.
///
/// # Errors
/// The errors of `out`.
pub fn write_manifest(manifest: &Manifest, out: &mut dyn Write) -> io::Result<()> {
    let header = &manifest.header;
    let target = &header.target;
    writeln!(
        out,
        "target: {} ({}, hidden {}, fingerprint {})",
        target.name,
        target.dtype,
        target.hidden,
        target.fingerprint.get(..12).unwrap_or(&target.fingerprint)
    )?;
    match &header.stage {
        CaptureStage::TeacherForced { max_tokens, .. } => {
            writeln!(
                out,
                "stage: 1, answers of the data, up to {max_tokens} tokens"
            )?;
        }
        CaptureStage::Generated {
            max_new_tokens,
            temperature,
            ..
        } => writeln!(
            out,
            "stage: 2, answers of the target, up to {max_new_tokens} tokens, temperature \
             {temperature}"
        )?,
    }
    let source = &header.source;
    writeln!(
        out,
        "source: {}, {} rows, positions {} of {}",
        source.layout, source.rows, manifest.covers, header.range
    )?;
    writeln!(out, "storage: {}", header.storage)?;
    writeln!(
        out,
        "samples: {} in {} shards, {} tokens, {} bytes",
        manifest.n_samples(),
        manifest.shards.len(),
        manifest.n_tokens(),
        manifest.n_bytes()
    )?;
    if manifest.n_missing() > 0 {
        writeln!(out, "missing: {} positions", manifest.n_missing())?;
    }
    write_sizes(manifest, out)?;
    write_left_out(manifest, out)
}

/// Writes the measured size of a sample, and the size of the paper's number of samples.
fn write_sizes(manifest: &Manifest, out: &mut dyn Write) -> io::Result<()> {
    let n_samples = manifest.n_samples();
    if n_samples == 0 {
        return Ok(());
    }
    #[expect(clippy::cast_precision_loss, reason = "a size for people")]
    let per_sample = manifest.n_bytes() as f64 / n_samples as f64;
    #[expect(clippy::cast_precision_loss, reason = "a size for people")]
    let paper = per_sample * PAPER_SAMPLES as f64;
    writeln!(
        out,
        "bytes per sample: {per_sample:.0}; {PAPER_SAMPLES} such samples: {:.1} GB",
        paper / GB
    )?;
    let size = manifest.mean_size();
    let header = &manifest.header;
    let of = (header.dtype, header.target.hidden);
    for storage in StorageKind::ALL {
        let fits = match text_within_disk(&size, storage, of) {
            Some(most) => format!("up to {most} tokens of text fit"),
            None => "the images alone do not fit".to_owned(),
        };
        writeln!(
            out,
            "calculated, {PAPER_SAMPLES} samples of {} text and {} image tokens, {storage}: \
             {:.1} GB; {fits} into {} GB",
            size.text,
            size.image,
            paper_gigabytes(&size, storage, of),
            disk_gigabytes()
        )?;
    }
    Ok(())
}

/// Writes the positions without a sample: the number for each reason, and each bad row.
fn write_left_out(manifest: &Manifest, out: &mut dyn Write) -> io::Result<()> {
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for left_out in manifest.left_out() {
        match left_out.kind {
            LeftOutKind::Dropped => {
                let reason = left_out.reason.rsplit(": ").next();
                *reasons.entry(reason.unwrap_or_default()).or_default() += 1;
            }
            LeftOutKind::Bad => {
                writeln!(out, "bad row at {}: {}", left_out.position, left_out.reason)?;
            }
        }
    }
    for (reason, count) in reasons {
        writeln!(out, "dropped: {count} ({reason})")?;
    }
    Ok(())
}
