//! The loops of a linear layer around the tile of registers: when each partial sum is extended.
//!
//! Few rows: weights stream from memory once, and each tile runs over all inputs. Many rows: a
//! block of inputs of a few weight rows and of up to [`ROW_BLOCK`] rows of `x` stays in the
//! nearest caches, and sums wait in a buffer from one block of inputs to the next. Both extend
//! a sum in the same order, so its bits are the same.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::dot::{Dot, Tiles};
use super::tile;

/// Weight rows of a block; every tile height divides it.
pub(crate) const OUTPUT_BLOCK: usize = 24;
/// Rows of `x` that share one pass over the weights.
pub(crate) const ROW_BLOCK: usize = 64;

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
    /// The steps at which to prefetch.
    pub(crate) fetch: Range<usize>,
    /// From the weight at hand to the one to prefetch; none if weights stream from memory.
    pub(crate) ahead: Option<usize>,
}

/// Works on `outputs` of a job.
///
/// # Safety
/// The machine must support the instruction set; the slices and `out` must fit the job's axes;
/// `outputs` must be in range; and no other thread may work on these outputs.
#[inline(always)]
pub(crate) unsafe fn run<D: Dot>(job: &Job<'_, D>, outputs: Range<usize>) {
    let mut sums = MaybeUninit::<[D::Sum; ROW_BLOCK * OUTPUT_BLOCK]>::uninit();
    let row_blocks = job.rows.div_ceil(ROW_BLOCK);
    for row_block in 0..row_blocks {
        let rows = share(job.rows, row_blocks, row_block);
        let tiles = rows.len().div_ceil(D::TILES.max_rows());
        let inputs = if tiles == 1 {
            job.inputs
        } else {
            // Blocks of one length: each prefetches as much as the next one needs.
            let blocks = job.inputs.div_ceil(D::BLOCK).max(1);
            job.inputs.div_ceil(blocks).next_multiple_of(D::STEP)
        };
        let inputs = inputs.max(1);
        let height = if tiles == 1 {
            outputs.len().max(1)
        } else {
            OUTPUT_BLOCK
        };
        for output in outputs.clone().step_by(height) {
            let outputs = output..outputs.end.min(output + height);
            for start in (0..job.inputs.max(1)).step_by(inputs) {
                let len = inputs.min(job.inputs - start);
                let last = start + len == job.inputs;
                let next = if last {
                    OUTPUT_BLOCK * job.inputs - start
                } else {
                    len
                };
                let ahead = (tiles > 1).then_some(next);
                let steps = len / D::STEP;
                for tile in 0..tiles {
                    let fetch = share(steps, tiles, tile);
                    let block = Block {
                        start,
                        steps,
                        tail: len % D::STEP,
                        last,
                        fetch,
                        ahead,
                    };
                    let tile = share(rows.len(), tiles, tile);
                    // SAFETY: rows, outputs and inputs are in range; the sums of a tile start at
                    // its first row times the outputs of a block, and end before the next tile's.
                    unsafe {
                        let sums = sums.as_mut_ptr().cast::<D::Sum>();
                        let sums = sums.add(tile.start * OUTPUT_BLOCK);
                        let tile = rows.start + tile.start..rows.start + tile.end;
                        row_tile(job, &tile, &outputs, &block, sums);
                    }
                }
            }
        }
    }
}

/// The `index`-th of `parts` nearly equal shares of `0..len`.
pub(super) fn share(len: usize, parts: usize, index: usize) -> Range<usize> {
    len * index / parts..len * (index + 1) / parts
}

/// Extends the sums of a tile's rows and of the `outputs` of a block.
///
/// # Safety
/// As for [`run`]; `sums` must have room for them.
#[inline(always)]
unsafe fn row_tile<D: Dot>(
    job: &Job<'_, D>,
    rows: &Range<usize>,
    outputs: &Range<usize>,
    block: &Block,
    sums: *mut D::Sum,
) {
    use Tiles::{Narrow, NarrowWidening, Wide};
    let row = rows.start;
    // SAFETY: the caller's promise; each height divides `OUTPUT_BLOCK`.
    unsafe {
        match (D::TILES, rows.len()) {
            (NarrowWidening, 2) => column::<D, 4, 2>(job, row, outputs, block, sums),
            (NarrowWidening, 3) => column::<D, 3, 3>(job, row, outputs, block, sums),
            (NarrowWidening, 4) => column::<D, 2, 4>(job, row, outputs, block, sums),
            (NarrowWidening, 5) => column::<D, 2, 5>(job, row, outputs, block, sums),
            (_, 1) => column::<D, 4, 1>(job, row, outputs, block, sums),
            (Narrow, 2) => column::<D, 6, 2>(job, row, outputs, block, sums),
            (Narrow, 3) => column::<D, 4, 3>(job, row, outputs, block, sums),
            (Narrow, 4) => column::<D, 3, 4>(job, row, outputs, block, sums),
            (Wide, 2) => column::<D, 4, 2>(job, row, outputs, block, sums),
            (Wide, 3) => column::<D, 4, 3>(job, row, outputs, block, sums),
            (Wide, 4) => column::<D, 4, 4>(job, row, outputs, block, sums),
            (Wide, 5) => column::<D, 4, 5>(job, row, outputs, block, sums),
            (Wide, 6) => column::<D, 4, 6>(job, row, outputs, block, sums),
            (Wide, 7) => column::<D, 3, 7>(job, row, outputs, block, sums),
            (Wide, 8) => column::<D, 3, 8>(job, row, outputs, block, sums),
            _ => unreachable!("a tile has 1 to `max_rows` rows"),
        }
    }
}

/// Goes through `outputs`, one register tile after the other. When weights stream from memory,
/// the rows of a tile lie far apart, so that each is a stream of its own from tile to tile: the
/// hardware follows a few long streams better than many short ones.
///
/// # Safety
/// As for [`row_tile`]; `ROWS` rows from `row` on must be in range.
#[inline(always)]
unsafe fn column<D: Dot, const HEIGHT: usize, const ROWS: usize>(
    job: &Job<'_, D>,
    row: usize,
    outputs: &Range<usize>,
    block: &Block,
    sums: *mut D::Sum,
) {
    let tiles = outputs.len() / HEIGHT;
    let (apart, down) = if block.ahead.is_none() {
        (tiles, 1)
    } else {
        (1, HEIGHT)
    };
    // SAFETY: tiles lie within `outputs`, and each has its own place among the sums, which is
    // not used if there is one block of inputs.
    unsafe {
        for tile in 0..tiles {
            let sums = sums.wrapping_add(tile * HEIGHT * ROWS).cast();
            let output = outputs.start + tile * down;
            tile::extend::<D, HEIGHT, ROWS>(job, row, (output, apart), block, sums);
        }
        for output in outputs.start + tiles * HEIGHT..outputs.end {
            let sums = sums.wrapping_add((output - outputs.start) * ROWS).cast();
            tile::extend::<D, 1, ROWS>(job, row, (output, 1), block, sums);
        }
    }
}
