//! Linear layers in plain Rust: eight lanes in an array, multiply then add.

use half::{bf16, f16};

use super::dot::{Block, Cache, Dot, Job, Stored, Tile, Tiles};
use super::tile::extend;

/// A dtype that widens to `f32`.
pub(crate) trait Widen: Stored {
    /// Returns the value in 32 bits.
    fn widen(self) -> f32;
}

impl Widen for f32 {
    fn widen(self) -> f32 {
        self
    }
}

impl Widen for bf16 {
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

impl Widen for f16 {
    fn widen(self) -> f32 {
        self.to_f32()
    }
}

/// Portable dot products with weights of type `W`.
pub(crate) struct Portable<W>(std::marker::PhantomData<W>);

const LANES: usize = 8;

impl<W: Widen> Dot for Portable<W> {
    type Weight = W;
    type Input = f32;
    type Sum = [f32; LANES];
    type Lanes = [f32; LANES];

    const STEP: usize = LANES;
    const PHASES: usize = 1;
    const BLOCK: usize = 512;
    const TILES: Tiles = Tiles::Narrow;
    const FETCH: Cache = Cache::First;

    unsafe fn pack(x: &[f32], packed: &mut [f32]) {
        packed[..x.len()].copy_from_slice(x);
        packed[x.len()..].fill(0.0);
    }

    unsafe fn extend<const HEIGHT: usize, const ROWS: usize>(
        job: &Job<'_, Self>,
        block: &Block,
        tile: &Tile,
        sums: *mut Self::Sum,
    ) {
        // SAFETY: upheld by the caller; portable code runs everywhere.
        unsafe { extend::<Self, HEIGHT, ROWS>(job, block, tile, sums) };
    }

    #[inline(always)]
    unsafe fn zero() -> [f32; LANES] {
        [0.0; LANES]
    }

    #[inline(always)]
    unsafe fn weights(weight: *const W, _phase: usize) -> [f32; LANES] {
        // SAFETY: the caller guarantees `STEP` readable weights; an array has the alignment of its
        // elements.
        unsafe { weight.cast::<[W; LANES]>().read() }.map(W::widen)
    }

    #[inline(always)]
    unsafe fn inputs(input: *const f32, _phase: usize) -> [f32; LANES] {
        // SAFETY: the caller guarantees `STEP` readable inputs; an array has the alignment of its
        // elements.
        unsafe { input.cast::<[f32; LANES]>().read() }
    }

    #[inline(always)]
    unsafe fn fuse(
        mut sum: [f32; LANES],
        weights: [f32; LANES],
        inputs: [f32; LANES],
    ) -> [f32; LANES] {
        for ((sum, weight), input) in sum.iter_mut().zip(weights).zip(inputs) {
            *sum += weight * input;
        }
        sum
    }

    #[inline(always)]
    unsafe fn totals(sums: [[f32; LANES]; 4]) -> [f32; 4] {
        sums.map(|s| ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7])))
    }
}
