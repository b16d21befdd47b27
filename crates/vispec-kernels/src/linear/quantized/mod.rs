//! Linear layers with quantised weights: integer dot products within a group, then scales.
//!
//! Rows of `x` are quantised to 8 bits group by group, so products are exact integers, and the
//! sum over groups has a fixed order: batch-invariant like the float kernels.

mod portable;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod vnni;

use std::ops::Range;

use half::bf16;

use super::{CACHE_LINE, Call};
use crate::isa::Isa;
use crate::quantize::GROUP_STEP;
use crate::scratch::Scratch;
use crate::weight::Weight;

/// Bytes after the quantised inputs of a group: their scale and the correction.
const TRAILER: usize = 8;

/// What an instruction set and a width contribute.
///
/// # Safety
/// All functions: the machine must support the instruction set, and a step be readable where a
/// pointer points.
pub(super) trait Quantized: Sized + Send + Sync + 'static {
    /// Bytes of [`GROUP_STEP`] weights.
    const STEP_BYTES: usize;
    /// What [`Quantized::weights`] adds to each weight.
    const OFFSET: i32;
    /// Weight rows of a tile of three rows or more, of which the registers hold the sums: 2 or 4.
    const HEIGHT: usize;
    /// Register of weights.
    type Weights: Copy;
    /// Register of integer sums.
    type Words: Copy;
    /// Register of float sums.
    type Sums: Copy;

    /// Quantises one row of `x`; see [`pack`].
    unsafe fn pack(x: &[f32], group: usize, packed: &mut [u8]);
    /// Works on `outputs` of a job; see [`run`].
    unsafe fn run(job: &Job<'_>, outputs: Range<usize>);
    unsafe fn weights(from: *const u8) -> Self::Weights;
    /// Integer sums that start with `correction` in total.
    unsafe fn words(correction: i32) -> Self::Words;
    unsafe fn dot(words: Self::Words, weights: Self::Weights, x: *const u8) -> Self::Words;
    unsafe fn sums() -> Self::Sums;
    /// A factor in every lane.
    unsafe fn splat(factor: f32) -> Self::Sums;
    /// Adds the words times both factors.
    unsafe fn scale(
        sums: Self::Sums,
        words: Self::Words,
        weight: Self::Sums,
        x: Self::Sums,
    ) -> Self::Sums;
    unsafe fn total(sums: Self::Sums) -> f32;
}

/// One layer, its rows packed and its lengths checked.
pub(super) struct Job<'a> {
    /// Packed rows: for each group its bytes, their scale and the correction.
    x: &'a [u8],
    /// Bytes per packed row.
    stride: usize,
    rows: usize,
    values: &'a [u8],
    scales: &'a [bf16],
    inputs: usize,
    group: usize,
    outputs: usize,
    bias: Option<&'a [f32]>,
    out: *mut f32,
}

// SAFETY: the slices are shared read-only, and `out` is written at disjoint places: `run` asks
// that concurrent calls get disjoint ranges of outputs.
unsafe impl Sync for Job<'_> {}

/// Linear layers with signed bytes, in groups of `group`.
///
/// # Safety
/// The machine must support `isa`; `call` must be checked.
pub(super) unsafe fn eight(isa: Isa, call: Call<'_, '_>, group: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 | Isa::Avx512 => linear::<avx2::Int8>(call, group),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni | Isa::Avx512Bf16 => linear::<vnni::Int8>(call, group),
            _ => linear::<portable::Int8>(call, group),
        }
    }
}

/// Linear layers with nibbles, in groups of `group`.
///
/// # Safety
/// The machine must support `isa`; `call` must be checked.
pub(super) unsafe fn four(isa: Isa, call: Call<'_, '_>, group: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 | Isa::Avx512 => linear::<avx2::Int4>(call, group),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni | Isa::Avx512Bf16 => linear::<vnni::Int4>(call, group),
            _ => linear::<portable::Int4>(call, group),
        }
    }
}

