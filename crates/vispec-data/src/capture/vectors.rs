//! Conversion between the vectors of a sample and tensors, for each storage kind.

use half::bf16;
use ndarray::Array2;
use safetensors::Dtype;

use super::elements::{decoded, encoded, safetensors_type};
use super::embeddings::{ImageFeatures, TokenEmbeddings};
use super::error::{CaptureError, Result};
use super::grouped::{Grouped, n_groups};
use super::header::{CaptureHeader, ElementType, StorageKind};
use super::sample::{CapturedSample, SampleVectors};
use super::tensor_file::{StoredTensor, TensorFile};
use super::token_sample::{TokenSample, check_rows};

/// Names of tensors.
mod name {
    pub(super) const INPUT_EMBEDS: &str = "input_embeds";
    pub(super) const IMAGE_EMBEDS: &str = "image_embeds";
    pub(super) const HIDDEN_STATES: &str = "hidden_states";
    /// Scales of 8-bit hidden states.
    pub(super) const HIDDEN_SCALES: &str = "hidden_scales";
    pub(super) const RESIDUAL_STATES: &str = "residual_states";
    /// Scales of 8-bit residual states.
    pub(super) const RESIDUAL_SCALES: &str = "residual_scales";
}

/// Returns the positions whose hidden states a draft reads: text, and the last token of each image,
/// which precedes the following text. The vision adaptor replaces the other image tokens.
fn read_rows(image_mask: &[bool]) -> Vec<usize> {
    let is_read = |&row: &usize| !image_mask[row] || image_mask.get(row + 1) != Some(&true);
    (0..image_mask.len()).filter(is_read).collect()
}

fn image_rows(image_mask: &[bool]) -> Vec<usize> {
    (0..image_mask.len())
        .filter(|&row| image_mask[row])
        .collect()
}

/// Vectors of a sample that are to be stored.
struct Kept<'a> {
    id: &'a str,
    what: &'static str,
    vectors: &'a Array2<f32>,
    rows: Vec<usize>,
}

impl Kept<'_> {
    fn in_elements(&self, name: &str, dtype: ElementType) -> Result<StoredTensor> {
        let bytes = encoded(self.vectors, &self.rows, dtype)
            .map_err(|found| self.not_finite(found, dtype.as_str()))?;
        let shape = [self.rows.len(), self.vectors.ncols()];
        let dtype = safetensors_type(dtype);
        Ok(StoredTensor::new(name, dtype, &shape, bytes))
    }

    /// Returns 8-bit numbers and their scales.
    fn in_groups(&self, name: &str, scales_name: &str) -> Result<[StoredTensor; 2]> {
        let width = self.vectors.ncols();
        let grouped = Grouped::round(self.vectors, &self.rows)
            .map_err(|found| self.not_finite(found, "8 bits"))?;
        let numbers = grouped.numbers.iter().map(|number| number.to_le_bytes()[0]);
        let scales = grouped.scales.iter().flat_map(|scale| scale.to_le_bytes());
        let rows = self.rows.len();
        let groups = n_groups(width);
        Ok([
            StoredTensor::new(name, Dtype::I8, &[rows, width], numbers.collect()),
            StoredTensor::new(scales_name, Dtype::BF16, &[rows, groups], scales.collect()),
        ])
    }

    fn not_finite(&self, found: f32, dtype: &'static str) -> CaptureError {
        CaptureError::NotFinite {
            id: self.id.to_owned(),
            what: self.what,
            found,
            dtype,
        }
    }
}

