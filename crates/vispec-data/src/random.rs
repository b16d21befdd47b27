//! Random numbers keyed by seed and index: SplitMix64 (Steele, Lea and Flood 2014).

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// A stream of random numbers that depends only on its key.
#[derive(Debug, Clone)]
pub(crate) struct KeyedRandom {
    state: u64,
}

impl KeyedRandom {
    /// Returns the stream of one scene or picture. `purpose` separates the numbers for drawing from
    /// those for questions, so that a change of one leaves the other unchanged.
    pub(crate) fn new(seed: u64, index: u64, purpose: u64) -> Self {
        let mut state = 0;
        for word in [seed, index, purpose] {
            state = mixed(state ^ mixed(word.wrapping_add(GOLDEN)));
        }
        Self { state }
    }

    /// Returns a number in `0..n`, or 0 if `n` is 0. The bias of at most n / 2^64 does not matter
    /// here.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.state = self.state.wrapping_add(GOLDEN);
        let product = u128::from(mixed(self.state)) * n as u128;
        (product >> 64) as usize
    }

    /// Returns one of the items.
    pub(crate) fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }
}

fn mixed(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
