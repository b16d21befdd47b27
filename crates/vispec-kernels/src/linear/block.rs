//! The loops of a linear layer around the register tile. They decide when each partial sum is
//! extended.
//!
//! With few rows, weights stream from memory once, and each tile runs over all inputs. With many
//! rows, a block of inputs of a few weight rows and of up to [`ROW_BLOCK`] rows of `x` stays in the
//! nearest caches, and partial sums are kept in a buffer from one block of inputs to the next. Both
//! extend a sum in the same order, so the bits are identical.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::dot::{Block, Cache, Dot, Job, Tile};
use super::tile::AHEAD_BYTES;

/// Number of weight rows in a block. Every tile height divides it.
pub(crate) const OUTPUT_BLOCK: usize = 24;
/// Number of rows of `x` that share one pass over the weights.
pub(crate) const ROW_BLOCK: usize = 64;

/// Computes `outputs` of a job.
///
/// # Safety
/// The CPU must support the instruction set; the slices and `out` must fit the job's axes;
/// `outputs` must be in range; and no other thread may work on these outputs.
pub(crate) unsafe fn run<D: Dot>(job: &Job<'_, D>, outputs: Range<usize>) {
    let row_blocks = job.rows.div_ceil(ROW_BLOCK);
    for row_block in 0..row_blocks {
        let rows = share(job.rows, row_blocks, row_block);
        let tiles = rows.len().div_ceil(D::TILES.max_rows());
        let bytes = rows.len() * job.inputs * size_of::<D::Input>();
        let few = tiles == 1 || bytes <= D::TILES.few_bytes();
        let height = D::TILES.height(rows.len().div_ceil(tiles));
        let rows = Rows { rows, tiles };
        // SAFETY: upheld by the caller.
        unsafe {
            match (few, height) {
                (false, _) => blocks(job, &rows, &outputs),
                (true, 2) => streams::<D, 2>(job, &rows, &outputs),
                (true, 3) => streams::<D, 3>(job, &rows, &outputs),
                (true, 4) => streams::<D, 4>(job, &rows, &outputs),
                (true, _) => streams::<D, 6>(job, &rows, &outputs),
            }
        }
    }
}

/// Rows that share one pass over the weights, split into nearly equal tiles.
struct Rows {
    rows: Range<usize>,
    tiles: usize,
}

/// Goes through `outputs` once, for few rows.
///
/// The weight rows of a tile lie far apart, so each forms its own stream from tile to tile: the
/// hardware prefetcher follows a few long streams better than many short ones. All tiles of rows
/// but the first find the weights in the nearest cache.
///
/// # Safety
/// Same as [`run`]; the rows must be in range.
unsafe fn streams<D: Dot, const HEIGHT: usize>(
    job: &Job<'_, D>,
    rows: &Rows,
    outputs: &Range<usize>,
) {
    let apart = outputs.len() / HEIGHT;
    let block = Block {
        start: 0,
        steps: job.inputs / D::STEP,
        tail: job.inputs % D::STEP,
        last: true,
        ahead: if rows.tiles == 1 {
            AHEAD_BYTES / size_of::<D::Weight>()
        } else {
            job.inputs
        },
        fetch: if rows.tiles == 1 {
            D::FETCH
        } else {
            Cache::First
        },
    };
    let none = std::ptr::null_mut();
    // SAFETY: the tiles lie within `outputs`; a single block of inputs needs no buffer of sums.
    unsafe {
        for output in outputs.start..outputs.start + apart {
            for tile in 0..rows.tiles {
                extend::<D, HEIGHT>(job, &block, rows, tile, (output, apart), none);
            }
        }
        for output in outputs.start + apart * HEIGHT..outputs.end {
            for tile in 0..rows.tiles {
                extend::<D, 1>(job, &block, rows, tile, (output, 1), none);
            }
        }
    }
}

