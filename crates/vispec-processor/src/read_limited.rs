//! Reads whole files up to a size limit.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::{ProcessorError, Result};

/// Maximum size of a config, template or chat file in bytes.
pub(crate) const MAX_TEXT: u64 = 64 << 20;

/// Reads `path` to its end. A file that is larger than `limit` bytes, or never ends, is an error
/// and does not exhaust the memory.
pub(crate) fn read_limited(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let failed = |source| ProcessorError::Io {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(ProcessorError::FileTooLarge {
            path: path.to_owned(),
            limit,
        });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, b"12345").unwrap();
        assert_eq!(read_limited(&path, 5).unwrap(), b"12345");
        assert!(matches!(
            read_limited(&path, 4),
            Err(ProcessorError::FileTooLarge { limit: 4, .. })
        ));
    }

    #[test]
    #[cfg(unix)]
    fn a_file_without_end_is_refused() {
        let endless = read_limited(Path::new("/dev/zero"), 1 << 20);
        assert!(matches!(endless, Err(ProcessorError::FileTooLarge { .. })));
    }
}
