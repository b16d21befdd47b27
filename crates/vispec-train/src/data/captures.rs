//! Reading the samples of a run from captures.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::DType;
use vispec_data::capture::{
    CaptureReader, CapturedSample, SampleSource, StorageKind, TokenEmbeddings, answer_tokens,
    fingerprint,
};
use vispec_models::nn::Embedding;
use vispec_models::{DtypeChoice, TargetText, TargetVision, VlmTarget};

use super::images::{ImageEncoder, ImageReader};
use super::online::OnlineReader;
use crate::error::TrainError;

/// The samples of one or several captures of one target, with any kind of storage.
///
/// Several captures are interleaved evenly. The samples that a run holds out, a share from the end,
/// are therefore that share of each capture.
#[derive(Debug)]
pub struct Captures {
    captures: Vec<Capture>,
    /// For each sample, the index of its capture and its index in that capture.
    places: Vec<(usize, usize)>,
}

#[derive(Debug)]
struct Capture {
    reader: CaptureReader,
    /// Runs the target again for states that are not stored.
    online: Option<OnlineReader>,
}

impl Captures {
    /// Opens finished captures of the target in `target_dir`. They must have the residual states
    /// `states`; `text` has the target's embedding.
    ///
    /// For captures with `online` storage, the whole target is loaded in the element type of the
    /// capture. For `packed` captures with images, its vision tower is loaded.
    ///
    /// # Errors
    /// * [`TrainError::Capture`] if one is not a finished capture of this target.
    /// * [`TrainError::CapturedStates`] if one does not have these states.
    /// * [`TrainError::Model`] if the target cannot be loaded.
    pub fn open(
        dirs: &[PathBuf],
        target_dir: &Path,
        text: &TargetText,
        states: &[usize],
    ) -> Result<Self, TrainError> {
        let fingerprint = fingerprint(target_dir)?;
        let mut targets = BTreeMap::new();
        let mut captures = Vec::with_capacity(dirs.len());
        for dir in dirs {
            let reader = CaptureReader::open_for(dir, &fingerprint)?;
            let header = reader.header();
            let is_online = header.storage == StorageKind::Online;
            if !is_online && !states.is_empty() && header.states != states {
                return Err(TrainError::CapturedStates {
                    dir: dir.clone(),
                    found: header.states.clone(),
                    expected: states.to_vec(),
                });
            }
            let dtype = &header.target.dtype;
            let table = EmbeddingTable(text.embedding().clone());
            let images = || ImageReader::new(target_dir, &header.stage);
            let mut online = None;
            let mut vision = None;
            match header.storage {
                StorageKind::Full | StorageKind::Compact => {}
                StorageKind::Packed => {
                    if reader.manifest().has_images() {
                        let dtype = parse(target_dir, dtype)?;
                        vision = Some(ImageEncoder {
                            vision: TargetVision::load(target_dir, text.device(), dtype)?,
                            images: images()?,
                        });
                    }
                }
                StorageKind::Online => {
                    let target = match targets.get(dtype) {
                        Some(target) => Arc::clone(target),
                        None => {
                            let choice = parse(target_dir, dtype)?;
                            Arc::new(VlmTarget::load(target_dir, text.device(), choice)?)
                        }
                    };
                    targets.insert(dtype.clone(), Arc::clone(&target));
                    online = Some(OnlineReader {
                        target,
                        images: images()?,
                        states: states.to_vec(),
                    });
                }
            }
            let mut reader = reader.with_embeddings(Box::new(table));
            if let Some(vision) = vision {
                reader = reader.with_image_features(Box::new(vision));
            }
            captures.push(Capture { reader, online });
        }
        let lens: Vec<usize> = captures.iter().map(|c| c.reader.len()).collect();
        Ok(Self {
            places: interleave(&lens),
            captures,
        })
    }
}

/// Parses the element type of a capture.
fn parse(dir: &Path, dtype: &str) -> Result<DtypeChoice, TrainError> {
    dtype.parse().map_err(|reason| TrainError::Checkpoint {
        path: dir.to_owned(),
        reason,
    })
}

impl SampleSource for Captures {
    type Error = TrainError;

    fn len(&self) -> usize {
        self.places.len()
    }

    fn identity(&self) -> String {
        let identities = self.captures.iter().map(|c| c.reader.identity());
        identities.collect::<Vec<_>>().join(" ")
    }

    fn sample(&self, index: usize) -> Result<CapturedSample, TrainError> {
        let (capture, number) = self.places[index];
        let Capture { reader, online } = &self.captures[capture];
        match online {
            None => Ok(reader.sample(number)?),
            Some(online) => online.complete(reader.tokens(number)?),
        }
    }

    fn answer_tokens(&self, index: usize) -> Result<Vec<u32>, TrainError> {
        let (capture, number) = self.places[index];
        let sample = self.captures[capture].reader.tokens(number)?;
        Ok(answer_tokens(&sample.token_ids, &sample.loss_mask))
    }
}

/// The target's embedding, read row by row.
struct EmbeddingTable(Embedding);

impl TokenEmbeddings for EmbeddingTable {
    fn hidden(&self) -> usize {
        self.0.table().dims()[1]
    }

    fn copy_row(&self, token: u32, row: &mut [f32]) -> bool {
        let Ok(embedding) = self.0.forward(&[token], DType::F32) else {
            return false;
        };
        let Ok(values) = embedding.into_data().try_into_vec::<f32>() else {
            return false;
        };
        let fits = values.len() == row.len();
        if fits {
            row.copy_from_slice(&values);
        }
        fits
    }
}

/// Returns the places of all samples, ordered by each sample's relative position in its capture.
fn interleave(lens: &[usize]) -> Vec<(usize, usize)> {
    let numbers = |(capture, &len): (usize, &usize)| (0..len).map(move |number| (capture, number));
    let mut places: Vec<_> = lens.iter().enumerate().flat_map(numbers).collect();
    // (number + 1/2) / len without rounding, by cross-multiplication.
    let share = |number: usize, other_len: usize| (2 * number as u128 + 1) * other_len as u128;
    places.sort_by(|&(a, i), &(b, j)| share(i, lens[b]).cmp(&share(j, lens[a])));
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_has_its_share_of_each_capture() {
        let places = interleave(&[100, 20]);
        let of_second = |places: &[(usize, usize)]| places.iter().filter(|p| p.0 == 1).count();
        assert_eq!(places.len(), 120);
        assert_eq!(of_second(&places[108..]), 2);
        assert_eq!(of_second(&places[60..]), 10);
        assert_eq!(interleave(&[3]), [(0, 0), (0, 1), (0, 2)]);
        assert_eq!(interleave(&[0, 2]), [(1, 0), (1, 1)]);
    }
}
