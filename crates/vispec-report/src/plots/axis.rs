//! Scales and tick marks of axes.

/// Mapping of values to positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    Linear,
    /// Logarithmic: equal distances for doublings; 0 is drawn at 1.
    Doubling,
}

/// Maps the interval `values` to the interval `places`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis {
    pub(super) scale: Scale,
    pub(super) values: (f64, f64),
    pub(super) places: (f64, f64),
}

impl Axis {
    pub(super) fn place(&self, value: f64) -> f64 {
        let (from, to) = (self.bent(self.values.0), self.bent(self.values.1));
        let (start, end) = self.places;
        start + (self.bent(value) - from) / (to - from) * (end - start)
    }

    fn bent(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => value,
            Scale::Doubling => value.max(1.0).log2(),
        }
    }
}

/// Returns about `count` round numbers from 0 to at least `largest`.
pub(super) fn ticks_from_zero(largest: f64, count: usize) -> Vec<f64> {
    let largest = if largest.is_finite() && largest > 0.0 {
        largest
    } else {
        1.0
    };
    let rough = largest / count as f64;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .map(|digit| digit * power)
        .find(|step| *step >= rough * 0.999)
        .unwrap_or(10.0 * power);
    let last = (largest / step - 1e-9).ceil() as usize;
    (0..=last).map(|idx| idx as f64 * step).collect()
}

/// Formats a number without trailing zeros.
pub(super) fn tick_label(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_reach_the_largest_value() {
        for largest in [0.03, 0.5, 0.99, 1.0, 2.37, 3.0, 4.1, 17.0, 99.0, 1234.0] {
            let ticks = ticks_from_zero(largest, 5);
            assert!((3..=8).contains(&ticks.len()), "{largest}: {ticks:?}");
            assert!(ticks.last().is_some_and(|&last| last >= largest - 1e-9));
        }
        let labels: Vec<_> = ticks_from_zero(2.37, 5)
            .into_iter()
            .map(tick_label)
            .collect();
        assert_eq!(labels, ["0", "0.5", "1", "1.5", "2", "2.5"]);
    }
}
