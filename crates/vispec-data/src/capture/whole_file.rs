//! Atomic writes: a file is either complete or absent.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use super::error::{Result, io_error};

/// Extension of unfinished files.
pub(super) const TEMPORARY: &str = "tmp";

/// Writes a file under a temporary name and renames it, so that a kill or a full disk leaves the
/// previous file intact.
pub(super) fn write_whole<T>(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<T>,
) -> Result<T> {
    let temporary = temporary_name(path);
    let written = write_temporary(&temporary, write).and_then(|value| {
        fs::rename(&temporary, path).map_err(io_error(path))?;
        Ok(value)
    });
    match written {
        Ok(value) => {
            sync_folder(path).map_err(io_error(path))?;
            Ok(value)
        }
        Err(error) => {
            // Report the first failure; the next start removes the leftover file.
            let _ = fs::remove_file(&temporary);
            Err(error)
        }
    }
}

fn write_temporary<T>(
    temporary: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<T>,
) -> Result<T> {
    let failed = io_error(temporary);
    let mut file = BufWriter::new(File::create(temporary).map_err(&failed)?);
    let value = write(&mut file)?;
    file.flush().map_err(&failed)?;
    file.get_ref().sync_all().map_err(&failed)?;
    Ok(value)
}

fn temporary_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(TEMPORARY);
    PathBuf::from(name)
}

/// A rename survives a power failure only once its folder is synced, too.
#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

#[cfg(not(unix))]
fn sync_folder(_path: &Path) -> io::Result<()> {
    Ok(())
}

/// Removes the leftovers of unfinished writes from a folder.
pub(super) fn remove_temporaries(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).map_err(io_error(dir))? {
        let path = entry.map_err(io_error(dir))?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == TEMPORARY)
        {
            fs::remove_file(&path).map_err(io_error(&path))?;
        }
    }
    Ok(())
}
