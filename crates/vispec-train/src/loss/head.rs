//! Losses through the target's output head, and their gradients with respect to the draft's
//! output.
//!
//! The vocabulary is a hundred times wider than the hidden states. The head's logits are therefore
//! never part of a graph: their gradients have a closed form and are propagated through the head
//! immediately.
//!
//! [`Head::losses`] keeps the logits of at most [`Head::rows_at_once`] rows at a time. It computes
//! the teacher's probabilities once for all passes over a sample. The teacher and all passes go
//! through the head together, so that its weight is read once for all of them. Training-time test,
//! whose passes supervise different rows, keeps the teacher's probabilities of a whole batch
//! ([`Head::teacher`]).

use burn::tensor::{DType, Device, Tensor, TensorData, s};
use vispec_kernels::map_rows;
use vispec_models::is_cpu;
use vispec_models::nn::Linear;

use super::cpu;
use super::row::{Divergence, RowLoss, RowWeights, TeacherRow, row_loss};
use super::softmax::top_k;
use crate::error::TrainError;
use crate::network::HostTensor;

/// Maximum size in bytes of the logits that exist at a time.
const LOGITS_AT_ONCE: usize = 64 << 20;

/// Number of rows of the weight in one bf16 product with a gradient; small enough for the operands
/// to stay in cache.
const PIECE: usize = 4096;

/// The target's output head, frozen.
#[derive(Debug, Clone)]
pub struct Head {
    weight: Tensor<2>,
    linear: Linear,
    /// Pieces `[hidden, PIECE]` of the transposed weight, for gradients in bf16; empty in f32.
    back: Vec<Linear>,
}

/// The terms of the loss that are computed through the head.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct HeadTerms {
    /// How distributions are compared.
    pub divergence: Divergence,
    /// Weight of the divergence.
    pub divergence_weight: f64,
    /// Weight of the ranking loss.
    pub ranking_weight: f64,
    /// Number of rows of all passes, by which the sums are divided.
    pub rows: usize,
}

impl HeadTerms {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "numbers of rows are small, gradients are f32"
    )]
    fn row_weights(&self) -> RowWeights {
        RowWeights {
            kind: self.divergence,
            divergence: (self.divergence_weight / self.rows as f64) as f32,
            ranking: (self.ranking_weight / self.rows as f64) as f32,
        }
    }
}

