//! Uniform random numbers: keyed by position for lossless sampling, and as a plain stream.

/// Uniform random numbers that depend only on a seed and on the absolute position of the token they
/// choose.
///
/// The token at a position is chosen with the same number whatever was drafted, so sampled output
/// does not depend on the drafter.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PositionUniforms {
    seed: u64,
}

const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

impl PositionUniforms {
    /// Creates the numbers of `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// Returns the seed.
    #[must_use]
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// Returns the number in `[0, 1)`, with 53 random bits, for the token at `position` (0 is the
    /// first token of the prompt).
    #[must_use]
    pub fn at(&self, position: usize) -> f64 {
        // SplitMix64 as a counter-based generator. Mixing the seed first gives neighbouring seeds
        // unrelated sequences.
        let start = mix(self.seed ^ 0xD1B5_4A32_D192_ED03);
        let counter = (position as u64).wrapping_add(1).wrapping_mul(GAMMA);
        to_unit(mix(start.wrapping_add(counter)))
    }
}

/// A stream of uniform random numbers (SplitMix64).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UniformStream {
    state: u64,
}

impl UniformStream {
    /// Creates the stream of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            state: mix(seed ^ 0x2545_F491_4F6C_DD1D),
        }
    }

    /// Returns the next 64 random bits.
    pub(crate) fn next_bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GAMMA);
        mix(self.state)
    }

    /// Returns the next number, in `[0, 1)` with 53 random bits.
    pub fn next_uniform(&mut self) -> f64 {
        to_unit(self.next_bits())
    }
}

/// Finaliser of SplitMix64 (Steele, Lea, Flood 2014).
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

fn to_unit(bits: u64) -> f64 {
    (bits >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
}
