//! Reading and writing of versioned JSON, with errors that name the place.

use std::fs;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::SCHEMA_VERSION;
use crate::error::{ReportError, Result};
use crate::whole_file::write_whole;

/// Reads and parses a whole file.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path, expected: &'static str) -> Result<T> {
    let bytes = fs::read(path).map_err(ReportError::io(path, "could not be read"))?;
    parse(&bytes, path, 1, expected)
}

/// Parses a JSON text. If the text is of another version, that is the reported error, whatever else
/// is wrong.
pub(super) fn parse<T: DeserializeOwned>(
    bytes: &[u8],
    path: &Path,
    line: u64,
    expected: &'static str,
) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|source| {
        check_version(bytes, path)
            .err()
            .unwrap_or_else(|| ReportError::Json {
                path: path.to_owned(),
                line: line + (source.line() as u64).saturating_sub(1),
                expected,
                source,
            })
    })
}

/// Returns an error if the text states another version.
fn check_version(bytes: &[u8], path: &Path) -> Result<()> {
    #[derive(serde::Deserialize)]
    struct Versioned {
        schema_version: u32,
    }
    match serde_json::from_slice(bytes) {
        Ok(Versioned { schema_version }) => expect_version(schema_version, path),
        Err(_) => Ok(()),
    }
}

/// Returns an error if `found` is another version.
pub(super) fn expect_version(found: u32, path: &Path) -> Result<()> {
    if found == SCHEMA_VERSION {
        return Ok(());
    }
    Err(ReportError::SchemaVersion {
        path: path.to_owned(),
        found,
        expected: SCHEMA_VERSION,
    })
}

/// Writes a value as a whole file.
pub(super) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|source| ReportError::Json {
        path: path.to_owned(),
        line: 0,
        expected: "value that JSON can hold",
        source,
    })?;
    text.push(b'\n');
    write_whole(path, &text)
}
