//! Conversion between samples without vectors and tensors.

use std::borrow::Cow;
use std::fs;
use std::path::Path;

use safetensors::Dtype;

use super::error::{CaptureError, Result, io_error};
use super::record::{ImageRecord, SampleRecord, sha256};
use super::tensor_file::{StoredTensor, TensorFile};

/// The part of a sample that every capture stores: everything except the vectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSample {
    /// Metadata of the sample.
    pub record: SampleRecord,
    /// `[seq]`, with image tokens in place.
    pub token_ids: Vec<u32>,
    /// `[seq]`, as in [`CapturedSample`](super::CapturedSample).
    pub loss_mask: Vec<bool>,
    /// `[seq]`, as in [`CapturedSample`](super::CapturedSample).
    pub image_mask: Vec<bool>,
    /// Stored image files, in the order of the [`ImageRecord::Stored`] entries of the record.
    pub image_files: Vec<Vec<u8>>,
}

impl TokenSample {
    /// Returns the image files of the sample, in order, and reads those that are not stored.
    ///
    /// # Errors
    /// [`CaptureError::Io`] if a file cannot be read, [`CaptureError::ImageHash`] if it has changed
    /// since the capture, [`CaptureError::SampleShape`] if a stored image is missing.
    pub fn images(&self) -> Result<Vec<Cow<'_, [u8]>>> {
        self.check_stored()?;
        let mut stored = self.image_files.iter();
        let image = |record: &ImageRecord| match record {
            ImageRecord::Stored(_) => Ok(stored.next().map(|file| Cow::Borrowed(&file[..]))),
            ImageRecord::File(path) => Ok(Some(Cow::Owned(read_image(path)?))),
            ImageRecord::HashedFile { path, sha256 } => {
                let bytes = read_image(path)?;
                check_image(path, &bytes, sha256)?;
                Ok(Some(Cow::Owned(bytes)))
            }
        };
        let images = self
            .record
            .images
            .iter()
            .map(image)
            .collect::<Result<Vec<_>>>()?;
        Ok(images.into_iter().flatten().collect())
    }

    fn check_stored(&self) -> Result<()> {
        let is_stored = |image: &&ImageRecord| matches!(image, ImageRecord::Stored(_));
        let n_stored = self.record.images.iter().filter(is_stored).count();
        let found = self.image_files.len();
        check_rows(&self.record.id, "the list of image files", found, n_stored)
    }
}

fn check_image(path: &Path, bytes: &[u8], expected: &str) -> Result<()> {
    let found = sha256(bytes);
    if found == expected {
        return Ok(());
    }
    Err(CaptureError::ImageHash {
        path: path.to_owned(),
        found,
        expected: expected.to_owned(),
    })
}

fn read_image(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(io_error(path))
}

/// Names of tensors.
mod name {
    pub(super) const TOKEN_IDS: &str = "token_ids";
    pub(super) const LOSS_MASK: &str = "loss_mask";
    pub(super) const IMAGE_MASK: &str = "image_mask";
    pub(super) const IMAGE_FILE: &str = "image_file";
}

/// Returns the tensors of a sample without vectors.
pub(super) fn token_tensors(sample: &TokenSample) -> Result<Vec<StoredTensor>> {
    let seq = sample.token_ids.len();
    let masks = [
        ("the loss mask", sample.loss_mask.len()),
        ("the image mask", sample.image_mask.len()),
    ];
    for (what, found) in masks {
        check_rows(&sample.record.id, what, found, seq)?;
    }
    sample.check_stored()?;
    let ids = sample.token_ids.iter().flat_map(|id| id.to_le_bytes());
    let bits = |mask: &[bool]| mask.iter().map(|&bit| u8::from(bit)).collect();
    let mut tensors = vec![
        StoredTensor::new(name::TOKEN_IDS, Dtype::U32, &[seq], ids.collect()),
        StoredTensor::new(name::LOSS_MASK, Dtype::U8, &[seq], bits(&sample.loss_mask)),
        StoredTensor::new(
            name::IMAGE_MASK,
            Dtype::U8,
            &[seq],
            bits(&sample.image_mask),
        ),
    ];
    for (index, file) in sample.image_files.iter().enumerate() {
        let name = format!("{}.{index}", name::IMAGE_FILE);
        tensors.push(StoredTensor::new(
            &name,
            Dtype::U8,
            &[file.len()],
            file.clone(),
        ));
    }
    Ok(tensors)
}

/// Returns an error if a part of a sample has the wrong length.
pub(super) fn check_rows(
    id: &str,
    what: &'static str,
    found: usize,
    expected: usize,
) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(CaptureError::SampleShape {
        id: id.to_owned(),
        what,
        found,
        expected,
    })
}

/// Reads the tensors of the sample with the name prefix `prefix`.
pub(super) fn read_tokens(
    file: &mut TensorFile,
    prefix: &str,
    record: SampleRecord,
) -> Result<TokenSample> {
    let (shape, ids) = file.read(&format!("{prefix}{}", name::TOKEN_IDS), Dtype::U32, 1)?;
    let (ids, _) = ids.as_chunks::<4>();
    let token_ids = ids.iter().map(|id| u32::from_le_bytes(*id)).collect();
    let mut mask = |name: &str| {
        let (found, bits) = file.read(&format!("{prefix}{name}"), Dtype::U8, 1)?;
        if found != shape {
            let reason = format!("tensor {prefix}{name} is {found:?}, expected {shape:?}");
            return Err(file.damaged(reason));
        }
        Ok(bits.into_iter().map(|bit| bit != 0).collect())
    };
    let (loss_mask, image_mask) = (mask(name::LOSS_MASK)?, mask(name::IMAGE_MASK)?);
    let mut image_files = Vec::new();
    loop {
        let name = format!("{prefix}{}.{}", name::IMAGE_FILE, image_files.len());
        if !file.has(&name) {
            break;
        }
        image_files.push(file.read(&name, Dtype::U8, 1)?.1);
    }
    Ok(TokenSample {
        record,
        token_ids,
        loss_mask,
        image_mask,
        image_files,
    })
}