/// Returns the tensors of a sample's vectors that a capture with this header stores.
pub(super) fn vector_tensors(
    tokens: &TokenSample,
    vectors: &SampleVectors,
    header: &CaptureHeader,
) -> Result<Vec<StoredTensor>> {
    let (storage, dtype) = (header.storage, header.dtype);
    let id = &tokens.record.id;
    let seq = tokens.token_ids.len();
    let kept = |what, vectors, rows| Kept {
        id,
        what,
        vectors,
        rows,
    };
    let embeds = |rows| kept("the input embeddings", &vectors.input_embeds, rows);
    let hidden = |rows| kept("the hidden states", &vectors.hidden_states, rows);
    for part in [embeds(Vec::new()), hidden(Vec::new())] {
        check_rows(id, part.what, part.vectors.nrows(), seq)?;
    }
    let all = || (0..seq).collect::<Vec<_>>();
    let read = || read_rows(&tokens.image_mask);
    let residual = |rows| {
        let states = vectors.residual_states.as_ref()?;
        Some(kept("the residual states", states, rows))
    };
    if let Some(part) = residual(Vec::new()) {
        check_rows(id, part.what, part.vectors.nrows(), seq)?;
    }
    let width = vectors.residual_states.as_ref().map_or(0, Array2::ncols);
    let expected = header.states.len() * header.target.hidden;
    check_rows(id, "each row of the residual states", width, expected)?;
    let mut tensors = Vec::new();
    match storage {
        StorageKind::Full => {
            tensors.push(embeds(all()).in_elements(name::INPUT_EMBEDS, dtype)?);
            tensors.push(hidden(all()).in_elements(name::HIDDEN_STATES, dtype)?);
            if let Some(residual) = residual(all()) {
                tensors.push(residual.in_elements(name::RESIDUAL_STATES, dtype)?);
            }
        }
        StorageKind::Compact => {
            let (dtype, images) = (ElementType::Bf16, embeds(image_rows(&tokens.image_mask)));
            tensors.push(images.in_elements(name::IMAGE_EMBEDS, dtype)?);
            tensors.push(hidden(read()).in_elements(name::HIDDEN_STATES, dtype)?);
            if let Some(residual) = residual(read()) {
                tensors.push(residual.in_elements(name::RESIDUAL_STATES, dtype)?);
            }
        }
        StorageKind::Packed => {
            tensors.extend(hidden(read()).in_groups(name::HIDDEN_STATES, name::HIDDEN_SCALES)?);
            if let Some(residual) = residual(read()) {
                let names = (name::RESIDUAL_STATES, name::RESIDUAL_SCALES);
                tensors.extend(residual.in_groups(names.0, names.1)?);
            }
        }
        StorageKind::Online => {}
    }
    Ok(tensors)
}

/// The stored vectors of a sample.
pub(super) struct StoredVectors<'a> {
    pub(super) file: &'a mut TensorFile,
    pub(super) prefix: &'a str,
    pub(super) hidden: usize,
    /// Number of residual stream states.
    pub(super) states: usize,
    pub(super) dtype: ElementType,
}

