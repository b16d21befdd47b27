//! Divergences between the arms of records.

use super::Subset;
use crate::record::Divergence;

/// The records of a set whose arms differ.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Divergences {
    /// Positions of the first difference, counted from 0.
    pub places: Subset,
    /// The smallest of these positions.
    pub earliest: Option<u32>,
    /// The largest known gap between the plain logits of both tokens at these positions.
    pub largest_gap: Option<f32>,
}

impl Divergences {
    /// Adds the divergence of a record; `key` is the key for [`Subset::add`].
    pub(crate) fn add(&mut self, key: u64, divergence: &Divergence) {
        self.places.add(key, f64::from(divergence.position));
        self.note(Some(divergence.position), divergence.logit_gap);
    }

    /// Adds the divergences of another set.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.places.merge(&other.places);
        self.note(other.earliest, other.largest_gap);
    }

    /// Returns the number of records whose arms differ.
    pub(crate) fn count(&self) -> u64 {
        self.places.n_values()
    }

    fn note(&mut self, place: Option<u32>, gap: Option<f32>) {
        self.earliest = self.earliest.into_iter().chain(place).min();
        self.largest_gap = self
            .largest_gap
            .into_iter()
            .chain(gap)
            .max_by(f32::total_cmp);
    }
}
