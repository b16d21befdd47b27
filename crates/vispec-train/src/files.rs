//! Files that are either there in full or not at all.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, View};

use crate::error::TrainError;
use crate::network::{HostTensor, Parameters};

/// Names a file in an error.
pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> TrainError + '_ {
    move |source| TrainError::Io {
        path: path.to_owned(),
        source,
    }
}

/// The name that a file has while it is written.
fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    PathBuf::from(name)
}

/// Writes `bytes` to a temporary name and renames it.
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

impl View for &HostTensor {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> std::borrow::Cow<'_, [u8]> {
        bytemuck::cast_slice(&self.values).into()
    }

    fn data_len(&self) -> usize {
        size_of_val(self.values.as_slice())
    }
}

/// Writes tensors as safetensors, with one entry of metadata.
pub(crate) fn write_tensors(
    path: &Path,
    tensors: &Parameters,
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
