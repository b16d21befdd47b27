//! numpy's `SeedSequence`: expands a seed to the state of a generator.

/// Number of words of the pool, numpy's default.
const POOL: usize = 4;

const INIT_A: u32 = 0x43b0_d7e5;
const MULT_A: u32 = 0x931e_8875;
const INIT_B: u32 = 0x8b51_f9dd;
const MULT_B: u32 = 0x58f3_8ded;
const MIX_LEFT: u32 = 0xca01_f9dd;
const MIX_RIGHT: u32 = 0x4973_f715;
const SHIFT: u32 = 16;

/// `SeedSequence(seed).generate_state(N, uint64)`.
pub(super) fn generate_state<const N: usize>(seed: u64) -> [u64; N] {
    let pool = mixed_pool(seed);
    let mut constant = INIT_B;
    let mut words = pool.iter().cycle();
    let mut next_word = || {
        let mut word = words.next().copied().unwrap_or_default() ^ constant;
        constant = constant.wrapping_mul(MULT_B);
        word = word.wrapping_mul(constant);
        u64::from(word ^ (word >> SHIFT))
    };
    std::array::from_fn(|_| {
        let low = next_word();
        low | (next_word() << 32)
    })
}

fn mixed_pool(seed: u64) -> [u32; POOL] {
    // The seed as 32-bit words, lowest first; numpy drops leading zeros, but hashes missing words
    // as zero anyway.
    let mut pool = [seed as u32, (seed >> 32) as u32, 0, 0];
    let mut constant = INIT_A;
    let mut hash = |mut value: u32| {
        value ^= constant;
        constant = constant.wrapping_mul(MULT_A);
        value = value.wrapping_mul(constant);
        value ^ (value >> SHIFT)
    };
    for word in &mut pool {
        *word = hash(*word);
    }
    for source in 0..POOL {
        for target in 0..POOL {
            if source != target {
                pool[target] = mix(pool[target], hash(pool[source]));
            }
        }
    }
    pool
}

fn mix(left: u32, right: u32) -> u32 {
    let mixed = MIX_LEFT
        .wrapping_mul(left)
        .wrapping_sub(MIX_RIGHT.wrapping_mul(right));
    mixed ^ (mixed >> SHIFT)
}
