//! The tokens that a draft chooses among.

use std::ops::Range;

use vispec_data::capture::SampleSource;

use crate::error::TrainError;

/// The part of the vocabulary that losses compare and that the draft may propose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DraftVocabulary {
    /// Ids, the most frequent first.
    by_frequency: Vec<u32>,
    /// For each id of the target, whether it is listed.
    is_listed: Vec<bool>,
}

impl DraftVocabulary {
    /// Returns the `size` most frequent tokens in the answers of some samples, out of `vocab_size`.
    /// If the answers have fewer distinct tokens, the lowest ids follow, which in byte-pair
    /// encodings are frequent tokens.
    ///
    /// # Errors
    /// * [`TrainError::ReadSample`] if a sample cannot be read.
    /// * [`TrainError::Setting`] if `size` is 0 or larger than `vocab_size`.
    pub fn of_answers<S: SampleSource>(
        source: &S,
        samples: Range<usize>,
        size: usize,
        vocab_size: usize,
    ) -> Result<Self, TrainError> {
        if size == 0 || size > vocab_size {
            return Err(TrainError::Setting {
                field: "vocabulary.size",
                found: size.to_string(),
                expected: format!("1 to {vocab_size}, the tokens that the target scores"),
            });
        }
        let mut counts = vec![0_u64; vocab_size];
        for index in samples {
            let tokens = source.answer_tokens(index);
            let tokens = tokens.map_err(|source| TrainError::ReadSample {
                index,
                source: Box::new(source),
            })?;
            for token in tokens {
                if let Some(count) = counts.get_mut(token as usize) {
                    *count += 1;
                }
            }
        }
        let mut ids: Vec<u32> = (0..u32::try_from(vocab_size).unwrap_or(u32::MAX)).collect();
        // A stable sort: among equally frequent tokens, lower ids come first.
        ids.sort_by_key(|&id| std::cmp::Reverse(counts[id as usize]));
        ids.truncate(size);
        Ok(Self::new(ids, vocab_size))
    }

    /// Creates a vocabulary from a list of ids, the most frequent first, out of `vocab_size`.
    #[must_use]
    pub fn new(by_frequency: Vec<u32>, vocab_size: usize) -> Self {
        let mut is_listed = vec![false; vocab_size];
        for &id in &by_frequency {
            if let Some(listed) = is_listed.get_mut(id as usize) {
                *listed = true;
            }
        }
        Self {
            by_frequency,
            is_listed,
        }
    }

    /// Returns whether a token is in the list.
    pub(crate) fn lists(&self, token: u32) -> bool {
        self.is_listed.get(token as usize) == Some(&true)
    }

    /// Returns the ids, the most frequent first.
    pub(crate) fn by_frequency(&self) -> &[u32] {
        &self.by_frequency
    }

    /// Returns the ids in ascending order: the order of the rows of a head.
    pub(crate) fn ascending(&self) -> Vec<u32> {
        let ids = (0_u32..).zip(&self.is_listed);
        ids.filter(|(_, listed)| **listed)
            .map(|(id, _)| id)
            .collect()
    }

    /// Returns, for each token that the target scores, whether it is in the list.
    pub(crate) fn is_listed(&self) -> &[bool] {
        &self.is_listed
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;
    use vispec_data::capture::CapturedSample;

    use super::*;

    fn sample(tokens: &[u32]) -> CapturedSample {
        let empty = Array2::zeros([tokens.len(), 1]);
        CapturedSample {
            id: String::new(),
            token_ids: tokens.to_vec(),
            input_embeds: empty.clone(),
            hidden_states: empty,
            residual_states: None,
            loss_mask: (0..tokens.len()).map(|i| i > 0).collect(),
            image_mask: vec![false; tokens.len()],
        }
    }

    #[test]
    fn frequent_tokens_come_first_and_then_the_first_ids() {
        let samples = vec![
            sample(&[0, 7, 7, 3]),
            sample(&[9, 9, 3, 7]),
            sample(&[5, 5, 5]),
        ];
        let list = DraftVocabulary::of_answers(&samples, 0..2, 5, 10).unwrap();
        // Token 0 and one 9 belong to questions, and the third sample is not counted.
        assert_eq!(list.by_frequency(), [7, 3, 9, 0, 1]);
        assert_eq!(list.ascending(), [0, 1, 3, 7, 9]);
        assert!(list.lists(9) && !list.lists(5) && !list.lists(99));
        for size in [0, 11] {
            let error = DraftVocabulary::of_answers(&samples, 0..2, size, 10).unwrap_err();
            assert!(error.to_string().contains("1 to 10"), "{error}");
        }
    }
}
