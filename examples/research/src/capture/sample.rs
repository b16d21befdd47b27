//! Converting a sequence that the target has read or generated to a stored sample.

use std::time::{Duration, Instant};

use ndarray::Array2;
use vispec_data::ImageSource;
use vispec_data::capture::{ImageRecord, SampleRecord, SampleVectors, StorageKind, TokenSample};
use vispec_models::features::{FeatureSpec, SequenceFeatures};

use super::question::Place;
use examples_answer::failure::Failure;

/// The tokens of a sample.
pub(super) struct Sequence {
    pub(super) tokens: Vec<u32>,
    pub(super) loss_mask: Vec<bool>,
    pub(super) image_mask: Vec<bool>,
    pub(super) prompt_tokens: usize,
    /// `None` if no vectors are stored.
    pub(super) features: Option<SequenceFeatures>,
}

/// A sample, with its vectors if they are stored.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) tokens: TokenSample,
    pub(super) vectors: Option<SampleVectors>,
}

/// Builds the samples of a storage kind.
#[derive(Debug)]
pub(super) struct SampleMaker {
    pub(super) storage: StorageKind,
    /// Residual stream states to store.
    pub(super) states: Vec<usize>,
    /// Time spent on image files.
    pub(super) reading: Duration,
}

impl SampleMaker {
    /// Returns the features that a cache must record for a sample.
    pub(super) fn features(&self) -> FeatureSpec {
        let last = FeatureSpec::last();
        if self.states.is_empty() {
            return last;
        }
        last.and(&FeatureSpec::residual(&self.states))
    }

    /// Builds the sample of the sequence at `place`.
    ///
    /// # Errors
    /// If images can no longer be read, or the device fails.
    pub(super) fn sample(&mut self, place: Place, sequence: Sequence) -> Result<Sample, Failure> {
        let started = Instant::now();
        let (images, image_files) = if self.storage.keeps_images() {
            kept_images(&place.images)?
        } else {
            (Vec::new(), Vec::new())
        };
        self.reading += started.elapsed();
        let tokens = TokenSample {
            record: SampleRecord {
                id: place.conversation.id,
                origin: place.conversation.origin.to_string(),
                prompt_tokens: sequence.prompt_tokens,
                images,
            },
            token_ids: sequence.tokens,
            loss_mask: sequence.loss_mask,
            image_mask: sequence.image_mask,
            image_files,
        };
        Ok(Sample {
            tokens,
            vectors: sequence.features.map(vectors).transpose()?,
        })
    }
}

fn vectors(features: SequenceFeatures) -> Result<SampleVectors, Failure> {
    let shape = features.hidden_states.dims();
    let residual = features
        .residual_states
        .as_ref()
        .map(|states| states.dims());
    let features = features.into_host()?;
    let residual = residual.zip(features.residual_states);
    Ok(SampleVectors {
        input_embeds: Array2::from_shape_vec(shape, features.input_embeds)?,
        hidden_states: Array2::from_shape_vec(shape, features.hidden_states)?,
        residual_states: residual
            .map(|(shape, values)| Array2::from_shape_vec(shape, values))
            .transpose()?,
    })
}

/// Returns the locations of a sample's images, and the bytes of those that are not separate files.
fn kept_images(sources: &[ImageSource]) -> Result<(Vec<ImageRecord>, Vec<Vec<u8>>), Failure> {
    let mut records = Vec::with_capacity(sources.len());
    let mut files = Vec::new();
    for source in sources {
        let file = source.image_file()?;
        if let Some(path) = source.file_path() {
            records.push(ImageRecord::of_file(std::path::absolute(path)?, &file));
        } else {
            records.push(ImageRecord::Stored(file.len()));
            files.push(file);
        }
    }
    Ok((records, files))
}
