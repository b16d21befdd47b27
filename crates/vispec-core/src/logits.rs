//! Logits of the target, row by row: on a device or on the host.

use crate::{BoxError, Sampler, TokenId};

/// Why no token could be chosen from a row of logits.
#[derive(Debug, thiserror::Error)]
pub enum LogitsError {
    /// The row holds NaN or positive infinity, or only negative infinity. (Individual negative
    /// infinities are valid: they mark masked tokens.)
    #[error("row {row} of the logits holds NaN, +inf or only -inf")]
    NonFinite {
        /// Index of the row; 0 if only one row was read.
        row: usize,
    },
    /// The device failed to compute the logits or to read them back.
    #[error("reading logits from the device failed")]
    Device(#[source] BoxError),
    /// The [`Constraint`](crate::Constraint) cannot determine which tokens are allowed next.
    #[error("the grammar of the answer failed")]
    Constraint(#[source] BoxError),
}

impl LogitsError {
    /// Returns the same error with its row set to `row`.
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
/// Acceptance rules request rows lazily and in path order. An implementation on a device may
/// compute all rows at the first call, read back one token per row, and answer later calls from
/// that copy, so that a cycle has one read-back.
pub trait TargetLogits {
    /// Returns the number of rows: 1 after a prefill, one per node after a verify pass.
    fn n_rows(&self) -> usize;

    /// Picks a token from `row` with `sampler`; `uniform` in `[0, 1)` is the random number.
    ///
    /// Must agree with [`Sampler::pick`] on the host copy of the row, up to rounding.
    ///
    /// # Errors
    /// [`LogitsError::NonFinite`] if the row is unusable, or an error of the device.
    fn pick(&mut self, row: usize, sampler: &Sampler, uniform: f64)
    -> Result<TokenId, LogitsError>;

    /// Returns a host copy of one row, `[vocab]`. This is slow on a device.
    ///
    /// # Errors
    /// Same as [`pick`](Self::pick).
    fn read_row(&mut self, row: usize) -> Result<&[f32], LogitsError>;
}

/// Logits in host memory, owned (`Vec<f32>`) or borrowed (`&[f32]`).
#[derive(Clone, Debug)]
pub struct HostLogits<R = Vec<f32>> {
    values: R,
    vocab: usize,
}

impl<R: AsRef<[f32]>> HostLogits<R> {
    /// Creates rows of `vocab` logits each from row-major values.
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

    /// Returns one row, `[vocab]`.
    ///
    /// # Panics
    /// If the row is out of range.
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
