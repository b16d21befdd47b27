//! Acceptance by number of image tokens.

use std::collections::BTreeMap;

use super::{Blocks, Estimate, Estimates, Sample};

/// Records with a similar number of image tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageBin {
    /// Smallest number of image tokens in the bin.
    pub from: u32,
    /// Largest number of image tokens in the bin.
    pub to: u32,
    /// Mean number of image tokens of the records.
    pub mean_image_tokens: f64,
    /// Number of records.
    pub records: usize,
    /// Accepted draft tokens per cycle, pooled over records, with its interval.
    pub tau: Estimate,
}

/// Records binned by number of image tokens. The bins double in width: 0, 1 to 15, 16 to 31, 32 to
/// 63, and so on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ImageBins {
    bins: BTreeMap<usize, Bin>,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Bin {
    image_tokens: u64,
    blocks: Blocks,
}

impl ImageBins {
    /// Adds a record.
    pub fn add(&mut self, sample: &Sample) {
        let bin = self.bins.entry(bin_of(sample.image_tokens)).or_default();
        bin.image_tokens += u64::from(sample.image_tokens);
        bin.blocks.add(sample);
    }

    /// Adds the records of another set.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (&place, other) in &other.bins {
            let bin = self.bins.entry(place).or_default();
            bin.image_tokens += other.image_tokens;
            bin.blocks.merge(&other.blocks);
        }
    }

    /// Returns the figures of each bin with records, by ascending number of image tokens.
    #[must_use]
    pub fn figures(&self) -> Vec<ImageBin> {
        let bins = self.bins.iter();
        bins.map(|(&place, bin)| {
            let (from, to) = range(place);
            let records = bin.blocks.records();
            ImageBin {
                from,
                to,
                mean_image_tokens: bin.image_tokens as f64 / records as f64,
                records,
                tau: Estimates::of(&bin.blocks).tau,
            }
        })
        .collect()
    }
}

/// Returns the bin: 0 for no image, 1 below 16 tokens, and one more with each doubling.
fn bin_of(image_tokens: u32) -> usize {
    match image_tokens {
        0 => 0,
        1..16 => 1,
        _ => image_tokens.ilog2() as usize - 2,
    }
}

fn range(bin: usize) -> (u32, u32) {
    match bin {
        0 => (0, 0),
        1 => (1, 15),
        _ => {
            let from = 1_u32 << (bin + 2);
            (from, from - 1 + from)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_in_its_bin() {
        for tokens in [0, 1, 15, 16, 31, 32, 576, 2880, u32::MAX] {
            let (from, to) = range(bin_of(tokens));
            assert!((from..=to).contains(&tokens), "{tokens}");
        }
    }
}
