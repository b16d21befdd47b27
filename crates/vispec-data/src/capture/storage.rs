//! From samples to tensors and back.

use half::{bf16, f16};
use ndarray::Array2;
use safetensors::Dtype;

use super::embeddings::TokenEmbeddings;
use super::error::{CaptureError, Result};
use super::header::{ElementType, StorageKind};
use super::record::{ImageRecord, SampleRecord};
use super::sample::CapturedSample;
use super::tensor_file::{TensorFile, TensorHead};

/// What every capture holds of a sample: everything but the vectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSample {
    /// Where the sample comes from.
    pub record: SampleRecord,
    /// `[seq]`, with image tokens at their places.
    pub token_ids: Vec<u32>,
    /// `[seq]`, as in [`CapturedSample`].
    pub loss_mask: Vec<bool>,
    /// `[seq]`, as in [`CapturedSample`].
    pub image_mask: Vec<bool>,
    /// Image files, in the order of the [`ImageRecord::Stored`] of the record.
    pub image_files: Vec<Vec<u8>>,
}

/// A tensor in memory.
pub(super) struct StoredTensor {
    pub(super) head: TensorHead,
    pub(super) bytes: Vec<u8>,
}

/// Names of tensors.
mod name {
    pub(super) const TOKEN_IDS: &str = "token_ids";
    pub(super) const LOSS_MASK: &str = "loss_mask";
    pub(super) const IMAGE_MASK: &str = "image_mask";
    pub(super) const INPUT_EMBEDS: &str = "input_embeds";
    pub(super) const IMAGE_EMBEDS: &str = "image_embeds";
    pub(super) const HIDDEN_STATES: &str = "hidden_states";
    pub(super) const IMAGE_FILE: &str = "image_file";
}

/// Positions whose hidden states a draft reads: text, and the last token of each image, because the
/// text behind it starts from there. Others are only replaced by the vision adaptor.
fn read_rows(image_mask: &[bool]) -> impl Iterator<Item = usize> + '_ {
    (0..image_mask.len()).filter(|&row| !image_mask[row] || image_mask.get(row + 1) != Some(&true))
}

fn image_rows(image_mask: &[bool]) -> impl Iterator<Item = usize> + '_ {
    (0..image_mask.len()).filter(|&row| image_mask[row])
}

fn tensor(name: &str, dtype: Dtype, shape: &[usize], bytes: Vec<u8>) -> StoredTensor {
    let head = TensorHead::new(name, dtype, shape);
    StoredTensor { head, bytes }
}

fn safetensors_type(element: ElementType) -> Dtype {
    match element {
        ElementType::F32 => Dtype::F32,
        ElementType::F16 => Dtype::F16,
        ElementType::Bf16 => Dtype::BF16,
    }
}

/// The tensors of a sample without vectors.
pub(super) fn token_tensors(sample: &TokenSample) -> Result<Vec<StoredTensor>> {
    let seq = sample.token_ids.len();
    let masks = [
        ("the loss mask", sample.loss_mask.len()),
        ("the image mask", sample.image_mask.len()),
    ];
    for (what, found) in masks {
        check_rows(&sample.record.id, what, found, seq)?;
    }
    let is_stored = |image: &&ImageRecord| matches!(image, ImageRecord::Stored(_));
    let n_stored = sample.record.images.iter().filter(is_stored).count();
    let found = sample.image_files.len();
    check_rows(
        &sample.record.id,
        "the list of image files",
        found,
        n_stored,
    )?;
    let ids = sample.token_ids.iter().flat_map(|id| id.to_le_bytes());
    let bits = |mask: &[bool]| mask.iter().map(|&bit| u8::from(bit)).collect();
    let mut tensors = vec![
        tensor(name::TOKEN_IDS, Dtype::U32, &[seq], ids.collect()),
        tensor(name::LOSS_MASK, Dtype::U8, &[seq], bits(&sample.loss_mask)),
        tensor(
            name::IMAGE_MASK,
            Dtype::U8,
            &[seq],
            bits(&sample.image_mask),
        ),
    ];
    for (index, file) in sample.image_files.iter().enumerate() {
        let name = format!("{}.{index}", name::IMAGE_FILE);
        tensors.push(tensor(&name, Dtype::U8, &[file.len()], file.clone()));
    }
    Ok(tensors)
}

/// The vectors of a sample as `storage` keeps them.
pub(super) fn vector_tensors(
    sample: &CapturedSample,
    storage: StorageKind,
    dtype: ElementType,
) -> Result<Vec<StoredTensor>> {
    let seq = sample.token_ids.len();
    let parts = [
        ("the input embeddings", &sample.input_embeds),
        ("the hidden states", &sample.hidden_states),
    ];
    for (what, vectors) in parts {
        check_rows(&sample.id, what, vectors.nrows(), seq)?;
    }
    let all = || (0..seq).collect::<Vec<_>>();
    let (embeds_name, embed_rows, hidden_rows, dtype) = match storage {
        StorageKind::Full => (name::INPUT_EMBEDS, all(), all(), dtype),
        StorageKind::Compact => (
            name::IMAGE_EMBEDS,
            image_rows(&sample.image_mask).collect(),
            read_rows(&sample.image_mask).collect(),
            ElementType::Bf16,
        ),
        StorageKind::Online => return Ok(Vec::new()),
    };
    let stored = |name: &str, (what, vectors): (_, &Array2<f32>), rows: &[usize]| {
        let bytes = encoded(vectors, rows, dtype).map_err(|found| CaptureError::NotFinite {
            id: sample.id.clone(),
            what,
            found,
            dtype: dtype.as_str(),
        })?;
        let shape = [rows.len(), vectors.ncols()];
        Ok(tensor(name, safetensors_type(dtype), &shape, bytes))
    };
    Ok(vec![
        stored(embeds_name, parts[0], &embed_rows)?,
        stored(name::HIDDEN_STATES, parts[1], &hidden_rows)?,
    ])
}

