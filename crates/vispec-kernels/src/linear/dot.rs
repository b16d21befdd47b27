//! What an instruction set and a weight's dtype contribute to a linear layer, and what they are given:
//! the job, a block of inputs, a tile of sums.

use std::ops::Range;

use half::{bf16, f16};

use crate::scratch::Plain;
use crate::weight::Weight;

/// Sizes of the tiles of sums (weight rows x rows of `x`) that registers hold without spilling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "each target uses some of them")]
pub(crate) enum Tiles {
    /// 16 registers, 12 of them sums.
    Narrow,
    /// 16 registers, some of which widening takes.
    NarrowWidening,
    /// 32 registers, 24 of them sums.
    Wide,
}

impl Tiles {
    /// Most rows of `x` in a tile.
    pub(crate) fn max_rows(self) -> usize {
        match self {
            Self::Narrow => 4,
            Self::NarrowWidening => 5,
            Self::Wide => 8,
        }
    }

    /// Most bytes of rows of `x` that weights meet one tile after the other: what the nearest cache
    /// holds beside the weights, or, if a tile asks for few of them in its time, the next one.
    pub(crate) fn few_bytes(self) -> usize {
        match self {
            Self::Narrow | Self::NarrowWidening => 28 << 10,
            Self::Wide => 56 << 10,
        }
    }

    /// Most sums of a tile.
    pub(crate) fn max_sums(self) -> usize {
        match self {
            Self::Narrow | Self::NarrowWidening => 12,
            Self::Wide => 24,
        }
    }

    /// Weight rows of a tile with so many rows of `x`.
    pub(crate) fn height(self, rows: usize) -> usize {
        match (self, rows) {
            (Self::Narrow, 2) => 6,
            (Self::Narrow, 4) | (Self::NarrowWidening, 3) | (Self::Wide, 7..) => 3,
            (Self::NarrowWidening, 4..) => 2,
            _ => 4,
        }
    }
}

/// A dtype of weights in memory.
pub(crate) trait Stored: Copy + Send + Sync + 'static {
    /// The elements of a weight of this dtype.
    fn of<'a>(weight: &Weight<'a>) -> Option<&'a [Self]>;
}

/// Implements [`Stored`] for the element type of a kind of weight.
macro_rules! stored {
    ($($element:ty, $kind:ident);+) => {
        $(impl Stored for $element {
            fn of<'a>(weight: &Weight<'a>) -> Option<&'a [Self]> {
                match weight {
                    Weight::$kind(values) => Some(values),
                    _ => None,
                }
            }
        })+
    };
}

stored!(f32, F32; bf16, Bf16; f16, F16);

/// Dot products of weight rows with packed rows of `x`, one step of [`Dot::STEP`] at a time.
///
/// Each output element owns one [`Dot::Sum`]: steps extend it in ascending order of inputs,
/// and within a step phase by phase, whatever the tile around it. That fixed order is what
/// makes the layer batch-invariant.
pub(crate) trait Dot: Sized + 'static {
    /// Element of the weight in memory.
    type Weight: Stored;
    /// Element of a packed row of `x`.
    type Input: Plain;
    /// Register of partial sums of one output element.
    type Sum: Copy;
    /// Register of widened weights, or of inputs to match.
    type Lanes: Copy;

    /// Weights per step; a packed row is padded with zeros to a multiple of it.
    const STEP: usize;
    /// Registers per step.
    const PHASES: usize;
    /// Inputs per block when rows are so many that a block should stay in the nearest caches.
    const BLOCK: usize;
    /// Which tiles of sums the registers hold.
    const TILES: Tiles;
    /// Where weights are prefetched to if they are used once.
    const FETCH: Cache;

    /// Converts and permutes one row of `x` into `packed`, padding with zeros.
    ///
    /// `packed` holds `x.len()` elements rounded up to a multiple of [`Dot::STEP`].
    ///
    /// # Safety
    /// The machine must support the instruction set.
    unsafe fn pack(x: &[f32], packed: &mut [Self::Input]);

    /// [`super::tile::extend`], compiled for the instruction set.
    ///
    /// # Safety
    /// The machine must support it; see also [`super::tile::extend`].
    unsafe fn extend<const HEIGHT: usize, const ROWS: usize>(
        job: &Job<'_, Self>,
        block: &Block,
        tile: &Tile,
        sums: *mut Self::Sum,
    );

    /// A zero sum.
    ///
    /// # Safety
    /// The machine must support the instruction set.
    unsafe fn zero() -> Self::Sum;

    /// Weights of one phase of the step that starts at `weight`.
    ///
    /// # Safety
    /// [`Dot::STEP`] weights must be readable at `weight`.
    unsafe fn weights(weight: *const Self::Weight, phase: usize) -> Self::Lanes;

    /// Packed inputs of one phase of the step that starts at `input`.
    ///
    /// # Safety
    /// [`Dot::STEP`] packed inputs must be readable at `input`.
    unsafe fn inputs(input: *const Self::Input, phase: usize) -> Self::Lanes;

    /// Adds the products of weights and inputs to a sum.
    ///
    /// # Safety
    /// The machine must support the instruction set.
    unsafe fn fuse(sum: Self::Sum, weights: Self::Lanes, inputs: Self::Lanes) -> Self::Sum;

    /// The totals over all lanes of four sums, each in the same fixed order.
    ///
    /// # Safety
    /// The machine must support the instruction set.
    unsafe fn totals(sums: [Self::Sum; 4]) -> [f32; 4];
}

