//! Quantiles.

/// Returns the `q`-quantile of sorted values, interpolated linearly between order statistics (type
/// 7 of Hyndman and Fan, numpy's default). Returns `None` without values.
#[must_use]
pub fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let place = q.clamp(0.0, 1.0) * last as f64;
    let below = place.floor() as usize;
    let above = sorted[(below + 1).min(last)];
    Some(sorted[below] + (above - sorted[below]) * place.fract())
}
