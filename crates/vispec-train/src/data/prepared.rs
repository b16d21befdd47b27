//! Shifting, masking and refusing samples.

use std::fmt;
use std::sync::Arc;

use ndarray::{Array2, s};
use serde::{Deserialize, Serialize};
use vispec_data::capture::CapturedSample;

use super::noise::Noise;
use super::vocabulary::DraftVocabulary;
use crate::error::TrainError;

/// How a sample's loss mask is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossMask {
    /// Position `s` is supervised if the mask has it: stage 1 and Medusa.
    AsStored,
    /// Position `s` is supervised if the mask has `s + 1`: stage 2.
    ShiftedByOne,
}

/// What of the target a draft reads at each position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Features {
    /// The last hidden state.
    HiddenState,
    /// This many states of the residual stream.
    ResidualStates(usize),
}

/// How samples are made ready.
#[derive(Debug, Clone, PartialEq)]
pub struct PrepareOptions {
    /// Tokens that are kept at most.
    pub max_len: usize,
    /// How loss masks are read.
    pub loss_mask: LossMask,
    /// What of the target the draft reads.
    pub features: Features,
    /// Tokens that losses compare; none for all.
    pub vocabulary: Option<Arc<DraftVocabulary>>,
    /// Noise on the features, if any.
    pub noise: Option<Noise>,
    /// Whether the draft reads the hidden states of all image tokens.
    pub reads_image_states: bool,
    /// Width of the hidden states.
    pub hidden: usize,
}

/// Why a sample is not trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// No position of it is supervised, or none within the length that is kept.
    NoSupervision,
    /// Hidden states of image tokens were not captured, and this draft reads them.
    NoImageStates,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSupervision => "no supervised position",
            Self::NoImageStates => "hidden states of image tokens were not captured",
        })
    }
}

/// A sample as a training step reads it. Position `s` stands for the features of token `s` beside
/// the embedding of token `s + 1`; its target is the hidden state of token `s + 1`. There is
/// one position fewer than there are tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct PreparedSample {
    /// Names the sample in messages.
    pub id: String,
    /// `[positions, hidden]`
    pub embeds: Array2<f32>,
    /// `[positions, features]`, with noise.
    pub features: Array2<f32>,
    /// `[positions, hidden]`, without noise.
    pub target: Array2<f32>,
    /// Whether the embedding at a position is an image's.
    pub image_mask: Vec<bool>,
    /// Of each position, whether its target belongs to an answer.
    pub answered: Vec<bool>,
    /// Those of these positions that are in the loss, ascending.
    pub supervised: Vec<usize>,
}

/// A sample that can be trained on, or why it cannot.
#[derive(Debug, Clone, PartialEq)]
pub enum Prepared {
    /// Ready.
    Sample(Box<PreparedSample>),
    /// Not to be trained on.
    Refused(Refusal),
}

/// Makes sample number `index` ready.
///
/// # Errors
/// [`TrainError::SampleShape`] if its parts do not have the same length, or not the width of the
/// target's hidden states.
pub fn prepare(
    sample: &CapturedSample,
    index: usize,
    options: &PrepareOptions,
) -> Result<Prepared, TrainError> {
    let read = features(sample, options)?;
    check(sample, options.hidden)?;
    let len = sample.token_ids.len().min(options.max_len);
    let positions = len.saturating_sub(1);
    let shift = match options.loss_mask {
        LossMask::AsStored => 0,
        LossMask::ShiftedByOne => 1,
    };
    let answered: Vec<bool> = (0..positions)
        .map(|s| sample.loss_mask[s + shift])
        .collect();
    let is_listed = |s: usize| {
        // The token that the target of position `s` scores; none is known behind the last.
        let token = sample.token_ids.get(s + 2);
        match (&options.vocabulary, token) {
            (Some(vocabulary), Some(&token)) => vocabulary.lists(token),
            _ => true,
        }
    };
    let supervised: Vec<usize> = (0..positions)
        .filter(|&s| answered[s] && is_listed(s))
        .collect();
    if supervised.is_empty() {
        return Ok(Prepared::Refused(Refusal::NoSupervision));
    }
    if options.reads_image_states && lacks_image_states(sample, len) {
        return Ok(Prepared::Refused(Refusal::NoImageStates));
    }
    let rows = |of: &Array2<f32>, from: usize| of.slice(s![from..from + positions, ..]).to_owned();
    let mut features = rows(read, 0);
    if let (Some(noise), Some(values)) = (&options.noise, features.as_slice_mut()) {
        noise.add(values, index, len);
    }
    Ok(Prepared::Sample(Box::new(PreparedSample {
        id: sample.id.clone(),
        embeds: rows(&sample.input_embeds, 1),
        features,
        target: rows(&sample.hidden_states, 1),
        image_mask: sample.image_mask[1..len].to_vec(),
        answered,
        supervised,
    })))
}

/// What of a sample the draft reads.
fn features<'s>(
    sample: &'s CapturedSample,
    options: &PrepareOptions,
) -> Result<&'s Array2<f32>, TrainError> {
    let Features::ResidualStates(states) = options.features else {
        return Ok(&sample.hidden_states);
    };
    let found = sample.residual_states.as_ref();
    let shape = found.map_or([0, 0], |states| [states.nrows(), states.ncols()]);
    for (quantity, found, expected) in [
        ("rows of residual states", shape[0], sample.token_ids.len()),
        (
            "width of residual states",
            shape[1],
            states * options.hidden,
        ),
    ] {
        if found != expected {
            return Err(wrong_shape(sample, quantity, found, expected));
        }
    }
    Ok(found.unwrap_or(&sample.hidden_states))
}

/// Whether there is an image token inside an image without a hidden state.
fn lacks_image_states(sample: &CapturedSample, len: usize) -> bool {
    (1..len).any(|i| {
        sample.image_mask[i - 1]
            && sample.image_mask[i]
            && sample.hidden_states.row(i - 1).iter().all(|&v| v == 0.0)
    })
}

fn check(sample: &CapturedSample, hidden: usize) -> Result<(), TrainError> {
    let tokens = sample.token_ids.len();
    for (quantity, found, expected) in [
        ("rows of embeddings", sample.input_embeds.nrows(), tokens),
        (
            "rows of hidden states",
            sample.hidden_states.nrows(),
            tokens,
        ),
        ("length of the loss mask", sample.loss_mask.len(), tokens),
        ("length of the image mask", sample.image_mask.len(), tokens),
        ("width of embeddings", sample.input_embeds.ncols(), hidden),
        (
            "width of hidden states",
            sample.hidden_states.ncols(),
            hidden,
        ),
    ] {
        if found != expected {
            return Err(wrong_shape(sample, quantity, found, expected));
        }
    }
    Ok(())
}

fn wrong_shape(
    sample: &CapturedSample,
    quantity: &'static str,
    found: usize,
    expected: usize,
) -> TrainError {
    TrainError::SampleShape {
        id: sample.id.clone(),
        quantity,
        found,
        expected,
    }
}