impl StoredVectors<'_> {
    /// Reads the bytes of `[rows, width]` values.
    fn bytes(&mut self, name: &str, dtype: Dtype, expected: [usize; 2]) -> Result<Vec<u8>> {
        let name = format!("{}{name}", self.prefix);
        let (shape, bytes) = self.file.read(&name, dtype, 2)?;
        if shape != expected {
            let reason = format!("tensor {name} is {shape:?}, expected {expected:?}");
            return Err(self.file.damaged(reason));
        }
        Ok(bytes)
    }

    fn matrix(&self, shape: [usize; 2], values: Vec<f32>) -> Result<Array2<f32>> {
        Array2::from_shape_vec(shape, values).map_err(|error| self.file.damaged(error.to_string()))
    }

    fn in_elements(
        &mut self,
        name: &str,
        dtype: ElementType,
        shape: [usize; 2],
    ) -> Result<Array2<f32>> {
        let bytes = self.bytes(name, safetensors_type(dtype), shape)?;
        self.matrix(shape, decoded(&bytes, dtype))
    }

    fn in_groups(
        &mut self,
        [name, scales_name]: [&str; 2],
        [rows, width]: [usize; 2],
    ) -> Result<Array2<f32>> {
        let numbers = self.bytes(name, Dtype::I8, [rows, width])?;
        let groups = n_groups(width);
        let scales = self.bytes(scales_name, Dtype::BF16, [rows, groups])?;
        let (pairs, _) = scales.as_chunks::<2>();
        let grouped = Grouped {
            numbers: numbers.iter().map(|&byte| byte.cast_signed()).collect(),
            scales: pairs
                .iter()
                .map(|pair| bf16::from_le_bytes(*pair))
                .collect(),
        };
        self.matrix([rows, width], grouped.values(width))
    }

    /// Completes a sample of a full capture.
    pub(super) fn full(mut self, tokens: TokenSample) -> Result<CapturedSample> {
        let seq = tokens.token_ids.len();
        let dtype = self.dtype;
        let input_embeds = self.in_elements(name::INPUT_EMBEDS, dtype, [seq, self.hidden])?;
        let states = self.states_in_elements(dtype, seq)?;
        Ok(captured(tokens, input_embeds, states))
    }

    /// Completes a compact sample with its text embeddings.
    pub(super) fn compact(
        mut self,
        tokens: TokenSample,
        table: &dyn TokenEmbeddings,
    ) -> Result<CapturedSample> {
        let n_images = image_rows(&tokens.image_mask).len();
        let dtype = ElementType::Bf16;
        let images = self.in_elements(name::IMAGE_EMBEDS, dtype, [n_images, self.hidden])?;
        let n_read = read_rows(&tokens.image_mask).len();
        let states = self.states_in_elements(dtype, n_read)?;
        self.spread(tokens, table, &images, &states)
    }

    /// Reads the states of `rows` rows.
    fn states_in_elements(&mut self, dtype: ElementType, rows: usize) -> Result<States> {
        let hidden = self.in_elements(name::HIDDEN_STATES, dtype, [rows, self.hidden])?;
        let residual = match self.residual_shape(rows) {
            Some(shape) => Some(self.in_elements(name::RESIDUAL_STATES, dtype, shape)?),
            None => None,
        };
        Ok(States { hidden, residual })
    }

    /// Completes a packed sample with its text embeddings and image features.
    pub(super) fn packed(
        mut self,
        tokens: TokenSample,
        table: &dyn TokenEmbeddings,
        images: Option<&dyn ImageFeatures>,
    ) -> Result<CapturedSample> {
        let n_read = read_rows(&tokens.image_mask).len();
        let names = [name::HIDDEN_STATES, name::HIDDEN_SCALES];
        let hidden = self.in_groups(names, [n_read, self.hidden])?;
        let names = [name::RESIDUAL_STATES, name::RESIDUAL_SCALES];
        let residual = match self.residual_shape(n_read) {
            Some(shape) => Some(self.in_groups(names, shape)?),
            None => None,
        };
        let images = self.image_features(&tokens, images)?;
        self.spread(tokens, table, &images, &States { hidden, residual })
    }

    /// Computes the features of a sample's image tokens, `[image_tokens, hidden]`.
    fn image_features(
        &self,
        tokens: &TokenSample,
        images: Option<&dyn ImageFeatures>,
    ) -> Result<Array2<f32>> {
        let expected = image_rows(&tokens.image_mask).len();
        let features = match images {
            Some(images) if expected > 0 => {
                images
                    .features(tokens)
                    .map_err(|source| CaptureError::ImageFeatures {
                        id: tokens.record.id.clone(),
                        origin: tokens.record.origin.clone(),
                        source,
                    })?
            }
            _ => Array2::zeros([0, self.hidden]),
        };
        let id = &tokens.record.id;
        check_rows(id, "the image features", features.nrows(), expected)?;
        let what = "each row of the image features";
        check_rows(id, what, features.ncols(), self.hidden)?;
        Ok(features)
    }

    /// Scatters the stored vectors of a sample to their positions.
    fn spread(
        &self,
        tokens: TokenSample,
        table: &dyn TokenEmbeddings,
        images: &Array2<f32>,
        states: &States,
    ) -> Result<CapturedSample> {
        let seq = tokens.token_ids.len();
        let rows = read_rows(&tokens.image_mask);
        let placed = |states: &Array2<f32>| {
            let mut all = Array2::zeros([seq, states.ncols()]);
            for (row, state) in rows.iter().zip(states.rows()) {
                all.row_mut(*row).assign(&state);
            }
            all
        };
        let states = States {
            hidden: placed(&states.hidden),
            residual: states.residual.as_ref().map(placed),
        };
        let mut input_embeds = Array2::zeros([seq, self.hidden]);
        let rows = image_rows(&tokens.image_mask);
        for (row, image) in rows.into_iter().zip(images.rows()) {
            input_embeds.row_mut(row).assign(&image);
        }
        let mut embedding = vec![0.0; self.hidden];
        for row in (0..seq).filter(|&row| !tokens.image_mask[row]) {
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
        Ok(captured(tokens, input_embeds, states))
    }

    /// Returns rows and width of the residual states, if there are any.
    fn residual_shape(&self, rows: usize) -> Option<[usize; 2]> {
        (self.states > 0).then_some([rows, self.states * self.hidden])
    }
}

/// Hidden states of a sample, of all rows or only the stored ones.
struct States {
    hidden: Array2<f32>,
    residual: Option<Array2<f32>>,
}

fn captured(tokens: TokenSample, input_embeds: Array2<f32>, states: States) -> CapturedSample {
    CapturedSample {
        id: tokens.record.id,
        token_ids: tokens.token_ids,
        input_embeds,
        hidden_states: states.hidden,
        residual_states: states.residual,
        loss_mask: tokens.loss_mask,
        image_mask: tokens.image_mask,
    }
}
