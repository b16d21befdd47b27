//! Figures of a set of records, with intervals.
//!
//! [`Measurements`] keeps sums of records and forgets the records, so its memory is bounded however
//! many there are. Figures are exact; intervals come from at most [`MOST_BLOCKS`] sums, and quantiles
//! from at most `MOST_VALUES` values, which are all records up to that number.

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
