//! Safetensors files, written piece by piece and read one tensor at a time.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::{CaptureError, Result, io_error};

/// Key of our JSON in the metadata of a file.
const KEY: &str = "vispec_capture";
/// Maximum header length, as in the safetensors library.
const MAX_HEADER: u64 = 100_000_000;
/// Size of the header length field.
const LENGTH_BYTES: u64 = 8;

/// Name, type and shape of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TensorHead {
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
}

impl TensorHead {
    pub(super) fn new(name: &str, dtype: Dtype, shape: &[usize]) -> Self {
        Self {
            name: name.to_owned(),
            dtype,
            shape: shape.to_vec(),
        }
    }

    pub(super) fn n_bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bitsize() / 8
    }

    /// Sort key: wide elements first, so that each tensor is aligned to its element size.
    pub(super) fn rank(&self) -> std::cmp::Reverse<usize> {
        std::cmp::Reverse(self.dtype.bitsize())
    }
}

/// A tensor in memory.
pub(super) struct StoredTensor {
    pub(super) head: TensorHead,
    pub(super) bytes: Vec<u8>,
}

impl StoredTensor {
    pub(super) fn new(name: &str, dtype: Dtype, shape: &[usize], bytes: Vec<u8>) -> Self {
        Self {
            head: TensorHead::new(name, dtype, shape),
            bytes,
        }
    }
}

/// Writes a file: its header, then the bytes of each tensor, which `copy` writes by index.
///
/// `failed` converts errors of the operating system.
pub(super) fn write_tensors<W: Write>(
    out: &mut W,
    about: &impl Serialize,
    heads: &[TensorHead],
    failed: &impl Fn(std::io::Error) -> CaptureError,
    mut copy: impl FnMut(usize, &mut W) -> Result<()>,
) -> Result<()> {
    let mut start = 0;
    let tensors = heads.iter().map(|head| {
        let end = start + head.n_bytes();
        let info = TensorInfo {
            dtype: head.dtype,
            shape: head.shape.clone(),
            data_offsets: (start, end),
        };
        start = end;
        (head.name.clone(), info)
    });
    let about = serde_json::to_string(about).map_err(|error| failed(error.into()))?;
    let metadata = HashMap::from([(KEY.to_owned(), about)]);
    let metadata = Metadata::new(Some(metadata), tensors.collect());
    let metadata = metadata.map_err(|error| failed(std::io::Error::other(error.to_string())))?;
    let mut header = serde_json::to_vec(&metadata).map_err(|error| failed(error.into()))?;
    header.resize(header.len().next_multiple_of(8), b' ');
    out.write_all(&(header.len() as u64).to_le_bytes())
        .and_then(|()| out.write_all(&header))
        .map_err(failed)?;
    for index in 0..heads.len() {
        copy(index, out)?;
    }
    Ok(())
}

/// An open file and its header.
pub(super) struct TensorFile {
    path: PathBuf,
    file: File,
    data_start: u64,
    metadata: Metadata,
}