/// Goes through `outputs` and their inputs in blocks, for many rows. The sums of a block of outputs
/// are kept in a buffer from one block of inputs to the next.
///
/// # Safety
/// Same as [`streams`].
unsafe fn blocks<D: Dot>(job: &Job<'_, D>, rows: &Rows, outputs: &Range<usize>) {
    let mut sums = MaybeUninit::<[D::Sum; ROW_BLOCK * OUTPUT_BLOCK]>::uninit();
    let sums = sums.as_mut_ptr().cast::<D::Sum>();
    // All blocks have nearly the same length, so each prefetches as much as the next one needs.
    let inputs = job.inputs.div_ceil(job.inputs.div_ceil(D::BLOCK).max(1));
    let inputs = inputs.next_multiple_of(D::STEP).max(1);
    for output in outputs.clone().step_by(OUTPUT_BLOCK) {
        let outputs = output..outputs.end.min(output + OUTPUT_BLOCK);
        for start in (0..job.inputs.max(1)).step_by(inputs) {
            let len = inputs.min(job.inputs - start);
            let last = start + len == job.inputs;
            let block = Block {
                start,
                steps: len / D::STEP,
                tail: len % D::STEP,
                last,
                ahead: if last {
                    OUTPUT_BLOCK * job.inputs - start
                } else {
                    len
                },
                // A block fills the nearest cache, so the next one is prefetched into the second
                // level.
                fetch: Cache::Second,
            };
            for tile in 0..rows.tiles {
                let own = share(rows.rows.len(), rows.tiles, tile);
                // SAFETY: rows, outputs and inputs are in range; the sums of a tile start at its
                // first row times the outputs of a block, and end before the next tile's.
                unsafe {
                    let sums = sums.add(own.start * OUTPUT_BLOCK);
                    match D::TILES.height(own.len()) {
                        2 => column::<D, 2>(job, &block, rows, tile, &outputs, sums),
                        3 => column::<D, 3>(job, &block, rows, tile, &outputs, sums),
                        4 => column::<D, 4>(job, &block, rows, tile, &outputs, sums),
                        _ => column::<D, 6>(job, &block, rows, tile, &outputs, sums),
                    }
                }
            }
        }
    }
}

/// Extends the sums of a tile of `rows` and of the `outputs` of a block.
///
/// # Safety
/// Same as [`run`]; `sums` must have room for the sums.
unsafe fn column<D: Dot, const HEIGHT: usize>(
    job: &Job<'_, D>,
    block: &Block,
    rows: &Rows,
    tile: usize,
    outputs: &Range<usize>,
    sums: *mut D::Sum,
) {
    let n_rows = share(rows.rows.len(), rows.tiles, tile).len();
    let whole = outputs.start + outputs.len() / HEIGHT * HEIGHT;
    // SAFETY: tiles lie within `outputs`, and each output has its own place among the sums.
    unsafe {
        for output in (outputs.start..whole).step_by(HEIGHT) {
            let sums = sums.add((output - outputs.start) * n_rows);
            extend::<D, HEIGHT>(job, block, rows, tile, (output, 1), sums);
        }
        for output in whole..outputs.end {
            let sums = sums.add((output - outputs.start) * n_rows);
            extend::<D, 1>(job, block, rows, tile, (output, 1), sums);
        }
    }
}

/// Calls [`Dot::extend`] for one of the tiles of `rows`.
///
/// # Safety
/// Same as [`Dot::extend`].
unsafe fn extend<D: Dot, const HEIGHT: usize>(
    job: &Job<'_, D>,
    block: &Block,
    rows: &Rows,
    tile: usize,
    (output, apart): (usize, usize),
    sums: *mut D::Sum,
) {
    let fetch = share(block.steps, rows.tiles, tile);
    let own = share(rows.rows.len(), rows.tiles, tile);
    let tile = Tile {
        row: rows.rows.start + own.start,
        output,
        apart,
        fetch,
    };
    // SAFETY: upheld by the caller.
    unsafe {
        match own.len() {
            1 => D::extend::<HEIGHT, 1>(job, block, &tile, sums),
            2 => D::extend::<HEIGHT, 2>(job, block, &tile, sums),
            3 => D::extend::<HEIGHT, 3>(job, block, &tile, sums),
            4 => D::extend::<HEIGHT, 4>(job, block, &tile, sums),
            5 => D::extend::<HEIGHT, 5>(job, block, &tile, sums),
            6 => D::extend::<HEIGHT, 6>(job, block, &tile, sums),
            7 => D::extend::<HEIGHT, 7>(job, block, &tile, sums),
            _ => D::extend::<HEIGHT, 8>(job, block, &tile, sums),
        }
    }
}

/// Returns the `index`-th of `parts` nearly equal shares of `0..len`.
pub(super) fn share(len: usize, parts: usize, index: usize) -> Range<usize> {
    len * index / parts..len * (index + 1) / parts
}