/// Packs the rows, then works on all outputs in parallel.
///
/// # Safety
/// The machine must support the instruction set; `call` must be checked.
unsafe fn linear<Q: Quantized>(call: Call<'_, '_>, group: usize) {
    let (rows, inputs) = (call.rows.len(), call.inputs);
    let stride = inputs / group * (group + TRAILER);
    let mut scratch = Scratch::take();
    let packed = scratch.slice(rows * stride);
    let x = super::in_rows(call.x, inputs, stride, packed, |x, packed| {
        // SAFETY: the caller's promise; the packed row has room for all groups.
        unsafe { Q::pack(x, group, packed) };
    });
    let jobs = call.layers.iter_mut().map(|layer| {
        let (values, scales) = bytes(&layer.weight);
        Job {
            x,
            stride,
            rows,
            values,
            scales,
            inputs,
            group,
            outputs: layer.outputs,
            bias: layer.bias,
            out: layer.out[call.rows.start * layer.outputs..].as_mut_ptr(),
        }
    });
    let jobs: Vec<_> = jobs.collect();
    let outputs: Vec<_> = jobs.iter().map(|job| job.outputs).collect();
    super::in_outputs(rows * inputs, &outputs, |layer, outputs| {
        // SAFETY: the caller's promise; ranges of outputs are disjoint.
        unsafe { Q::run(&jobs[layer], outputs) };
    });
}

/// The bytes and the scales of a quantised weight.
fn bytes<'a>(weight: &Weight<'a>) -> (&'a [u8], &'a [bf16]) {
    match *weight {
        Weight::Int8 { values, scales, .. } => {
            // SAFETY: the same bytes, read as unsigned ones.
            let values =
                unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), values.len()) };
            (values, scales)
        }
        Weight::Int4 { values, scales, .. } => (values, scales),
        Weight::F32(_) | Weight::Bf16(_) | Weight::F16(_) => (&[], &[]),
    }
}

/// Quantises a row of `x` to bytes from -127 to 127, each group followed by its scale and by
/// what corrects for [`Quantized::OFFSET`]. A group that is not finite gets a scale of NaN.
#[inline(always)]
fn pack<Q: Quantized>(x: &[f32], group: usize, packed: &mut [u8]) {
    for (x, packed) in x
        .chunks_exact(group)
        .zip(packed.chunks_exact_mut(group + TRAILER))
    {
        let greatest = x
            .iter()
            .fold(0.0_f32, |a, x| if x.abs() > a { x.abs() } else { a });
        let finite = x.iter().fold(true, |finite, x| finite & x.is_finite());
        let inverse = if greatest > 0.0 && finite {
            127.0 / greatest
        } else {
            0.0
        };
        let inverse = if inverse.is_finite() { inverse } else { 0.0 };
        let (values, trailer) = packed.split_at_mut(group);
        let mut sum = 0_i32;
        for (value, x) in values.iter_mut().zip(x) {
            let scaled = (x * inverse).round_ties_even();
            let scaled = if finite { scaled as i32 } else { 0 };
            sum += scaled;
            *value = scaled as i8 as u8;
        }
        let scale = if finite { greatest / 127.0 } else { f32::NAN };
        trailer[..4].copy_from_slice(&scale.to_ne_bytes());
        trailer[4..].copy_from_slice(&(-Q::OFFSET * sum).to_ne_bytes());
    }
}

/// Most rows of a tile.
const TILE_ROWS: usize = 4;
/// How far ahead to prefetch weights that stream from memory.
const AHEAD_BYTES: usize = 2 << 10;

/// Works on `outputs` of a job, in tiles of rows and outputs. If the rows fit into one tile, each
/// weight is used once, and the weight rows of a tile lie far apart: the hardware follows a few
/// long streams better than many short ones. Otherwise neighbours stay in the nearest cache from
/// one tile of rows to the next.
///
/// # Safety
/// The machine must support the instruction set, the lengths fit, and no other thread work on
/// these outputs.
#[inline(always)]
unsafe fn run<Q: Quantized>(job: &Job<'_>, outputs: Range<usize>) {
    // SAFETY: the caller's promise.
    unsafe {
        match (job.rows, Q::HEIGHT) {
            (3.., 2) => columns::<Q, 2>(job, outputs),
            _ => columns::<Q, 4>(job, outputs),
        }
    }
}

/// The same with tiles of `HEIGHT` weight rows.
///
/// # Safety
/// As for [`run`].
#[inline(always)]
unsafe fn columns<Q: Quantized, const HEIGHT: usize>(job: &Job<'_>, outputs: Range<usize>) {
    let tiles = outputs.len() / HEIGHT;
    let once = job.rows <= TILE_ROWS;
    let (apart, down) = if once { (tiles, 1) } else { (1, HEIGHT) };
    // SAFETY: tiles lie within the outputs.
    unsafe {
        for tile in 0..tiles {
            row_tiles::<Q, HEIGHT>(job, outputs.start + tile * down, apart, once);
        }
        for output in outputs.start + tiles * HEIGHT..outputs.end {
            row_tiles::<Q, 1>(job, output, 1, once);
        }
    }
}