/// Sums over rows, not yet divided by their number.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct HeadSums {
    /// Sum of the divergence, unweighted.
    pub divergence: f64,
    /// Sum of the ranking loss, unweighted.
    pub ranking: f64,
    /// Number of rows of the first pass at which the teacher's best token is among the draft's best
    /// 1, 2 and 3.
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
    /// Creates a head with weight `[vocab, hidden]`, on the device without automatic
    /// differentiation.
    #[must_use]
    pub fn new(weight: Tensor<2>) -> Self {
        Self {
            linear: Linear::from_tensors(weight.clone(), None),
            weight,
            back: Vec::new(),
        }
    }

    /// Returns the same head with weights, inputs and gradients of products rounded to bf16; sums
    /// stay f32. Faster on CPUs with bf16 multiplication, slower on others.
    ///
    /// # Errors
    /// * [`TrainError::Setting`] on devices other than the CPU.
    /// * [`TrainError::Device`] if the weight cannot be read.
    pub fn in_bf16(mut self) -> Result<Self, TrainError> {
        let (vocab, device) = (self.vocab_size(), self.device());
        if !is_cpu(&device) {
            return Err(TrainError::Setting {
                field: "compute.head",
                found: "bf16".to_owned(),
                expected: "f32 on this device: bf16 is supported on the CPU only".to_owned(),
            });
        }
        let rounded =
            |weight: Tensor<2>| Linear::from_tensors(Tensor::<2>::cast(weight, DType::BF16), None);
        self.linear = rounded(self.weight.clone());
        for start in (0..vocab).step_by(PIECE) {
            let piece = s![start..vocab.min(start + PIECE), ..];
            let piece = HostTensor::from_device(self.weight.clone().slice(piece))?;
            self.back
                .push(rounded(piece.transposed().to_device(&device)));
        }
        Ok(self)
    }

    /// Returns the size of the vocabulary.
    pub(crate) fn vocab_size(&self) -> usize {
        self.weight.dims()[0]
    }

    /// Returns the width of the hidden states.
    pub(crate) fn hidden(&self) -> usize {
        self.weight.dims()[1]
    }

    /// Returns the device of the weight.
    #[must_use]
    pub fn device(&self) -> Device {
        self.weight.device()
    }

    /// Returns the number of rows whose logits exist at a time.
    pub(crate) fn rows_at_once(&self) -> usize {
        (LOGITS_AT_ONCE / (4 * self.vocab_size())).clamp(32, 1024)
    }

    /// Returns the sums of the losses of `passes` against `target`, and the gradient of the mean
    /// weighted loss with respect to each pass.
    ///
    /// # Shapes
    /// `passes` and the gradients `[rows, hidden]`; `target` `[rows, hidden]`, the target's hidden
    /// states, which are the same for all passes.
    ///
    /// # Errors
    /// [`TrainError::Device`] if logits cannot be read back.
    pub(crate) fn losses(
        &self,
        passes: &[Tensor<2>],
        target: &Tensor<2>,
        terms: &HeadTerms,
    ) -> Result<(HeadSums, Vec<Tensor<2>>), TrainError> {
        let [rows, _] = target.dims();
        let weights = terms.row_weights();
        let mut sums = HeadSums::default();
        let vocab = self.vocab_size();
        let mut parts = vec![Vec::new(); passes.len()];
        let step = (self.rows_at_once() / (1 + passes.len())).max(1);
        for start in (0..rows).step_by(step) {
            let range = start..rows.min(start + step);
            let n_rows = range.len();
            let read = std::iter::once(target).chain(passes);
            let read = read.map(|states| states.clone().slice(s![range.clone(), ..]));
            let mut logits = self.logits(Tensor::cat(read.collect(), 0))?;
            let (teacher, students) = logits.split_at_mut(n_rows * vocab);
            let top = map_rows(teacher, vocab, |_, row| TeacherRow::new(row));
            let losses = map_rows(students, vocab, |row, logits| {
                let position = row % n_rows;
                let teacher = &teacher[position * vocab..(position + 1) * vocab];
                row_loss(logits, teacher, &top[position], &weights)
            });
            for (row, loss) in losses.iter().enumerate() {
                sums.add(loss, row < n_rows);
            }
            let gradients = self.back_through(students, losses.len());
            for (number, parts) in parts.iter_mut().enumerate() {
                let rows = s![number * n_rows..(number + 1) * n_rows, ..];
                parts.push(gradients.clone().slice(rows));
            }
        }
        let gradients = parts.into_iter().map(|parts| Tensor::cat(parts, 0));
        Ok((sums, gradients.collect()))
    }

    /// Propagates gradients of logits `[rows, vocab]` back to the head's input `[rows, hidden]`.
    pub(crate) fn back_through(&self, gradient: &[f32], rows: usize) -> Tensor<2> {
        if self.back.is_empty()
            && let Some(product) = cpu::back_through(gradient, &self.weight)
        {
            return product;
        }
        let data = TensorData::new(gradient.to_vec(), [rows, self.vocab_size()]);
        let gradient = Tensor::<2>::from_data(data, &self.device());
        let pieces = self.back.iter().enumerate().map(|(number, piece)| {
            let start = number * PIECE;
            let end = self.vocab_size().min(start + PIECE);
            piece.forward(gradient.clone().slice(s![.., start..end]))
        });
        match pieces.reduce(|sum, piece| sum + piece) {
            Some(sum) => sum,
            None => gradient.matmul(self.weight.clone()),
        }
    }
}

/// The target's distributions at some positions, computed once for all passes.
#[derive(Debug)]
pub(crate) struct Teacher {
    /// `[rows, vocab]`
    probabilities: Vec<f32>,
    rows: Vec<TeacherRow>,
}

