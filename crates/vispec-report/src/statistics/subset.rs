//! Quantiles of any number of values, in bounded memory.

use crate::random::mixed;

/// Maximum number of values that are kept.
pub(crate) const MOST_VALUES: usize = 2048;

/// All values up to `MOST_VALUES`, and a random subset of that size beyond.
///
/// Each value has a key, and the values with the smallest mixed keys are kept. So the subset
/// depends neither on the order of values nor on the order of merging.
#[derive(Debug, Clone, Default)]
pub struct Subset {
    values: u64,
    kept: Vec<(u64, f64)>,
}

impl Subset {
    /// Adds a value. Values with the same key are kept or dropped together.
    pub fn add(&mut self, key: u64, value: f64) {
        self.values += 1;
        self.kept.push((mixed(key), value));
        self.shorten_if_long();
    }

    /// Adds the values of another set.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.values += other.values;
        self.kept.extend_from_slice(&other.kept);
        self.shorten_if_long();
    }

    /// Returns the number of values that were added.
    pub(crate) fn n_values(&self) -> u64 {
        self.values
    }

    /// Returns the kept values in ascending order.
    #[must_use]
    pub fn sorted(&self) -> Vec<f64> {
        let mut kept = self.kept.clone();
        shorten(&mut kept);
        let mut values: Vec<f64> = kept.into_iter().map(|(_, value)| value).collect();
        values.sort_by(f64::total_cmp);
        values
    }

    fn shorten_if_long(&mut self) {
        if self.kept.len() >= 2 * MOST_VALUES {
            shorten(&mut self.kept);
        }
    }
}

/// Two subsets are equal if they keep the same values, in any order.
impl PartialEq for Subset {
    fn eq(&self, other: &Self) -> bool {
        self.values == other.values && self.sorted() == other.sorted()
    }
}

/// Removes all but the values with the smallest keys.
fn shorten(kept: &mut Vec<(u64, f64)>) {
    if kept.len() > MOST_VALUES {
        kept.select_nth_unstable_by(MOST_VALUES, |a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        kept.truncate(MOST_VALUES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::quantile;

    fn subset(keys: impl Iterator<Item = u64>) -> Subset {
        let mut subset = Subset::default();
        for key in keys {
            subset.add(key, key as f64);
        }
        subset
    }

    #[test]
    fn few_values_are_all_kept_and_many_are_a_fair_choice() {
        let few = subset((0..MOST_VALUES as u64).rev());
        assert!(
            few.sorted()
                .into_iter()
                .eq((0..MOST_VALUES).map(|n| n as f64))
        );
        let many = subset(0..100_000);
        let sorted = many.sorted();
        assert_eq!((sorted.len(), many.n_values()), (MOST_VALUES, 100_000));
        // The standard error of a quantile of 2048 uniform values is at most 1.1 %.
        for q in [0.1, 0.5, 0.9, 0.99] {
            let found = quantile(&sorted, q).unwrap() / 100_000.0;
            assert!((found - q).abs() < 0.03, "{q}: {found}");
        }
    }

    #[test]
    fn order_and_merging_do_not_change_the_choice() {
        let whole = subset(0..30_000);
        let mut merged = subset((20_000..30_000).rev());
        merged.merge(&subset(5_000..20_000));
        merged.merge(&subset(0..5_000));
        assert_eq!(whole, merged);
    }
}
