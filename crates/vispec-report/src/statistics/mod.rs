//! Figures of a set of records, with intervals.
//!
//! [`Measurements`] keeps nine numbers per record (56 bytes, so 6 MB for 100,000 records) and
//! forgets the rest; tokens and cycles are counted and dropped. Quantiles are therefore exact.

mod acceptance;
mod bins;
mod estimate;
mod measurements;
mod quantile;

pub use acceptance::Acceptance;
pub use bins::{ImageBin, by_image_tokens};
pub use estimate::{Estimate, Estimates, RESAMPLES, SpeedUp};
pub use measurements::{DivergencePoint, Measurements, PhaseShares, Sample};
pub use quantile::quantile;
