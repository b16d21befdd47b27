//! The tile of sums held in registers: a few weight rows by a few rows of `x`.

use std::mem::MaybeUninit;

use super::CACHE_LINE;
use super::dot::{Block, Dot, Job, Tile, prefetch};

/// Prefetch distance for weights that stream from memory.
pub(crate) const AHEAD_BYTES: usize = 2 << 10;
/// Longest step of any instruction set.
const LONGEST_STEP: usize = 64;

/// Extends `HEIGHT x ROWS` sums by a block of inputs, and writes the totals after the last one.
///
/// # Safety
/// The CPU must support the instruction set. The rows and outputs of the tile must be in range, and
/// the outputs must belong to the calling thread. `place` must have room for the sums, and must
/// hold the sums of earlier blocks, if any.
#[inline(always)]
pub(crate) unsafe fn extend<D: Dot, const HEIGHT: usize, const ROWS: usize>(
    job: &Job<'_, D>,
    block: &Block,
    tile: &Tile,
    place: *mut D::Sum,
) {
    if HEIGHT * ROWS > D::TILES.max_sums() {
        unreachable!("{HEIGHT} weight rows by {ROWS} rows is not a valid tile");
    }
    let Tile {
        row, output, apart, ..
    } = *tile;
    let place = place.cast::<[[D::Sum; ROWS]; HEIGHT]>();
    // SAFETY: rows, outputs and inputs are in range; whole steps are readable in each row; a
    // prefetch may point anywhere, so its address is computed with wrapping arithmetic.
    unsafe {
        let weight = job.weight.as_ptr().add(output * job.inputs + block.start);
        let x = job.x.as_ptr().add(row * job.stride + block.start);
        let mut sums = if block.start == 0 {
            [[D::zero(); ROWS]; HEIGHT]
        } else {
            place.read()
        };
        let down = apart * job.inputs;
        for index in 0..block.steps {
            let at = index * D::STEP;
            let new_line = (at * size_of::<D::Weight>()).is_multiple_of(CACHE_LINE);
            if new_line && tile.fetch.contains(&index) {
                for height in 0..HEIGHT {
                    let weight = weight.add(height * down + at);
                    prefetch(block.fetch, weight.wrapping_add(block.ahead));
                }
            }
            step::<D, HEIGHT, ROWS>(&mut sums, weight.add(at), down, x.add(at), job.stride);
        }
        if block.tail > 0 {
            let at = block.steps * D::STEP;
            let mut padded = MaybeUninit::<[[D::Weight; LONGEST_STEP]; HEIGHT]>::zeroed();
            let padded = padded.as_mut_ptr().cast::<D::Weight>();
            for height in 0..HEIGHT {
                let weight = weight.add(height * down + at);
                padded
                    .add(height * LONGEST_STEP)
                    .copy_from_nonoverlapping(weight, block.tail);
            }
            step::<D, HEIGHT, ROWS>(&mut sums, padded, LONGEST_STEP, x.add(at), job.stride);
        }
        if block.last {
            four::<D, HEIGHT, ROWS, 0>(job, tile, &sums);
            four::<D, HEIGHT, ROWS, 1>(job, tile, &sums);
            four::<D, HEIGHT, ROWS, 2>(job, tile, &sums);
            four::<D, HEIGHT, ROWS, 3>(job, tile, &sums);
            four::<D, HEIGHT, ROWS, 4>(job, tile, &sums);
            four::<D, HEIGHT, ROWS, 5>(job, tile, &sums);
        } else {
            place.write(sums);
        }
    }
}

/// Writes the totals of the `FOUR`-th group of four sums, if it exists. The caller unrolls the
/// groups by hand, because a loop would force the sums out of their registers.
///
/// # Safety
/// Same as [`extend`].
#[inline(always)]
unsafe fn four<D: Dot, const HEIGHT: usize, const ROWS: usize, const FOUR: usize>(
    job: &Job<'_, D>,
    tile: &Tile,
    sums: &[[D::Sum; ROWS]; HEIGHT],
) {
    debug_assert!(HEIGHT * ROWS <= 24, "at most six groups of four sums");
    let end = HEIGHT * ROWS;
    if 4 * FOUR >= end {
        return;
    }
    let first = 4 * FOUR;
    // SAFETY: upheld by the caller; the places are those of the sums.
    unsafe {
        let mut four = [sums[first / ROWS][first % ROWS]; 4];
        for (at, sum) in four.iter_mut().enumerate() {
            let place = (first + at).min(end - 1);
            *sum = sums[place / ROWS][place % ROWS];
        }
        let totals = D::totals(four);
        for (place, total) in (first..end).zip(totals) {
            let output = tile.output + place / ROWS * tile.apart;
            job.write(tile.row + place % ROWS, output, total);
        }
    }
}

/// Adds the products of one step. The smaller side of the tile is loaded first and kept in
/// registers, which leaves the most registers for the sums.
///
/// # Safety
/// A step must be readable in each of `HEIGHT` weight rows and `ROWS` packed rows.
#[inline(always)]
unsafe fn step<D: Dot, const HEIGHT: usize, const ROWS: usize>(
    sums: &mut [[D::Sum; ROWS]; HEIGHT],
    weight: *const D::Weight,
    weight_stride: usize,
    x: *const D::Input,
    x_stride: usize,
) {
    for phase in 0..D::PHASES {
        // SAFETY: upheld by the caller.
        unsafe {
            if HEIGHT <= ROWS {
                let mut weights = [D::weights(weight, phase); HEIGHT];
                for (height, weights) in weights.iter_mut().enumerate().skip(1) {
                    *weights = D::weights(weight.add(height * weight_stride), phase);
                }
                for row in 0..ROWS {
                    let inputs = D::inputs(x.add(row * x_stride), phase);
                    for (sums, weights) in sums.iter_mut().zip(weights) {
                        sums[row] = D::fuse(sums[row], weights, inputs);
                    }
                }
            } else {
                let mut inputs = [D::inputs(x, phase); ROWS];
                for (row, inputs) in inputs.iter_mut().enumerate().skip(1) {
                    *inputs = D::inputs(x.add(row * x_stride), phase);
                }
                for (height, sums) in sums.iter_mut().enumerate() {
                    let weights = D::weights(weight.add(height * weight_stride), phase);
                    for (sum, inputs) in sums.iter_mut().zip(inputs) {
                        *sum = D::fuse(*sum, weights, inputs);
                    }
                }
            }
        }
    }
}
