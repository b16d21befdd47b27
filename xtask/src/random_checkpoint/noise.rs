//! Normally distributed bf16 numbers from a counter-based generator.

use std::f32::consts::TAU;

use half::bf16;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

/// The usual standard deviation of initial weights, which keeps activations finite at any depth.
pub(super) const DEVIATION: f32 = 0.02;
/// Number of bytes that a thread fills at a time.
const CHUNK: usize = 1 << 20;
/// Increment of the counter: odd, with well distributed bits.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Generates random weights.
pub(super) struct Noise {
    /// The bf16 bits of the number for each value of 16 random bits.
    table: Vec<u16>,
    seed: u64,
}

impl Noise {
    pub(super) fn new(seed: u64) -> Self {
        let table = (0..=u16::MAX).map(|bits| number(bits).to_bits()).collect();
        Self { table, seed }
    }

    /// Generates little-endian numbers for the tensor `name`. The result depends only on name and
    /// seed, not on the number of threads.
    pub(super) fn bytes(&self, name: &str, len: usize) -> Vec<u8> {
        let key = self.key(name);
        let mut bytes = vec![0; 2 * len];
        let chunks = bytes.par_chunks_mut(CHUNK).enumerate();
        chunks.for_each(|(idx, chunk)| {
            let counters = (idx * CHUNK / 8) as u64..;
            for (counter, word) in counters.zip(chunk.chunks_mut(8)) {
                let four = self.four(mix(key.wrapping_add(counter.wrapping_mul(STEP))));
                word.copy_from_slice(&four.to_le_bytes()[..word.len()]);
            }
        });
        bytes
    }

    fn key(&self, name: &str) -> u64 {
        let digest = Sha256::new()
            .chain_update(self.seed.to_le_bytes())
            .chain_update(name)
            .finalize();
        digest
            .iter()
            .take(8)
            .fold(0, |key, byte| key << 8 | u64::from(*byte))
    }

    /// Returns four numbers packed into a word. The loop is unrolled by hand because xtask is built
    /// without optimisation and this fills gigabytes.
    fn four(&self, bits: u64) -> u64 {
        let table = &self.table;
        u64::from(table[(bits & 0xffff) as usize])
            | u64::from(table[(bits >> 16 & 0xffff) as usize]) << 16
            | u64::from(table[(bits >> 32 & 0xffff) as usize]) << 32
            | u64::from(table[(bits >> 48) as usize]) << 48
    }
}

/// Applies the Box-Muller transform to the two halves of `bits`.
fn number(bits: u16) -> bf16 {
    let unit = |byte: u8| (f32::from(byte) + 0.5) / 256.0;
    let [low, high] = bits.to_le_bytes();
    let radius = (-2.0 * unit(low).ln()).sqrt();
    bf16::from_f32(DEVIATION * radius * (TAU * unit(high)).cos())
}

/// The finaliser of SplitMix64.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_spread_normally_and_depend_on_name_and_seed() {
        let len = 100_001;
        let bytes = Noise::new(1).bytes("a", len);
        assert_eq!(bytes.len(), 2 * len);
        let values: Vec<f32> = bytes
            .chunks_exact(2)
            .map(|pair| bf16::from_le_bytes([pair[0], pair[1]]).to_f32())
            .collect();
        let mean = values.iter().sum::<f32>() / len as f32;
        let square = values.iter().map(|value| value * value).sum::<f32>() / len as f32;
        assert!(mean.abs() < 5e-4, "mean {mean}");
        assert!((square.sqrt() / DEVIATION - 1.0).abs() < 0.02, "{square}");
        let within = values.iter().filter(|v| v.abs() < DEVIATION).count();
        assert!((within as f32 / len as f32 - 0.683).abs() < 0.01);

        assert_eq!(bytes, Noise::new(1).bytes("a", len));
        assert_ne!(bytes, Noise::new(1).bytes("b", len));
        assert_ne!(bytes, Noise::new(2).bytes("a", len));
    }
}