/// Rounds rows to the element type; `Err` has the first value that does not fit.
fn encoded(vectors: &Array2<f32>, rows: &[usize], dtype: ElementType) -> Result<Vec<u8>, f32> {
    let mut bytes = Vec::with_capacity(rows.len() * vectors.ncols() * dtype.n_bytes());
    for &row in rows {
        for &value in vectors.row(row) {
            let is_finite = match dtype {
                ElementType::F32 => {
                    bytes.extend_from_slice(&value.to_le_bytes());
                    value.is_finite()
                }
                ElementType::F16 => {
                    let rounded = f16::from_f32(value);
                    bytes.extend_from_slice(&rounded.to_le_bytes());
                    rounded.is_finite()
                }
                ElementType::Bf16 => {
                    let rounded = bf16::from_f32(value);
                    bytes.extend_from_slice(&rounded.to_le_bytes());
                    rounded.is_finite()
                }
            };
            if !is_finite {
                return Err(value);
            }
        }
    }
    Ok(bytes)
}

fn decoded(bytes: &[u8], dtype: ElementType) -> Vec<f32> {
    let (pairs, _) = bytes.as_chunks::<2>();
    match dtype {
        ElementType::F32 => {
            let (words, _) = bytes.as_chunks::<4>();
            words.iter().map(|word| f32::from_le_bytes(*word)).collect()
        }
        ElementType::F16 => pairs
            .iter()
            .map(|pair| f16::from_le_bytes(*pair).to_f32())
            .collect(),
        ElementType::Bf16 => pairs
            .iter()
            .map(|pair| bf16::from_le_bytes(*pair).to_f32())
            .collect(),
    }
}

fn check_rows(id: &str, what: &'static str, found: usize, expected: usize) -> Result<()> {
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

/// Reads the tensors of the sample whose names start with `prefix`.
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

/// Where the vectors of a stored sample are, and how they are stored.
pub(super) struct StoredVectors<'a> {
    pub(super) file: &'a mut TensorFile,
    pub(super) prefix: &'a str,
    pub(super) hidden: usize,
    pub(super) dtype: ElementType,
}

impl StoredVectors<'_> {
    fn read(&mut self, name: &str, dtype: ElementType, rows: usize) -> Result<Array2<f32>> {
        let name = format!("{}{name}", self.prefix);
        let (shape, bytes) = self.file.read(&name, safetensors_type(dtype), 2)?;
        let expected = [rows, self.hidden];
        if shape != expected {
            let reason = format!("tensor {name} is {shape:?}, expected {expected:?}");
            return Err(self.file.damaged(reason));
        }
        Array2::from_shape_vec(expected, decoded(&bytes, dtype))
            .map_err(|error| self.file.damaged(error.to_string()))
    }

    /// Completes a sample that was stored with all its vectors.
    pub(super) fn full(mut self, tokens: TokenSample) -> Result<CapturedSample> {
        let seq = tokens.token_ids.len();
        let dtype = self.dtype;
        let input_embeds = self.read(name::INPUT_EMBEDS, dtype, seq)?;
        let hidden_states = self.read(name::HIDDEN_STATES, dtype, seq)?;
        Ok(captured(tokens, input_embeds, hidden_states))
    }

    /// Completes a compact sample with the embeddings of its text.
    pub(super) fn compact(
        mut self,
        tokens: TokenSample,
        table: &dyn TokenEmbeddings,
    ) -> Result<CapturedSample> {
        let seq = tokens.token_ids.len();
        let image_rows: Vec<usize> = image_rows(&tokens.image_mask).collect();
        let read_rows: Vec<usize> = read_rows(&tokens.image_mask).collect();
        let images = self.read(name::IMAGE_EMBEDS, ElementType::Bf16, image_rows.len())?;
        let kept = self.read(name::HIDDEN_STATES, ElementType::Bf16, read_rows.len())?;
        let mut hidden_states = Array2::zeros([seq, self.hidden]);
        for (&row, kept) in read_rows.iter().zip(kept.rows()) {
            hidden_states.row_mut(row).assign(&kept);
        }
        let mut input_embeds = Array2::zeros([seq, self.hidden]);
        for (&row, image) in image_rows.iter().zip(images.rows()) {
            input_embeds.row_mut(row).assign(&image);
        }
        let mut embedding = vec![0.0; self.hidden];
        let text = (0..seq).filter(|&row| !tokens.image_mask[row]);
        for row in text {
            let token = tokens.token_ids[row];
            if table.hidden() != self.hidden || !table.copy_row(token, &mut embedding) {
                return Err(CaptureError::NoEmbedding {
                    id: tokens.record.id,
                    token,
                    hidden: self.hidden,
                });
            }
            let embedding = ndarray::aview1(&embedding);
            input_embeds.row_mut(row).assign(&embedding);
        }
        Ok(captured(tokens, input_embeds, hidden_states))
    }
}

fn captured(
    tokens: TokenSample,
    input_embeds: Array2<f32>,
    hidden_states: Array2<f32>,
) -> CapturedSample {
    CapturedSample {
        id: tokens.record.id,
        token_ids: tokens.token_ids,
        input_embeds,
        hidden_states,
        loss_mask: tokens.loss_mask,
        image_mask: tokens.image_mask,
    }
}
