//! Evaluation on held-out scenes.

use serde::{Deserialize, Serialize};

use super::super::cross_entropy::{negative_mean, scalar};
use super::lessons::Teacher;
use super::read;
use crate::error::TrainError;
use crate::network::TargetNetwork;

/// How well a target describes held-out scenes of one size.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// The stage that ended, from 0.
    pub stage: usize,
    /// Side of the pictures in pixels.
    pub side: u32,
    /// Number of image tokens per picture.
    pub image_tokens: usize,
    /// Cross entropy of answer tokens, as the mean over scenes.
    pub loss: f64,
    /// Share of answer tokens to which the target gives the highest probability.
    pub right_tokens: f64,
    /// Share of answers with the highest probability at every token: greedy decoding reproduces
    /// them word for word.
    pub right_answers: f64,
}

/// Evaluates `network` at the end of a stage on `n_scenes` scenes of one size.
pub(super) fn judge(
    teacher: &Teacher,
    network: &TargetNetwork,
    (stage, side): (usize, u32),
    n_scenes: u64,
) -> Result<Judgement, TrainError> {
    let mut image_tokens = 0;
    let (mut loss, mut right_answers) = (0.0, 0.0);
    let (mut tokens, mut right) = (0, 0);
    for number in 0..n_scenes {
        let lesson = teacher.held_out(number, side)?;
        let log_probabilities = read(network, &lesson);
        image_tokens = lesson.image_tokens;
        loss += scalar(negative_mean(log_probabilities.clone(), &lesson.next));
        let best = log_probabilities.argmax(1).into_data();
        let best = best.iter::<i64>().zip(&lesson.next);
        let n_right = best
            .filter(|(best, next)| *best == i64::from(**next))
            .count();
        tokens += lesson.next.len();
        right += n_right;
        right_answers += f64::from(u8::from(n_right == lesson.next.len()));
    }
    #[expect(clippy::cast_precision_loss, reason = "few scenes")]
    let (n_scenes, right, tokens) = (n_scenes.max(1) as f64, right as f64, tokens.max(1) as f64);
    Ok(Judgement {
        stage,
        side,
        image_tokens,
        loss: loss / n_scenes,
        right_tokens: right / tokens,
        right_answers: right_answers / n_scenes,
    })
}
