//! Logits of the target, row by row: on a device or on the host.

use crate::{BoxError, Sampler, TokenId};

/// Why no token could be chosen from a row of logits.
#[derive(Debug, thiserror::Error)]
pub enum LogitsError {
    /// The row holds NaN or positive infinity, or nothing but negative infinity.
    /// (Single negative infinities are masked tokens and fine.)
    #[error("row {row} of the logits holds NaN, +inf or only -inf")]
    NonFinite {
        /// The row, 0 where only one was looked at.
        row: usize,
    },
    /// The device failed while computing or reading back.
    #[error("reading logits from the device failed")]
    Device(#[source] BoxError),
    /// The [`Constraint`](crate::Constraint) cannot tell which tokens may come.
    #[error("the grammar of the answer failed")]
    Constraint(#[source] BoxError),
}

impl LogitsError {
    /// The same error, said of `row`.
    #[must_use]
    pub fn at_row(self, row: usize) -> Self {
        match self {
            Self::NonFinite { .. } => Self::NonFinite { row },
            other @ (Self::Device(_) | Self::Constraint(_)) => other,
        }
    }
}

/// Rows of logits over the vocabulary, normally still on the device.
///
/// Acceptance rules ask for rows lazily and in path order.
/// An implementation on a device may compute all rows at the first call, read back one token per
/// row, and answer later calls from that: one read-back per cycle.
pub trait TargetLogits {
    /// Number of rows: 1 after a prefill, one per node after a verify pass.
    fn n_rows(&self) -> usize;

    /// Token of `row` under `sampler`; `uniform` in `[0, 1)` drives the choice.
    ///
    /// Must agree with [`Sampler::pick`] on the host copy of the row, up to rounding.
    ///
    /// # Errors
    /// [`LogitsError::NonFinite`] instead of a choice from broken logits; device errors.
    fn pick(&mut self, row: usize, sampler: &Sampler, uniform: f64)
    -> Result<TokenId, LogitsError>;

    /// Host copy of one row, `[vocab]`. Slow on a device.
    ///
    /// # Errors
    /// As [`pick`](Self::pick).
    fn read_row(&mut self, row: usize) -> Result<&[f32], LogitsError>;
}

/// Logits in host memory, owned (`Vec<f32>`) or borrowed (`&[f32]`).
#[derive(Clone, Debug)]
pub struct HostLogits<R = Vec<f32>> {
    values: R,
    vocab: usize,
}

impl<R: AsRef<[f32]>> HostLogits<R> {
    /// Rows of `vocab` logits each, row-major.
    ///
    /// # Panics
    /// If `vocab` is 0 or the number of values is not a multiple of it.
    #[must_use]
    pub fn new(values: R, vocab: usize) -> Self {
        let n_values = values.as_ref().len();
        assert!(
            vocab > 0 && n_values.is_multiple_of(vocab),
            "{n_values} logits are not rows of {vocab}"
        );
        Self { values, vocab }
    }

    /// One row, `[vocab]`.
    ///
    /// # Panics
    /// If there is no such row.
    #[must_use]
    pub fn row(&self, row: usize) -> &[f32] {
        &self.values.as_ref()[row * self.vocab..][..self.vocab]
    }
}

impl<R: AsRef<[f32]>> TargetLogits for HostLogits<R> {
    fn n_rows(&self) -> usize {
        self.values.as_ref().len() / self.vocab
    }

    fn pick(
        &mut self,
        row: usize,
        sampler: &Sampler,
        uniform: f64,
    ) -> Result<TokenId, LogitsError> {
        sampler
            .pick(self.row(row), uniform)
            .map_err(|error| error.at_row(row))
    }

    fn read_row(&mut self, row: usize) -> Result<&[f32], LogitsError> {
        let values = self.row(row);
        if crate::sample::row_max(values).is_none() {
            return Err(LogitsError::NonFinite { row });
        }
        Ok(values)
    }
}
