//! JSON files of icon packages.

use std::fs;
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::error::DataError;

/// Reads a JSON file.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<T, DataError> {
    let text = fs::read(path).map_err(|source| DataError::Io {
        path: path.to_owned(),
        source,
    })?;
    serde_json::from_slice(&text).map_err(|error| DataError::Icons {
        path: path.to_owned(),
        problem: error.to_string(),
    })
}
