//! Where a trainer finds samples.

use std::convert::Infallible;

use super::CapturedSample;

/// Samples that can be read in any order, so that every epoch can have another one.
pub trait SampleSource {
    /// What can go wrong when a sample is read.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Number of samples.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tells these samples from others: a run that was interrupted goes on with the same only.
    fn identity(&self) -> String;

    /// Reads sample number `index`, from 0. The same index gives the same sample every time.
    ///
    /// # Errors
    /// If the sample is damaged or cannot be read.
    ///
    /// # Panics
    /// If there is no such sample.
    fn sample(&self, index: usize) -> Result<CapturedSample, Self::Error>;

    /// Tokens of the answers of sample number `index`: those that its loss mask has.
    ///
    /// # Errors
    /// As [`SampleSource::sample`].
    ///
    /// # Panics
    /// If there is no such sample.
    fn answer_tokens(&self, index: usize) -> Result<Vec<u32>, Self::Error> {
        let sample = self.sample(index)?;
        Ok(answer_tokens(&sample.token_ids, &sample.loss_mask))
    }
}

/// The tokens that a loss mask has.
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