impl Head {
    /// Computes the target's distributions after hidden states `[rows, hidden]`. All of them are in
    /// memory at the same time: `rows * vocab` floats.
    ///
    /// # Errors
    /// [`TrainError::Device`] if logits cannot be read back.
    pub(crate) fn teacher(&self, states: &Tensor<2>) -> Result<Teacher, TrainError> {
        let mut probabilities = self.logits(states.clone())?;
        let rows = map_rows(&mut probabilities, self.vocab_size(), |_, row| {
            TeacherRow::new(row)
        });
        Ok(Teacher {
            probabilities,
            rows,
        })
    }

    /// Returns the sums of the losses of a student's logits `[rows, vocab]`, and the gradient of
    /// the mean weighted loss with respect to the logits. Any head may have computed the logits.
    ///
    /// # Arguments
    /// * `rows` - for each row of logits, the row of the teacher that it is compared with.
    pub(crate) fn compare(
        &self,
        teacher: &Teacher,
        rows: &[usize],
        mut logits: Vec<f32>,
        terms: &HeadTerms,
    ) -> (HeadSums, Vec<f32>) {
        let (vocab, weights) = (self.vocab_size(), terms.row_weights());
        let losses = map_rows(&mut logits, vocab, |row, logits| {
            let at = rows[row];
            let distribution = &teacher.probabilities[at * vocab..(at + 1) * vocab];
            row_loss(logits, distribution, &teacher.rows[at], &weights)
        });
        let mut sums = HeadSums::default();
        for loss in &losses {
            sums.add(loss, true);
        }
        (sums, logits)
    }

    /// Computes the logits after hidden states `[rows, hidden]`, in host memory.
    ///
    /// # Errors
    /// [`TrainError::Device`] if they cannot be read back.
    pub(crate) fn logits(&self, hidden: Tensor<2>) -> Result<Vec<f32>, TrainError> {
        if self.back.is_empty()
            && let Some(logits) = cpu::logits(&hidden, &self.weight)
        {
            return Ok(logits);
        }
        host(self.linear.forward(hidden))
    }
}

/// Copies logits to host memory.
///
/// # Errors
/// [`TrainError::Device`] if they cannot be read back.
pub(crate) fn host(logits: Tensor<2>) -> Result<Vec<f32>, TrainError> {
    let data = logits.into_data();
    data.try_into_vec::<f32>()
        .map_err(|error| TrainError::Device {
            what: "logits",
            reason: error.to_string(),
        })
}

impl Head {
    /// Returns the most probable token after each hidden state `[rows, hidden]`.
    ///
    /// # Errors
    /// [`TrainError::Device`] if logits cannot be read back.
    pub(crate) fn best_tokens(&self, states: &Tensor<2>) -> Result<Vec<u32>, TrainError> {
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

#[cfg(test)]
mod tests {
    use burn::tensor::Distribution;

    use super::*;

    #[test]
    fn bf16_is_close_to_f32_over_several_pieces() {
        let device = Device::flex();
        device.seed(7);
        let random = |rows: usize| {
            let law = Distribution::Normal(0.0, 1.0);
            Tensor::<2>::random([rows, 16], law, &device)
        };
        let exact = Head::new(random(2 * PIECE + 100));
        let rounded = exact.clone().in_bf16().unwrap();
        let (pass, target) = (random(5), random(5));
        let terms = HeadTerms {
            divergence: Divergence::CrossEntropy,
            divergence_weight: 1.0,
            ranking_weight: 0.1,
            rows: 5,
        };
        let losses = |head: &Head| {
            let passes = std::slice::from_ref(&pass);
            let (sums, gradients) = head.losses(passes, &target, &terms).unwrap();
            (sums, gradients[0].clone())
        };
        let (expected, found) = (losses(&exact), losses(&rounded));
        let off = found.0.divergence / expected.0.divergence - 1.0;
        assert!(off.abs() < 1e-2 && off.abs() > 0.0, "{off}");
        let length = |x: Tensor<2>| x.square().sum().sqrt().into_scalar::<f32>();
        let distance = length(found.1 - expected.1.clone());
        assert!(distance < 0.03 * length(expected.1), "{distance}");
    }
}
