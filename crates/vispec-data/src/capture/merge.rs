//! Merging the shares of a capture.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::error::{CaptureError, Result, io_error};
use super::manifest::{Manifest, ShardEntry};
use super::positions::PositionRange;
use super::reader::check_hash;
use super::whole_file::{remove_temporaries, write_whole};

/// Merges finished captures with equal headers, in any order, whose shares cover the whole range.
/// Shards are hard-linked if the file system supports it, otherwise copied; hashes are checked.
/// Repeating a merge changes nothing; repeating it after a kill completes it.
///
/// # Errors
/// [`CaptureError::Mismatch`] if headers differ; [`CaptureError::Unfinished`],
/// [`CaptureError::Overlap`] or [`CaptureError::Gap`] if the shares do not fit together; and the
/// errors of reading and writing files.
pub fn merge(shares: &[PathBuf], out: &Path) -> Result<Manifest> {
    let mut parts = Vec::new();
    for dir in shares {
        let manifest = Manifest::read(dir)?;
        let missing = manifest.n_missing();
        if missing > 0 {
            return Err(CaptureError::Unfinished {
                dir: dir.clone(),
                missing,
                expected: manifest.covers.len(),
            });
        }
        parts.push((dir.clone(), manifest));
    }
    parts.sort_by_key(|(_, manifest)| manifest.covers);
    let Some((_, first)) = parts.first() else {
        return Err(CaptureError::NoCapture {
            dir: out.to_owned(),
        });
    };
    let header = first.header.clone();
    for (dir, manifest) in &parts {
        manifest.check_header(dir, &header)?;
    }
    check_cover(&parts, header.range)?;
    let mut merged = Manifest::new(header.clone(), header.range);
    fs::create_dir_all(out).map_err(io_error(out))?;
    remove_temporaries(out)?;
    for (dir, manifest) in &parts {
        for shard in &manifest.shards {
            place(shard, dir, out)?;
            merged.add(shard.clone());
        }
    }
    merged.write(out)?;
    Ok(merged)
}

fn check_cover(parts: &[(PathBuf, Manifest)], range: PositionRange) -> Result<()> {
    let gap = |start, end| CaptureError::Gap {
        found: parts.iter().map(|(_, part)| part.covers.len()).sum(),
        expected: range,
        missing: PositionRange { start, end },
    };
    let mut next = range.start;
    let mut before: Option<&PathBuf> = None;
    for (dir, manifest) in parts {
        let covers = manifest.covers;
        if covers.start < next
            && !covers.is_empty()
            && let Some(before) = before
        {
            return Err(CaptureError::Overlap {
                path: Manifest::path(dir),
                found: covers,
                other: Manifest::path(before),
            });
        }
        if covers.start > next {
            return Err(gap(next, covers.start));
        }
        next = next.max(covers.end);
        before = Some(dir);
    }
    if next < range.end {
        return Err(gap(next, range.end));
    }
    Ok(())
}

/// Links or copies a shard into the merged capture, unless it is already there.
fn place(shard: &ShardEntry, from: &Path, out: &Path) -> Result<()> {
    if check_hash(out, shard).is_ok() {
        return Ok(());
    }
    check_hash(from, shard)?;
    let (source, target) = (from.join(&shard.file), out.join(&shard.file));
    match fs::remove_file(&target) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io_error(&target)(error));
        }
        _ => {}
    }
    if fs::hard_link(&source, &target).is_ok() {
        return Ok(());
    }
    write_whole(&target, |file| {
        let mut source_file = File::open(&source).map_err(io_error(&source))?;
        io::copy(&mut source_file, file).map_err(io_error(&target))?;
        Ok(())
    })
}
