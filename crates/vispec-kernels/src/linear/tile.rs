//! The tile of sums held in registers: a few weight rows by a few rows of `x`.

use std::mem::MaybeUninit;

use super::CACHE_LINE;
use super::block::{Block, Job};
use super::dot::{Dot, prefetch};

/// How far ahead to prefetch weights that stream from memory.
pub(crate) const AHEAD_BYTES: usize = 2 << 10;
/// No instruction set takes longer steps.
const LONGEST_STEP: usize = 64;

/// Extends `HEIGHT x ROWS` sums by a block of inputs, and writes the totals after the last one.
///
/// # Safety
/// The machine must support the instruction set. The rows from `row` on and the outputs from
/// `output` on, each `apart` from the one before, must be in range, and the outputs belong to the calling thread. `place` must hold
/// the sums of earlier blocks, if there are any.
#[inline(always)]
pub(crate) unsafe fn extend<D: Dot, const HEIGHT: usize, const ROWS: usize>(
    job: &Job<'_, D>,
    row: usize,
    (output, apart): (usize, usize),
    block: &Block,
    place: *mut [[D::Sum; ROWS]; HEIGHT],
) {
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
        let ahead = block.ahead.unwrap_or(AHEAD_BYTES / size_of::<D::Weight>());
        for index in 0..block.steps {
            let at = index * D::STEP;
            let new_line = (at * size_of::<D::Weight>()).is_multiple_of(CACHE_LINE);
            if new_line && block.fetch.contains(&index) {
                for height in 0..HEIGHT {
                    let weight = weight.add(height * down + at);
                    prefetch(weight.wrapping_add(ahead));
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
            for (height, sums) in sums.into_iter().enumerate() {
                for (tile_row, sum) in sums.into_iter().enumerate() {
                    job.write(row + tile_row, output + height * apart, D::total(sum));
                }
            }
        } else {
            place.write(sums);
        }
    }
}

/// Adds the products of one step. The smaller side of the tile is loaded first and kept, which
/// leaves the most registers to the sums.
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
        // SAFETY: the caller's promise.
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
