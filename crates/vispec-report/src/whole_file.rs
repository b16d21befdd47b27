//! Atomic replacement of files.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use crate::error::{ReportError, Result};

/// Writes a file under a temporary name and renames it, so that an interruption leaves no partial
/// file.
///
/// # Errors
/// Returns any error of the file system.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let partial = path.with_added_extension("partial");
    let write = || {
        let mut file = File::create(&partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&partial, path)
    };
    write().map_err(ReportError::io(path, "could not be written"))
}
