//! Random numbers that are the same everywhere: SplitMix64.
//!
//! Intervals are part of published reports, so they must not change with a dependency. The
//! generator is also short enough to be reimplemented in the script that checks the intervals.

/// The generator of Steele, Lea and Flood (2014).
#[derive(Debug, Clone)]
pub(crate) struct SplitMix64 {
    state: u64,
}

impl SplitMix64 {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    pub(crate) fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.state)
    }

    /// Returns a number below `bound`: the upper half of a product with 32 random bits, whose bias
    /// is below `bound / 2^32`.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        let bits = self.next_u64() >> 32;
        ((bits * u64::from(bound)) >> 32) as u32
    }

    /// Returns a number in `[0, 1)`.
    #[cfg(feature = "synthetic")]
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Mixes a number bijectively, so that every bit of the result depends on all bits of the input.
pub(crate) fn mixed(number: u64) -> u64 {
    let mut mixed = number;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Returns the FNV-1a hash of a name and a seed.
pub(crate) fn hashed(name: &[u8], seed: u64) -> u64 {
    let bytes = name.iter().copied().chain(seed.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
