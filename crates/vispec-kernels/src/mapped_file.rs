//! Read-only memory maps of weight files.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

use memmap2::Mmap;

/// A file mapped read-only into memory: its pages are loaded when they are first read, and can be
/// dropped again by the operating system, so a checkpoint costs no memory before it is used.
#[derive(Debug)]
pub struct MappedFile {
    map: Mmap,
}

impl MappedFile {
    /// Maps the whole of `path`.
    ///
    /// The file must not be written to or cut while it is mapped: like every user of memory-mapped
    /// weights, this relies on checkpoints being replaced by renaming and never edited in place.
    ///
    /// # Errors
    /// Whatever opening or mapping the file reports. An empty file maps to an empty slice.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        // SAFETY: the map is read-only and private to this value. Concurrent truncation by another
        // process is excluded by the contract in the documentation above.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Self { map })
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

impl AsRef<[u8]> for MappedFile {
    fn as_ref(&self) -> &[u8] {
        &self.map
    }
}
