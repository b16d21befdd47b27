//! One training sample.

use ndarray::Array2;

/// A conversation with the vectors that the target computed at each position; a training sample of
/// a draft.
///
/// Masks are stored like in the reference implementation; the trainer shifts them.
#[derive(Debug, Clone, PartialEq)]
pub struct CapturedSample {
    /// Name of the sample in messages.
    pub id: String,
    /// `[seq]`, with image tokens in place.
    pub token_ids: Vec<u32>,
    /// `[seq, hidden]`: input of the target's first layer, image features included.
    pub input_embeds: Array2<f32>,
    /// `[seq, hidden]`: output of the target's last norm. Rows that no draft reads may be zero:
    /// those of image tokens, except the last token of each image.
    pub hidden_states: Array2<f32>,
    /// `[seq, states * hidden]`: the residual stream states listed in the header, concatenated;
    /// `None` if it lists none. The rows that may be zero are those of `hidden_states`.
    pub residual_states: Option<Array2<f32>>,
    /// `[seq]`: in stage 1, true on answer tokens; in stage 2, true from the last token of the
    /// prompt.
    pub loss_mask: Vec<bool>,
    /// `[seq]`: true where an image feature replaces the token's embedding.
    pub image_mask: Vec<bool>,
}

/// The vectors that a target computed for a sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleVectors {
    /// `[seq, hidden]`, as in [`CapturedSample`].
    pub input_embeds: Array2<f32>,
    /// `[seq, hidden]`: output of the target's last norm.
    pub hidden_states: Array2<f32>,
    /// `[seq, states * hidden]`, as in [`CapturedSample`].
    pub residual_states: Option<Array2<f32>>,
}
