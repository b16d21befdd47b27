//! The interface between a linear layer and an instruction set: the operations that each
//! instruction set and weight dtype implement, and their arguments (job, block of inputs, tile of
//! sums).

use std::ops::Range;

use half::{bf16, f16};

use crate::scratch::Plain;
use crate::weight::Weight;

/// Sizes of the tiles of sums (weight rows x rows of `x`) that fit into registers without spilling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "each target uses some of them")]
pub(crate) enum Tiles {
    /// 16 registers, 12 of them for sums.
    Narrow,
    /// 16 registers, some of them needed for widening.
    NarrowWidening,
    /// 32 registers, 24 of them for sums.
    Wide,
}

impl Tiles {
    /// Returns the maximum number of rows of `x` in a tile.
    pub(crate) fn max_rows(self) -> usize {
        match self {
            Self::Narrow => 4,
            Self::NarrowWidening => 5,
            Self::Wide => 8,
        }
    }

    /// Returns the maximum size in bytes of rows of `x` that are processed one tile after the other
    /// per weight row. This is what the nearest cache holds beside the weights, or the second-level
    /// cache if tiles load rows of `x` rarely enough.
    pub(crate) fn few_bytes(self) -> usize {
        match self {
            Self::Narrow | Self::NarrowWidening => 28 << 10,
            Self::Wide => 56 << 10,
        }
    }

    /// Returns the maximum number of sums in a tile.
    pub(crate) fn max_sums(self) -> usize {
        match self {
            Self::Narrow | Self::NarrowWidening => 12,
            Self::Wide => 24,
        }
    }

    /// Returns the number of weight rows in a tile with `rows` rows of `x`.
    pub(crate) fn height(self, rows: usize) -> usize {
        match (self, rows) {
            (Self::Narrow, 2) => 6,
            (Self::Narrow, 4) | (Self::NarrowWidening, 3) | (Self::Wide, 7..) => 3,
            (Self::NarrowWidening, 4..) => 2,
            _ => 4,
        }
    }
}

/// An element type of weights in memory.
pub(crate) trait Stored: Copy + Send + Sync + 'static {
    /// Returns the elements of a weight of this dtype, or `None` for other dtypes.
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
/// Each output element owns one [`Dot::Sum`]. Steps extend it in ascending order of inputs, and
/// phase by phase within a step, independent of the surrounding tile. This fixed order makes the
/// layer batch-invariant.
pub(crate) trait Dot: Sized + 'static {
    /// Element type of the weight in memory.
    type Weight: Stored;
    /// Element type of a packed row of `x`.
    type Input: Plain;
    /// Register of partial sums of one output element.
    type Sum: Copy;
    /// Register of widened weights, or of the matching inputs.
    type Lanes: Copy;

    /// Number of weights per step. Packed rows are padded with zeros to a multiple of it.
    const STEP: usize;
    /// Number of registers per step.
    const PHASES: usize;
    /// Number of inputs per block when there are enough rows to keep a block in the nearest caches.
    const BLOCK: usize;
    /// The tiles of sums that fit into the registers.
    const TILES: Tiles;
    /// The cache into which weights are prefetched if they are used once.
    const FETCH: Cache;

    /// Converts and permutes one row of `x` into `packed`, padded with zeros.
    ///
    /// `packed` has `x.len()` elements, rounded up to a multiple of [`Dot::STEP`].
    ///
    /// # Safety
    /// The CPU must support the instruction set.
    unsafe fn pack(x: &[f32], packed: &mut [Self::Input]);

    /// Calls [`super::tile::extend`], compiled for the instruction set.
    ///
    /// # Safety
    /// The CPU must support the instruction set. See also [`super::tile::extend`].
    unsafe fn extend<const HEIGHT: usize, const ROWS: usize>(
        job: &Job<'_, Self>,
        block: &Block,
        tile: &Tile,
        sums: *mut Self::Sum,
    );

    /// Returns a zero sum.
    ///
    /// # Safety
    /// The CPU must support the instruction set.
    unsafe fn zero() -> Self::Sum;

    /// Returns the weights of one phase of the step that starts at `weight`.
    ///
    /// # Safety
    /// [`Dot::STEP`] weights must be readable at `weight`.
    unsafe fn weights(weight: *const Self::Weight, phase: usize) -> Self::Lanes;

    /// Returns the packed inputs of one phase of the step that starts at `input`.
    ///
    /// # Safety
    /// [`Dot::STEP`] packed inputs must be readable at `input`.
    unsafe fn inputs(input: *const Self::Input, phase: usize) -> Self::Lanes;

    /// Adds the products of weights and inputs to a sum.
    ///
    /// # Safety
    /// The CPU must support the instruction set.
    unsafe fn fuse(sum: Self::Sum, weights: Self::Lanes, inputs: Self::Lanes) -> Self::Sum;

    /// Returns the totals over all lanes of four sums, each in the same fixed order.
    ///
    /// # Safety
    /// The CPU must support the instruction set.
    unsafe fn totals(sums: [Self::Sum; 4]) -> [f32; 4];
}

/// One linear layer with its packed rows, lengths checked.
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
    /// Bias, added to each row.
    pub(crate) bias: Option<&'a [f32]>,
    /// `out[rows, outputs]`; each thread writes only its own outputs.
    pub(crate) out: *mut f32,
}

// SAFETY: the slices are shared read-only, and `out` is written at disjoint places: `run` requires
// disjoint ranges of outputs from concurrent calls.
unsafe impl<D: Dot> Sync for Job<'_, D> {}

impl<D: Dot> Job<'_, D> {
    /// Writes one output element.
    ///
    /// # Safety
    /// `row` and `output` must be in range, and `output` must belong to the calling thread.
    #[inline(always)]
    pub(crate) unsafe fn write(&self, row: usize, output: usize, total: f32) {
        let total = match self.bias {
            Some(bias) => total + bias[output],
            None => total,
        };
        // SAFETY: in range, as guaranteed by the caller.
        unsafe { *self.out.add(row * self.outputs + output) = total };
    }
}

/// A block of inputs, and what to prefetch meanwhile.
pub(crate) struct Block {
    /// First input.
    pub(crate) start: usize,
    /// Number of whole steps.
    pub(crate) steps: usize,
    /// Number of weights after the whole steps; nonzero only in the last block.
    pub(crate) tail: usize,
    /// Whether this is the last block, after which the totals are written.
    pub(crate) last: bool,
    /// Distance from the current weight to the one to prefetch.
    pub(crate) ahead: usize,
    /// The cache to prefetch into.
    pub(crate) fetch: Cache,
}

/// A tile of sums: some weight rows by some rows of `x`.
pub(crate) struct Tile {
    /// First row.
    pub(crate) row: usize,
    /// First output.
    pub(crate) output: usize,
    /// Distance from one output to the next.
    pub(crate) apart: usize,
    /// The steps at which to prefetch.
    pub(crate) fetch: Range<usize>,
}

/// The cache that a line is prefetched into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cache {
    /// The nearest cache: for weights that take as long to use as to fetch.
    First,
    /// The second-level cache. It has room for data that is not needed immediately, and can have
    /// more outstanding lines. Wide registers use weights faster than memory delivers them, and
    /// prefetches into the nearest cache would delay their loads.
    Second,
}

/// Hints that the cache line at `address` is needed soon. Any address is valid.
#[inline(always)]
pub(crate) fn prefetch<T>(cache: Cache, address: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint that never faults; SSE is part of x86-64.
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
