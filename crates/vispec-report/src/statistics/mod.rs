//! Figures of a set of records, with intervals.
//!
//! [`Measurements`] keeps sums over records and discards the records, so its memory is bounded for
//! any number of records. Figures are exact. Intervals come from at most [`MOST_BLOCKS`] sums, and
//! quantiles from at most `MOST_VALUES` values; up to these numbers, all records are kept.

mod acceptance;
mod bins;
mod blocks;
mod divergences;
mod estimate;
mod measurements;
mod phases;
mod quantile;
mod subset;

pub use acceptance::Acceptance;
pub use bins::{ImageBin, ImageBins};
pub use blocks::{Blocks, MOST_BLOCKS};
pub use divergences::Divergences;
pub use estimate::{Estimate, Estimates, SpeedUp, tau_difference};
pub use measurements::{Measurements, Sample};
pub use phases::PhaseShares;
pub use quantile::quantile;
pub use subset::Subset;