impl TensorFile {
    /// Opens a file and checks that its header matches its length.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let failed = io_error(path);
        let damaged = |reason: String| CaptureError::Damaged {
            path: path.to_owned(),
            reason,
        };
        let mut file = File::open(path).map_err(&failed)?;
        let n_bytes = file.metadata().map_err(&failed)?.len();
        let mut length = [0; LENGTH_BYTES as usize];
        if n_bytes < LENGTH_BYTES {
            return Err(damaged(format!("{n_bytes} bytes are too few for a header")));
        }
        file.read_exact(&mut length).map_err(&failed)?;
        let header_len = u64::from_le_bytes(length);
        if header_len > MAX_HEADER || header_len > n_bytes - LENGTH_BYTES {
            let reason = format!("a header of {header_len} bytes in a file of {n_bytes}");
            return Err(damaged(reason));
        }
        let mut header = vec![0; usize::try_from(header_len).unwrap_or(usize::MAX)];
        file.read_exact(&mut header).map_err(&failed)?;
        let metadata: Metadata =
            serde_json::from_slice(&header).map_err(|error| damaged(error.to_string()))?;
        let data_start = LENGTH_BYTES + header_len;
        let expected = data_start + metadata.data_len() as u64;
        if expected != n_bytes {
            let reason = format!("{n_bytes} bytes, its header says {expected}");
            return Err(damaged(reason));
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            data_start,
            metadata,
        })
    }

    pub(super) fn damaged(&self, reason: String) -> CaptureError {
        CaptureError::Damaged {
            path: self.path.clone(),
            reason,
        }
    }

    /// Returns the value that the writer stored in the metadata.
    pub(super) fn about<T: DeserializeOwned>(&self) -> Result<T> {
        let text = self.metadata.metadata().as_ref();
        let text = text.and_then(|metadata| metadata.get(KEY));
        let text = text.ok_or_else(|| self.damaged(format!("no metadata {KEY:?}")))?;
        serde_json::from_str(text).map_err(|error| self.damaged(error.to_string()))
    }

    /// Returns the heads of all tensors, in the order of their bytes.
    pub(super) fn heads(&self) -> Vec<TensorHead> {
        let names = self.metadata.offset_keys().into_iter();
        names
            .filter_map(|name| {
                let info = self.metadata.info(&name)?;
                Some(TensorHead::new(&name, info.dtype, &info.shape))
            })
            .collect()
    }

    /// Returns whether a tensor of this name exists.
    pub(super) fn has(&self, name: &str) -> bool {
        self.metadata.info(name).is_some()
    }

    /// Reads a tensor of this type and number of axes; returns its shape and bytes.
    pub(super) fn read(
        &mut self,
        name: &str,
        dtype: Dtype,
        n_axes: usize,
    ) -> Result<(Vec<usize>, Vec<u8>)> {
        let Some(info) = self.metadata.info(name).cloned() else {
            return Err(self.damaged(format!("no tensor {name}")));
        };
        if info.dtype != dtype || info.shape.len() != n_axes {
            let reason = format!(
                "tensor {name} is {:?} {:?}, expected {dtype:?} with {n_axes} axes",
                info.dtype, info.shape
            );
            return Err(self.damaged(reason));
        }
        let bytes = self.bytes(&info)?;
        Ok((info.shape, bytes))
    }

    /// Reads the bytes of a tensor of any type.
    pub(super) fn read_bytes(&mut self, name: &str) -> Result<Vec<u8>> {
        match self.metadata.info(name).cloned() {
            Some(info) => self.bytes(&info),
            None => Err(self.damaged(format!("no tensor {name}"))),
        }
    }

    fn bytes(&mut self, info: &TensorInfo) -> Result<Vec<u8>> {
        let (start, end) = info.data_offsets;
        let mut bytes = vec![0; end - start];
        let start = SeekFrom::Start(self.data_start + start as u64);
        self.file
            .seek(start)
            .and_then(|_| self.file.read_exact(&mut bytes))
            .map_err(io_error(&self.path))?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with a capacity in bytes.
    struct SmallDisk(usize);

    impl Write for SmallDisk {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if self.0 == 0 {
                return Err(std::io::ErrorKind::StorageFull.into());
            }
            let written = bytes.len().min(self.0);
            self.0 -= written;
            Ok(written)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn write(out: &mut impl Write) -> Result<()> {
        let heads = [
            TensorHead::new("a", Dtype::U32, &[2]),
            TensorHead::new("b", Dtype::U8, &[3]),
        ];
        let path = Path::new("x.safetensors");
        let failed = io_error(path);
        write_tensors(out, &"about", &heads, &failed, |index, out| {
            let bytes = [&[1, 0, 0, 0, 2, 0, 0, 0][..], &[7, 8, 9]][index];
            out.write_all(bytes).map_err(&failed)
        })
    }

    #[test]
    fn the_library_reads_what_is_written() {
        let mut file = Vec::new();
        write(&mut file).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
        assert_eq!(tensors.tensor("b").unwrap().data(), [7, 8, 9]);
        assert_eq!(tensors.tensor("a").unwrap().shape(), [2]);
    }

    #[test]
    fn a_full_disk_is_an_error_wherever_it_happens() {
        let mut file = Vec::new();
        write(&mut file).unwrap();
        for room in 0..file.len() {
            let error = write(&mut SmallDisk(room)).unwrap_err();
            assert!(matches!(error, CaptureError::Io { .. }), "{room}: {error}");
        }
        write(&mut SmallDisk(file.len())).unwrap();
    }
}
