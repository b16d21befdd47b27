//! CPython's generator: MT19937 (Matsumoto and Nishimura 1998), seeded like `random.seed`.

const N: usize = 624;
const M: usize = 397;

pub(super) struct MersenneTwister {
    state: [u32; N],
    next: usize,
}

impl MersenneTwister {
    /// `random.seed(seed)`: passes the seed as 32-bit words, lowest first, to `init_by_array`.
    pub(super) fn new(seed: u64) -> Self {
        let words = [seed as u32, (seed >> 32) as u32];
        let key = if words[1] == 0 {
            &words[..1]
        } else {
            &words[..]
        };
        Self {
            state: initial_state(key),
            next: N,
        }
    }

    /// `random._randbelow(n)`: draws as many bits as `n` has until the number is below `n`.
    pub(super) fn below(&mut self, n: usize) -> usize {
        let n_bits = usize::BITS - n.leading_zeros();
        loop {
            let number = self.bits(n_bits);
            if number < n as u64 {
                return number as usize;
            }
        }
    }

    /// `random.getrandbits(n_bits)` for up to 64 bits: low words first; a word that is only partly
    /// needed contributes its upper bits.
    fn bits(&mut self, n_bits: u32) -> u64 {
        match n_bits {
            0 => 0,
            1..=32 => u64::from(self.next_u32() >> (32 - n_bits)),
            _ => {
                let low = u64::from(self.next_u32());
                low | u64::from(self.next_u32() >> (64 - n_bits)) << 32
            }
        }
    }

    fn next_u32(&mut self) -> u32 {
        if self.next == N {
            self.renew();
        }
        let mut word = self.state[self.next];
        self.next += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        word ^ (word >> 18)
    }

    fn renew(&mut self) {
        for idx in 0..N {
            let joined =
                (self.state[idx] & 0x8000_0000) | (self.state[(idx + 1) % N] & 0x7fff_ffff);
            let odd = if joined & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[idx] = self.state[(idx + M) % N] ^ (joined >> 1) ^ odd;
        }
        self.next = 0;
    }
}

/// `init_by_array` of the reference implementation.
fn initial_state(key: &[u32]) -> [u32; N] {
    let mut state = [0u32; N];
    state[0] = 19_650_218;
    for idx in 1..N {
        state[idx] = scrambled(state[idx - 1])
            .wrapping_mul(1_812_433_253)
            .wrapping_add(idx as u32);
    }
    let mut idx = 1;
    let wrap = |state: &mut [u32; N], idx: &mut usize| {
        *idx += 1;
        if *idx == N {
            state[0] = state[N - 1];
            *idx = 1;
        }
    };
    for turn in 0..N.max(key.len()) {
        let place = turn % key.len();
        state[idx] = (state[idx] ^ scrambled(state[idx - 1]).wrapping_mul(1_664_525))
            .wrapping_add(key[place])
            .wrapping_add(place as u32);
        wrap(&mut state, &mut idx);
    }
    for _ in 1..N {
        state[idx] = (state[idx] ^ scrambled(state[idx - 1]).wrapping_mul(1_566_083_941))
            .wrapping_sub(idx as u32);
        wrap(&mut state, &mut idx);
    }
    state[0] = 0x8000_0000;
    state
}

fn scrambled(word: u32) -> u32 {
    word ^ (word >> 30)
}
