//! numpy's default generator: PCG-64 with the XSL-RR output (O'Neill 2014).

use super::seed_sequence::generate_state;

const MULTIPLIER: u128 = 0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645;

pub(super) struct Pcg64 {
    state: u128,
    increment: u128,
    /// Upper half of the last 64-bit output, which the next 32-bit request uses.
    half: Option<u32>,
}

impl Pcg64 {
    /// `numpy.random.PCG64(seed)`.
    pub(super) fn new(seed: u64) -> Self {
        let [state_high, state_low, sequence_high, sequence_low] = generate_state(seed);
        let join = |high: u64, low: u64| u128::from(high) << 64 | u128::from(low);
        let increment = join(sequence_high, sequence_low) << 1 | 1;
        let mut generator = Self {
            state: 0,
            increment,
            half: None,
        };
        generator.step();
        generator.state = generator.state.wrapping_add(join(state_high, state_low));
        generator.step();
        generator
    }

    /// Returns a uniform integer in `0..=max`, like numpy's `random_interval`: masked bits,
    /// repeated until the number is not too large.
    pub(super) fn at_most(&mut self, max: u64) -> u64 {
        if max == 0 {
            return 0;
        }
        let mask = u64::MAX >> max.leading_zeros();
        loop {
            let value = if max <= u64::from(u32::MAX) {
                u64::from(self.next_u32())
            } else {
                self.next_u64()
            } & mask;
            if value <= max {
                return value;
            }
        }
    }

    fn step(&mut self) {
        self.state = self
            .state
            .wrapping_mul(MULTIPLIER)
            .wrapping_add(self.increment);
    }

    fn next_u64(&mut self) -> u64 {
        self.step();
        let folded = (self.state >> 64) as u64 ^ self.state as u64;
        folded.rotate_right((self.state >> 122) as u32)
    }

    fn next_u32(&mut self) -> u32 {
        if let Some(half) = self.half.take() {
            return half;
        }
        let both = self.next_u64();
        self.half = Some((both >> 32) as u32);
        both as u32
    }
}
