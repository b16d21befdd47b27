//! Acceptance by number of image tokens.

use super::{Estimate, Estimates, Sample};

/// Records whose prompts have a similar number of image tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageBin {
    /// Fewest image tokens that fall in the bin.
    pub from: u32,
    /// Most image tokens that fall in the bin.
    pub to: u32,
    /// Mean image tokens of its records.
    pub mean_image_tokens: f64,
    /// Number of records.
    pub records: usize,
    /// Accepted tokens per cycle, pooled, with its interval.
    pub tau: Estimate,
}

/// Bins whose width doubles: 0, 1 to 15, 16 to 31, 32 to 63, ...; empty ones are left out.
#[must_use]
pub fn by_image_tokens(samples: &[Sample]) -> Vec<ImageBin> {
    let mut bins = vec![Vec::new(); 33];
    for sample in samples {
        bins[bin_of(sample.image_tokens)].push(*sample);
    }
    bins.iter()
        .enumerate()
        .filter(|(_, samples)| !samples.is_empty())
        .map(|(bin, samples)| {
            let tokens: f64 = samples.iter().map(|s| f64::from(s.image_tokens)).sum();
            let (from, to) = range(bin);
            ImageBin {
                from,
                to,
                mean_image_tokens: tokens / samples.len() as f64,
                records: samples.len(),
                tau: Estimates::of(samples).tau,
            }
        })
        .collect()
}

/// 0 for no image, 1 below 16 tokens, and one more with each doubling.
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