/// All rows of the outputs of a tile: `output` and those `apart` from it.
///
/// # Safety
/// As for [`run`].
#[inline(always)]
unsafe fn row_tiles<Q: Quantized, const HEIGHT: usize>(
    job: &Job<'_>,
    output: usize,
    apart: usize,
    once: bool,
) {
    let row_bytes = job.inputs / GROUP_STEP * Q::STEP_BYTES;
    let mut row = 0;
    while row < job.rows {
        let ahead = match (once, row) {
            (true, _) => Some(AHEAD_BYTES),
            (false, 0) => Some(HEIGHT * row_bytes),
            (false, _) => None,
        };
        let place = Place {
            row,
            output,
            apart,
            ahead,
        };
        // SAFETY: the caller's promise; a tile has at most the rows that are left.
        unsafe {
            row += match job.rows - row {
                1 => tile::<Q, HEIGHT, 1>(job, &place),
                2 => tile::<Q, HEIGHT, 2>(job, &place),
                3 => tile::<Q, HEIGHT, 3>(job, &place),
                _ => tile::<Q, HEIGHT, TILE_ROWS>(job, &place),
            };
        }
    }
}

/// Where a tile is.
struct Place {
    /// First row.
    row: usize,
    /// First output.
    output: usize,
    /// From one output to the next.
    apart: usize,
    /// From the weight at hand to the one to prefetch, in bytes.
    ahead: Option<usize>,
}

/// Sums of `HEIGHT x ROWS` output elements over all groups. Returns `ROWS`.
///
/// # Safety
/// As for [`run`]; the tile must be in range.
#[inline(always)]
unsafe fn tile<Q: Quantized, const HEIGHT: usize, const ROWS: usize>(
    job: &Job<'_>,
    place: &Place,
) -> usize {
    let steps = job.group / GROUP_STEP;
    let groups = job.inputs / job.group;
    let row_bytes = groups * steps * Q::STEP_BYTES;
    // SAFETY: the caller's promise; a prefetch may point anywhere.
    unsafe {
        let weight = job.values.as_ptr().add(place.output * row_bytes);
        let scales = job.scales.as_ptr().add(place.output * groups);
        let x = job.x.as_ptr().add(place.row * job.stride);
        let mut sums = [[Q::sums(); ROWS]; HEIGHT];
        for group in 0..groups {
            let x = x.add(group * (job.group + TRAILER));
            let trailer = |row: usize| x.add(row * job.stride + job.group);
            for (height, sums) in sums.iter_mut().enumerate() {
                let weight = weight.add(height * place.apart * row_bytes);
                let mut words = [Q::words(0); ROWS];
                if Q::OFFSET != 0 {
                    for (row, words) in words.iter_mut().enumerate() {
                        *words = Q::words(trailer(row).add(4).cast::<i32>().read_unaligned());
                    }
                }
                for step in 0..steps {
                    let at = (group * steps + step) * Q::STEP_BYTES;
                    if let Some(ahead) = place.ahead
                        && at % CACHE_LINE < Q::STEP_BYTES
                    {
                        super::dot::prefetch(weight.wrapping_add(at + ahead));
                    }
                    let weights = Q::weights(weight.add(at));
                    for (row, words) in words.iter_mut().enumerate() {
                        let x = x.add(row * job.stride + step * GROUP_STEP);
                        *words = Q::dot(*words, weights, x);
                    }
                }
                let bits = (*scales.add(height * place.apart * groups + group)).to_bits();
                let scale = Q::splat(f32::from_bits(u32::from(bits) << 16));
                for (row, sum) in sums.iter_mut().enumerate() {
                    let x_scale = Q::splat(trailer(row).cast::<f32>().read_unaligned());
                    *sum = Q::scale(*sum, words[row], scale, x_scale);
                }
            }
        }
        for (height, sums) in sums.into_iter().enumerate() {
            let output = place.output + height * place.apart;
            for (tile_row, sum) in sums.into_iter().enumerate() {
                let bias = job.bias.map(|bias| bias[output]);
                let total = Q::total(sum);
                let to = job.out.add((place.row + tile_row) * job.outputs + output);
                *to = bias.map_or(total, |bias| total + bias);
            }
        }
    }
    ROWS
}