/// Rows of one linear layer, packed and checked.
pub(crate) struct Job<'a, D: Dot> {
    /// Packed `x[rows, stride]`.
    pub(crate) x: &'a [D::Input],
    /// Packed inputs per row: `inputs` rounded up to whole steps.
    pub(crate) stride: usize,
    /// Rows of `x`.
    pub(crate) rows: usize,
    /// `weight[outputs, inputs]`.
    pub(crate) weight: &'a [D::Weight],
    /// Weights per output.
    pub(crate) inputs: usize,
    /// Outputs of the layer: the row length of `out`.
    pub(crate) outputs: usize,
    /// Added to each row.
    pub(crate) bias: Option<&'a [f32]>,
    /// `out[rows, outputs]`, of which each thread writes its own outputs only.
    pub(crate) out: *mut f32,
}

// SAFETY: the slices are shared read-only, and `out` is written at disjoint places: `run` asks
// that concurrent calls get disjoint ranges of outputs.
unsafe impl<D: Dot> Sync for Job<'_, D> {}

impl<D: Dot> Job<'_, D> {
    /// Writes one output element.
    ///
    /// # Safety
    /// `row` and `output` must be in range, and `output` belong to the calling thread.
    #[inline(always)]
    pub(crate) unsafe fn write(&self, row: usize, output: usize, total: f32) {
        let total = match self.bias {
            Some(bias) => total + bias[output],
            None => total,
        };
        // SAFETY: in range by the caller's promise.
        unsafe { *self.out.add(row * self.outputs + output) = total };
    }
}

/// A block of inputs, and what to ask memory for meanwhile.
pub(crate) struct Block {
    /// First input.
    pub(crate) start: usize,
    /// Whole steps.
    pub(crate) steps: usize,
    /// Weights left after the whole steps; only in the last block.
    pub(crate) tail: usize,
    /// Whether sums end here.
    pub(crate) last: bool,
    /// From the weight at hand to the one to prefetch.
    pub(crate) ahead: usize,
    /// Where that one is prefetched to.
    pub(crate) fetch: Cache,
}

/// A tile of sums: some weight rows by some rows of `x`.
pub(crate) struct Tile {
    /// First row.
    pub(crate) row: usize,
    /// First output.
    pub(crate) output: usize,
    /// From one output to the next.
    pub(crate) apart: usize,
    /// The steps at which to prefetch.
    pub(crate) fetch: Range<usize>,
}

/// Where a line is prefetched to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cache {
    /// The nearest one: for weights that take as long to use as to fetch.
    First,
    /// The next one, which has room for what is not needed at once, and can wait for more lines at a
    /// time: wide registers use weights faster than memory gives them, and the nearest cache would
    /// hold up their loads.
    Second,
}

/// Hints that the cache line at `address` is needed soon; any address is fine.
#[inline(always)]
pub(crate) fn prefetch<T>(cache: Cache, address: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: prefetching is a hint, which never faults; SSE is part of x86-64.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
        match cache {
            Cache::First => _mm_prefetch::<_MM_HINT_T0>(address.cast()),
            Cache::Second => _mm_prefetch::<_MM_HINT_T1>(address.cast()),
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (cache, address);
}
