//! Sources of training samples.

use std::convert::Infallible;

use super::CapturedSample;

/// Samples with random access, so that every epoch can use a different order.
pub trait SampleSource {
    /// Error of reading a sample.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Returns the number of samples.
    fn len(&self) -> usize;

    /// Returns `true` if there are no samples.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns a string that identifies these samples; an interrupted run resumes only with the
    /// same samples.
    fn identity(&self) -> String;

    /// Reads sample `index`, from 0. An index gives the same sample every time.
    ///
    /// # Errors
    /// If the sample is damaged or cannot be read.
    ///
    /// # Panics
    /// If `index` is out of range.
    fn sample(&self, index: usize) -> Result<CapturedSample, Self::Error>;

    /// Reads the answer tokens of sample `index`: those that its loss mask selects.
    ///
    /// # Errors
    /// Same as [`SampleSource::sample`].
    ///
    /// # Panics
    /// If `index` is out of range.
    fn answer_tokens(&self, index: usize) -> Result<Vec<u32>, Self::Error> {
        let sample = self.sample(index)?;
        Ok(answer_tokens(&sample.token_ids, &sample.loss_mask))
    }
}

/// Returns the tokens that a loss mask selects.
#[must_use]
pub fn answer_tokens(token_ids: &[u32], loss_mask: &[bool]) -> Vec<u32> {
    let tokens = token_ids.iter().zip(loss_mask);
    tokens
        .filter(|(_, of_answer)| **of_answer)
        .map(|(token, _)| *token)
        .collect()
}

/// Samples in memory.
impl SampleSource for Vec<CapturedSample> {
    type Error = Infallible;

    fn len(&self) -> usize {
        Vec::len(self)
    }

    fn identity(&self) -> String {
        let ids = self.iter().map(|sample| sample.id.as_str());
        ids.collect::<Vec<_>>().join(" ")
    }

    fn sample(&self, index: usize) -> Result<CapturedSample, Infallible> {
        Ok(self[index].clone())
    }
}
