//! One training sample.

use ndarray::Array2;

/// A conversation as the target read it, position by position: what a draft is trained on.
///
/// Masks are as the reference implementation stores them; shifting them is the trainer's business.
#[derive(Debug, Clone, PartialEq)]
pub struct CapturedSample {
    /// Names the sample in messages.
    pub id: String,
    /// `[seq]`, with image tokens at their places.
    pub token_ids: Vec<u32>,
    /// `[seq, hidden]`: what enters the first layer of the target, image features included.
    pub input_embeds: Array2<f32>,
    /// `[seq, hidden]`: what leaves the last norm of the target. Rows that no draft reads, those of
    /// image tokens but the last of each image, may be zero.
    pub hidden_states: Array2<f32>,
    /// `[seq, states * hidden]`: states of the residual stream between layers, those that the header
    /// names, one behind the other; none if it names none. Rows may be zero as those of
    /// `hidden_states`.
    pub residual_states: Option<Array2<f32>>,
    /// `[seq]`: stage 1, true on tokens of answers; stage 2, true from the last token of the prompt.
    pub loss_mask: Vec<bool>,
    /// `[seq]`: true where an image feature stands in place of a token's embedding.
    pub image_mask: Vec<bool>,
}

/// What a target computed for a sequence, position by position.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleVectors {
    /// `[seq, hidden]`, as in [`CapturedSample`].
    pub input_embeds: Array2<f32>,
    /// `[seq, hidden]`: what leaves the last norm of the target.
    pub hidden_states: Array2<f32>,
    /// `[seq, states * hidden]`, as in [`CapturedSample`].
    pub residual_states: Option<Array2<f32>>,
}
