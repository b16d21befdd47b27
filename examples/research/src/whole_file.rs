//! Files that are there as a whole or not at all.

use std::fs;
use std::path::Path;

use anyhow::Context as _;

/// Writes a file under another name and renames it, so that a kill leaves no part of it.
///
/// # Errors
/// If the file cannot be written.
pub fn write_whole(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let partial = path.with_added_extension("partial");
    let written = fs::write(&partial, bytes).and_then(|()| fs::rename(&partial, path));
    written.with_context(|| path.display().to_string())
}
