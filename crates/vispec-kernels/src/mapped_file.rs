//! Read-only memory maps of weight files.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

use memmap2::Mmap;

/// A file mapped read-only into memory.
///
/// Pages are loaded when they are first read, and the operating system can drop them again. So a
/// checkpoint uses no memory before it is read.
#[derive(Debug)]
pub struct MappedFile {
    map: Mmap,
}

impl MappedFile {
    /// Maps the whole file at `path`.
    ///
    /// The file must not be written to or truncated while it is mapped. Like every user of
    /// memory-mapped weights, this relies on checkpoints being replaced by renaming and never
    /// edited in place.
    ///
    /// # Errors
    /// Any error from opening or mapping the file. An empty file maps to an empty slice.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        // SAFETY: the map is read-only and private to this value. The contract in the documentation
        // above excludes concurrent truncation by another process.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Self { map })
    }

    /// Tells the operating system that the pages within `part` will not be needed soon, so that a
    /// converted weight does not stay in memory twice. The pages are read again when used.
    pub fn release(&self, part: &[u8]) {
        #[cfg(unix)]
        {
            let page = 4096;
            let start = (part.as_ptr() as usize).wrapping_sub(self.map.as_ptr() as usize);
            let end = start.wrapping_add(part.len());
            if start > end || end > self.map.len() {
                return;
            }
            // Whole pages only: neighbouring data on a shared page may be in use.
            let (start, end) = (start.next_multiple_of(page), end - end % page);
            if start < end {
                // SAFETY: the map is read-only and backed by a file, so a dropped page is read from
                // the file again, with the same contents by the contract of `open`. It does no harm
                // if the system ignores the advice.
                let _ = unsafe {
                    let advice = memmap2::UncheckedAdvice::DontNeed;
                    self.map.unchecked_advise_range(advice, start, end - start)
                };
            }
        }
        #[cfg(not(unix))]
        let _ = part;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn released_pages_are_read_again() {
        let path = std::env::temp_dir().join(format!("vispec-release-{}", std::process::id()));
        let content: Vec<u8> = (0..40_000_u32).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &content).unwrap();
        let map = MappedFile::open(&path).unwrap();
        assert_eq!(&*map, &content[..]);
        map.release(&map[5..39_999]);
        map.release(&map[0..0]);
        map.release(&content);
        assert_eq!(&*map, &content[..]);
        std::fs::remove_file(&path).unwrap();
    }
}
