//! Training samples as one safetensors file each: the form in which samples that something else
//! captured can be brought in.

use std::path::{Path, PathBuf};

use ndarray::Array2;
use safetensors::{Dtype, SafeTensors};
use vispec_data::capture::{CapturedSample, SampleSource};

/// A directory of files, in the order of their names. Each holds `token_ids` `[seq]` (I64),
/// `input_embeds` and `hidden_states` `[seq, hidden]` (F32), `loss_mask` and `image_mask` `[seq]`
/// (U8, 0 or 1).
#[derive(Debug)]
pub struct SampleFiles {
    paths: Vec<PathBuf>,
}

/// A sample that cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SampleFileError {
    /// A file or directory cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// There is no sample.
    #[error("{dir}: no .safetensors files")]
    Empty {
        /// The directory.
        dir: PathBuf,
    },
    /// A file is not a sample.
    #[error("{path}: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl SampleFiles {
    /// Lists the files of a directory.
    ///
    /// # Errors
    /// [`SampleFileError::Io`] if it cannot be read, [`SampleFileError::Empty`] if it has none.
    pub fn open(dir: &Path) -> Result<Self, SampleFileError> {
        let failed = |source| SampleFileError::Io {
            path: dir.to_owned(),
            source,
        };
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|ext| ext == "safetensors") {
                paths.push(path);
            }
        }
        if paths.is_empty() {
            return Err(SampleFileError::Empty {
                dir: dir.to_owned(),
            });
        }
        paths.sort();
        Ok(Self { paths })
    }
}

impl SampleSource for SampleFiles {
    type Error = SampleFileError;

    fn len(&self) -> usize {
        self.paths.len()
    }

    fn sample(&self, index: usize) -> Result<CapturedSample, SampleFileError> {
        let path = &self.paths[index];
        let bytes = std::fs::read(path).map_err(|source| SampleFileError::Io {
            path: path.clone(),
            source,
        })?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        parse(&bytes, &name).map_err(|reason| SampleFileError::Damaged {
            path: path.clone(),
            reason,
        })
    }
}

fn parse(bytes: &[u8], name: &str) -> Result<CapturedSample, String> {
    let tensors = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let elements = |name: &str, dtype: Dtype| {
        let view = tensors.tensor(name).map_err(|error| error.to_string())?;
        if view.dtype() != dtype {
            return Err(format!("{name} is {:?}, expected {dtype:?}", view.dtype()));
        }
        Ok((view.data(), view.shape().to_vec()))
    };
    let matrix = |name: &str| {
        let (data, shape) = elements(name, Dtype::F32)?;
        let [rows, columns] = shape[..] else {
            return Err(format!("{name} has {} dimensions, expected 2", shape.len()));
        };
        let values = data.chunks_exact(4);
        let values = values.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        Array2::from_shape_vec((rows, columns), values.collect()).map_err(|e| e.to_string())
    };
    let mask = |name: &str| {
        let (data, _) = elements(name, Dtype::U8)?;
        Ok::<_, String>(data.iter().map(|&byte| byte != 0).collect())
    };
    let (ids, _) = elements("token_ids", Dtype::I64)?;
    let token_ids = ids
        .chunks_exact(8)
        .map(|b| {
            let id = i64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]);
            u32::try_from(id).map_err(|_| format!("token_ids has {id}"))
        })
        .collect::<Result<_, _>>()?;
    Ok(CapturedSample {
        id: name.to_owned(),
        token_ids,
        input_embeds: matrix("input_embeds")?,
        hidden_states: matrix("hidden_states")?,
        loss_mask: mask("loss_mask")?,
        image_mask: mask("image_mask")?,
    })
}
