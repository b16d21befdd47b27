//! Atomic writing of files: a file exists either completely or not at all.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, View};

use crate::error::TrainError;
use crate::network::HostTensor;

/// Adds the path of a file to an I/O error.
pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> TrainError + '_ {
    move |source| TrainError::Io {
        path: path.to_owned(),
        source,
    }
}

/// Returns the name of a file while it is being written.
fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    PathBuf::from(name)
}

/// Writes `bytes` to a temporary file, then renames it to `path`.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    let partial = temporary(path);
    fs::write(&partial, bytes).map_err(at(&partial))?;
    publish(&partial, path)
}

fn publish(partial: &Path, path: &Path) -> Result<(), TrainError> {
    let file = fs::File::open(partial).map_err(at(partial))?;
    file.sync_all().map_err(at(partial))?;
    fs::rename(partial, path).map_err(at(path))
}

/// A tensor that is to be written to a file.
#[derive(Debug, Clone)]
pub(crate) struct StoredTensor<'a> {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Cow<'a, [u8]>,
}

impl StoredTensor<'static> {
    /// Returns a tensor of any element type.
    pub(crate) fn new(dtype: Dtype, shape: Vec<usize>, bytes: Vec<u8>) -> Self {
        Self {
            dtype,
            shape,
            bytes: bytes.into(),
        }
    }
}

impl<'a> From<&'a HostTensor> for StoredTensor<'a> {
    fn from(tensor: &'a HostTensor) -> Self {
        Self {
            dtype: Dtype::F32,
            shape: tensor.shape.clone(),
            bytes: bytemuck::cast_slice(&tensor.values).into(),
        }
    }
}

impl View for StoredTensor<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Writes tensors to a safetensors file, with one metadata entry.
pub(crate) fn write_tensors<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (String, StoredTensor<'a>)>,
    (key, value): (&str, String),
) -> Result<(), TrainError> {
    let partial = temporary(path);
    let metadata = HashMap::from([(key.to_owned(), value)]);
    safetensors::serialize_to_file(tensors, Some(metadata), &partial).map_err(|error| {
        TrainError::Checkpoint {
            path: partial.clone(),
            reason: error.to_string(),
        }
    })?;
    publish(&partial, path)
}
