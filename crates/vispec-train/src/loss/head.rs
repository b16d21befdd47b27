//! Losses through the target's output head, and their gradients with respect to the draft's
//! output.
//!
//! The vocabulary is a hundred times wider than the hidden states, so logits are never part of a
//! graph and never there for more than [`Head::rows_at_once`] positions: gradients are known in
//! closed form and go through the head at once. The teacher's probabilities are computed once for
//! all passes over a sample.

use burn::tensor::{Device, Tensor, TensorData, s};
use rayon::prelude::*;
use vispec_models::nn::Linear;

use super::row::{Divergence, RowLoss, RowWeights, TeacherRow, row_loss};
use super::softmax::top_k;
use crate::error::TrainError;

/// Bytes of logits that are there at a time.
const LOGITS_AT_ONCE: usize = 16 << 20;

/// The target's output head, frozen.
#[derive(Debug, Clone)]
pub struct Head {
    weight: Tensor<2>,
    linear: Linear,
}

/// Terms of the loss that need the head.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeadTerms {
    /// How distributions are compared.
    pub divergence: Divergence,
    /// Weight of that comparison.
    pub divergence_weight: f64,
    /// Weight of the ranking loss.
    pub ranking_weight: f64,
    /// Number of rows of all passes that the sums are divided by.
    pub rows: usize,
}

/// Sums over rows, not yet divided.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HeadSums {
    /// Of the divergence, unweighted.
    pub divergence: f64,
    /// Of the ranking loss, unweighted.
    pub ranking: f64,
    /// Rows of the first pass whose best token of the teacher is among the draft's best 1, 2, 3.
    pub top: [usize; 3],
}

impl HeadSums {
    fn add(&mut self, row: &RowLoss, first_pass: bool) {
        self.divergence += row.divergence;
        self.ranking += row.ranking;
        if first_pass {
            for (k, top) in self.top.iter_mut().enumerate() {
                *top += usize::from(row.rank <= k);
            }
        }
    }
}

impl Head {
    /// A head with weight `[vocab, hidden]` on the device of inference.
    #[must_use]
    pub fn new(weight: Tensor<2>) -> Self {
        Self {
            linear: Linear::from_tensors(weight.clone(), None),
            weight,
        }
    }

    /// Width of the vocabulary.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.weight.dims()[0]
    }

    /// Width of the hidden states.
    #[must_use]
    pub fn hidden(&self) -> usize {
        self.weight.dims()[1]
    }

    /// Device of the weight.
    #[must_use]
    pub fn device(&self) -> Device {
        self.weight.device()
    }

    /// The layer.
    #[must_use]
    pub fn linear(&self) -> &Linear {
        &self.linear
    }

    /// Positions whose logits are there at a time.
    #[must_use]
    pub fn rows_at_once(&self) -> usize {
        (LOGITS_AT_ONCE / (4 * self.vocab_size())).clamp(8, 256)
    }

    fn logits(&self, hidden: Tensor<2>) -> Result<Vec<f32>, TrainError> {
        let data = self.linear.forward(hidden).into_data();
        data.try_into_vec::<f32>()
            .map_err(|error| TrainError::Device {
                what: "logits",
                reason: error.to_string(),
            })
    }

    /// Sums of the losses of `passes` against `target`, and the gradient of the weighted, divided
    /// loss with respect to each pass.
    ///
    /// # Shapes
    /// `passes` and the gradients `[rows, hidden]`; `target` `[rows, hidden]`, the target's hidden
    /// states, the same for all passes.
    ///
    /// # Errors
    /// [`TrainError::Device`] if logits cannot be read back.
    pub fn losses(
        &self,
        passes: &[Tensor<2>],
        target: &Tensor<2>,
        terms: &HeadTerms,
    ) -> Result<(HeadSums, Vec<Tensor<2>>), TrainError> {
        let [rows, _] = target.dims();
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            reason = "numbers of rows are small, gradients are f32"
        )]
        let weights = RowWeights {
            kind: terms.divergence,
            divergence: (terms.divergence_weight / terms.rows as f64) as f32,
            ranking: (terms.ranking_weight / terms.rows as f64) as f32,
        };
        let mut sums = HeadSums::default();
        let mut parts = vec![Vec::new(); passes.len()];
        for start in (0..rows).step_by(self.rows_at_once()) {
            let range = start..rows.min(start + self.rows_at_once());
            let (teacher, top) = self.teach(target.clone().slice(s![range.clone(), ..]))?;
            for (number, (pass, parts)) in passes.iter().zip(&mut parts).enumerate() {
                let student = pass.clone().slice(s![range.clone(), ..]);
                let logits = self.logits(student)?;
                let (gradient, losses) = self.compare(logits, &teacher, &top, &weights);
                for loss in &losses {
                    sums.add(loss, number == 0);
                }
                parts.push(gradient);
            }
        }
        let gradients = parts.into_iter().map(|parts| Tensor::cat(parts, 0));
        Ok((sums, gradients.collect()))
    }

    /// Probabilities `[rows, vocab]` of the teacher and its best tokens.
    fn teach(&self, target: Tensor<2>) -> Result<(Vec<f32>, Vec<TeacherRow>), TrainError> {
        let mut teacher = self.logits(target)?;
        let top = teacher
            .par_chunks_mut(self.vocab_size())
            .map(TeacherRow::new)
            .collect();
        Ok((teacher, top))
    }

    /// Losses of each row, and the gradient with respect to what the head read, `[rows, hidden]`.
    fn compare(
        &self,
        mut logits: Vec<f32>,
        teacher: &[f32],
        top: &[TeacherRow],
        weights: &RowWeights,
    ) -> (Tensor<2>, Vec<RowLoss>) {
        let vocab = self.vocab_size();
        let losses: Vec<RowLoss> = logits
            .par_chunks_mut(vocab)
            .zip(teacher.par_chunks(vocab))
            .zip(top)
            .map(|((logits, teacher), row)| row_loss(logits, teacher, row, weights))
            .collect();
        let data = TensorData::new(logits, [losses.len(), vocab]);
        let gradient = Tensor::<2>::from_data(data, &self.device()).matmul(self.weight.clone());
        (gradient, losses)
    }
}

impl Head {
    /// The most probable token after each hidden state `[rows, hidden]`.
    ///
    /// # Errors
    /// [`TrainError::Device`] if logits cannot be read back.
    pub fn best_tokens(&self, states: &Tensor<2>) -> Result<Vec<u32>, TrainError> {
        let [rows, _] = states.dims();
        let mut tokens = Vec::with_capacity(rows);
        for start in (0..rows).step_by(self.rows_at_once()) {
            let end = rows.min(start + self.rows_at_once());
            let logits = self.logits(states.clone().slice(s![start..end, ..]))?;
            tokens.extend(logits.chunks_exact(self.vocab_size()).map(|row| {
                let best = top_k(row, 1).first().copied().unwrap_or(0);
                u32::try_from(best).unwrap_or(u32::MAX)
            }));
        }
        Ok(tokens)
    }
}
