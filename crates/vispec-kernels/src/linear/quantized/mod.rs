//! Linear layers with quantised weights: integer dot products within a group, then scales.
//!
//! Rows of `x` are quantised to 8 bits group by group, so products are exact integers, and the
//! sum over groups has a fixed order: batch-invariant like the float kernels. A register holds
//! the sixteen outputs of a panel, so no sum runs across it.

mod portable;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod vnni;

use std::ops::Range;

use half::bf16;

use super::block::share;
use super::dot::{Cache, prefetch};
use super::{AHEAD_BYTES, CACHE_LINE, Call};
use crate::isa::Isa;
use crate::panel::{INTEGERS, Layout, PANEL};
use crate::quantize::{Bits, QuantizedPanels};
use crate::scratch::{Line, Scratch};
use crate::weight::Weight;

/// Bytes after the quantised inputs of a group: their scale and the correction.
const TRAILER: usize = 8;
/// Inputs of a step; a group is a whole number of them.
const STEP: usize = 8;
/// Outputs that stay with one thread.
const BLOCK: usize = 2 * PANEL;
/// How far ahead to prefetch weights that stream from memory.
const AHEAD_LINES: usize = AHEAD_BYTES / CACHE_LINE;

/// What an instruction set and a width contribute.
///
/// # Safety
/// All functions: the machine must support the instruction set, and what is read must be
/// readable where a pointer points.
pub(super) trait Quantized: Sized + Send + Sync + 'static {
    /// Lines of the [`STEP`] inputs of a panel.
    const STEP_LINES: usize;
    /// What [`Quantized::weights`] adds to each weight.
    const OFFSET: i32;
    /// Most panels times rows of a tile whose words the registers hold.
    const WORDS: usize;
    /// Most rows of a tile, at most 6.
    const ROWS: usize;
    /// Where weights are prefetched to.
    const FETCH: Cache;
    /// Four inputs of the weights of a panel.
    type Weights: Copy;
    /// Four inputs of a row, for each output of a panel.
    type Inputs: Copy;
    /// An integer sum for each output of a panel.
    type Words: Copy;
    /// A float sum for each output of a panel.
    type Sums: Copy;

    /// Quantises one row of `x`; see [`pack`].
    unsafe fn pack(x: &[f32], group: usize, packed: &mut [u8]);
    /// [`tile`], compiled for the instruction set.
    unsafe fn tile<const WIDTH: usize, const ROWS: usize>(job: &Job<'_>, place: &Place);
    /// The first and the second half of a step.
    unsafe fn weights(step: *const Line) -> [Self::Weights; 2];
    /// Repeats four bytes.
    unsafe fn inputs(x: *const u8) -> Self::Inputs;
    /// `value` in every sum.
    unsafe fn words(value: i32) -> Self::Words;
    /// Adds the products of four inputs.
    unsafe fn dot(words: Self::Words, weights: Self::Weights, x: Self::Inputs) -> Self::Words;
    /// Sums of zero.
    unsafe fn zero() -> Self::Sums;
    /// The scales of a group of a panel.
    unsafe fn scales(from: *const bf16) -> Self::Sums;
    /// Adds the words times both scales.
    unsafe fn scale(
        sums: Self::Sums,
        words: Self::Words,
        weights: Self::Sums,
        x: f32,
    ) -> Self::Sums;
    /// The sums of the outputs in order.
    unsafe fn totals(sums: Self::Sums) -> [f32; PANEL];
}

/// One layer, its rows packed and its lengths checked.
pub(super) struct Job<'a> {
    /// Packed rows: for each group its bytes, their scale and the correction.
    x: &'a [u8],
    /// Bytes per packed row.
    stride: usize,
    rows: usize,
    panels: QuantizedPanels<'a>,
    bias: Option<&'a [f32]>,
    out: *mut f32,
}

// SAFETY: the slices are shared read-only, and `out` is written at disjoint places: `run` asks
// that concurrent calls get disjoint ranges of outputs.
unsafe impl Sync for Job<'_> {}

/// Linear layers of one width and group.
///
/// # Safety
/// The machine must support `isa`; `call` must be checked.
pub(super) unsafe fn dispatch(isa: Isa, call: Call<'_, '_>, layout: Layout) {
    let group = layout.group;
    // SAFETY: the caller's promise.
    unsafe {
        match (isa, layout.bits) {
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2 | Isa::Avx512, Bits::Eight) => linear::<avx2::Int8>(call, group),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2 | Isa::Avx512, Bits::Four) => linear::<avx2::Int4>(call, group),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512Vnni | Isa::Avx512Bf16, Bits::Eight) => linear::<vnni::Int8>(call, group),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512Vnni | Isa::Avx512Bf16, Bits::Four) => linear::<vnni::Int4>(call, group),
            (_, Bits::Eight) => linear::<portable::Int8>(call, group),
            (_, Bits::Four) => linear::<portable::Int4>(call, group),
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
        let Weight::Quantized(panels) = layer.weight else {
            unreachable!("layers that share a call pack alike");
        };
        Job {
            x,
            stride,
            rows,
            panels,
            bias: layer.bias,
            out: layer.out[call.rows.start * layer.outputs..].as_mut_ptr(),
        }
    });
    let jobs: Vec<_> = jobs.collect();
    let outputs: Vec<_> = jobs.iter().map(|job| job.panels.layout.outputs).collect();
    super::in_outputs(rows * inputs, &outputs, BLOCK, |layer, outputs| {
        // SAFETY: the caller's promise; ranges of outputs are disjoint.
        unsafe { run::<Q>(&jobs[layer], outputs) };
    });
}

/// Quantises a row of `x` to bytes from -127 to 127, each group followed by its scale and by
/// what corrects for [`Quantized::OFFSET`]. A group that is not finite gets a scale of NaN.
#[inline(always)]
fn pack<Q: Quantized>(x: &[f32], group: usize, packed: &mut [u8]) {
    for (x, packed) in x
        .chunks_exact(group)
        .zip(packed.chunks_exact_mut(group + TRAILER))
    {
        // The bits of magnitudes order like them, with infinities and NaNs on top.
        let greatest = x.iter().map(|x| x.abs().to_bits()).fold(0, u32::max);
        let greatest = f32::from_bits(greatest);
        let finite = greatest.is_finite();
        let inverse = 127.0 / greatest;
        let inverse = if inverse.is_finite() && finite {
            inverse
        } else {
            0.0
        };
        let (values, trailer) = packed.split_at_mut(group);
        let mut sum = 0_i32;
        for (value, x) in values.iter_mut().zip(x) {
            // Rounds to the nearest integer, ties to even, and leaves it in the lowest bits.
            let rounded = (x * inverse + INTEGERS).to_bits() as i32 - INTEGERS.to_bits() as i32;
            let rounded = if finite { rounded } else { 0 };
            sum += rounded;
            *value = rounded as u8;
        }
        let scale = if finite { greatest / 127.0 } else { f32::NAN };
        trailer[..4].copy_from_slice(&scale.to_ne_bytes());
        trailer[4..].copy_from_slice(&(-Q::OFFSET * sum).to_ne_bytes());
    }
}

/// Works on `outputs` of a job, in tiles of rows and panels. The panels of a tile lie far apart: the
/// hardware follows a few long streams better than many short ones. If there are several tiles of
/// rows, all but the first find the weights in the nearest cache.
///
/// # Safety
/// The machine must support the instruction set, the lengths fit, `outputs` be whole panels (or
/// end with the last one), and no other thread work on these outputs.
unsafe fn run<Q: Quantized>(job: &Job<'_>, outputs: Range<usize>) {
    let panels = outputs.start / PANEL..outputs.end.div_ceil(PANEL);
    let tiles = job.rows.div_ceil(Q::ROWS).max(1);
    // SAFETY: the caller's promise.
    unsafe {
        match (Q::WORDS / job.rows.div_ceil(tiles).max(1)).min(4) {
            0 | 1 => streams::<Q, 1>(job, panels, tiles),
            2 | 3 => streams::<Q, 2>(job, panels, tiles),
            _ => streams::<Q, 4>(job, panels, tiles),
        }
    }
}

/// The same with tiles of `WIDTH` panels.
///
/// # Safety
/// As for [`run`].
unsafe fn streams<Q: Quantized, const WIDTH: usize>(
    job: &Job<'_>,
    panels: Range<usize>,
    tiles: usize,
) {
    let apart = panels.len() / WIDTH;
    // SAFETY: tiles lie within the panels.
    unsafe {
        for panel in panels.start..panels.start + apart {
            row_tiles::<Q, WIDTH>(job, (panel, apart), tiles);
        }
        for panel in panels.start + apart * WIDTH..panels.end {
            row_tiles::<Q, 1>(job, (panel, 1), tiles);
        }
    }
}

/// All rows of the outputs of a tile: `panel` and those `apart` from it.
///
/// # Safety
/// As for [`run`].
unsafe fn row_tiles<Q: Quantized, const WIDTH: usize>(
    job: &Job<'_>,
    (panel, apart): (usize, usize),
    tiles: usize,
) {
    let layout = job.panels.layout;
    let group_lines = layout.group / layout.line_inputs();
    for tile in 0..tiles {
        let rows = share(job.rows, tiles, tile);
        let place = Place {
            row: rows.start,
            panel,
            apart,
            fetch: share(group_lines, tiles, tile),
            ahead: if tiles == 1 {
                AHEAD_LINES
            } else {
                layout.panel_lines()
            },
        };
        // SAFETY: the caller's promise; the rows of a tile are in range.
        unsafe {
            match rows.len() {
                1 => Q::tile::<WIDTH, 1>(job, &place),
                2 => Q::tile::<WIDTH, 2>(job, &place),
                3 => Q::tile::<WIDTH, 3>(job, &place),
                4 => Q::tile::<WIDTH, 4>(job, &place),
                5 => Q::tile::<WIDTH, 5>(job, &place),
                _ => Q::tile::<WIDTH, 6>(job, &place),
            }
        }
    }
}

/// Where a tile is.
pub(super) struct Place {
    /// First row.
    row: usize,
    /// First panel.
    panel: usize,
    /// From one panel to the next.
    apart: usize,
    /// The lines of each group that this tile prefetches, evenly over time: memory is slower
    /// than the products of a few rows.
    fetch: Range<usize>,
    /// From a line to the one to prefetch.
    ahead: usize,
}

/// Sums of `WIDTH` panels by `ROWS` rows over all groups.
///
/// # Safety
/// As for [`run`]; the tile must be in range.
#[inline(always)]
unsafe fn tile<Q: Quantized, const WIDTH: usize, const ROWS: usize>(job: &Job<'_>, place: &Place) {
    if WIDTH * ROWS > Q::WORDS {
        unreachable!("{WIDTH} panels by {ROWS} rows are no tile");
    }
    let layout = job.panels.layout;
    let steps = layout.group / STEP;
    let down = place.apart * layout.panel_lines();
    // SAFETY: the caller's promise; a prefetch may point anywhere.
    unsafe {
        let lines = job.panels.values.as_ptr();
        let mut lines = lines.add(place.panel * layout.panel_lines());
        let scales = job.panels.scales.as_ptr();
        let mut scales = scales.add(place.panel * layout.panel_scales());
        let mut x = job.x.as_ptr().add(place.row * job.stride);
        let mut sums = [[Q::zero(); WIDTH]; ROWS];
        for _ in 0..layout.inputs / layout.group {
            for panel in 0..WIDTH {
                let lines = lines.wrapping_add(panel * down + place.ahead);
                for line in place.fetch.clone() {
                    prefetch(Q::FETCH, lines.wrapping_add(line));
                }
            }
            let mut words = [[Q::words(0); WIDTH]; ROWS];
            if Q::OFFSET != 0 {
                for (row, words) in words.iter_mut().enumerate() {
                    let correction = x.add(row * job.stride + layout.group + 4).cast::<i32>();
                    *words = [Q::words(correction.read_unaligned()); WIDTH];
                }
            }
            for _ in 0..steps {
                let mut weights = [Q::weights(lines); WIDTH];
                for (panel, weights) in weights.iter_mut().enumerate().skip(1) {
                    *weights = Q::weights(lines.add(panel * down));
                }
                for half in 0..2 {
                    for (row, words) in words.iter_mut().enumerate() {
                        let x = Q::inputs(x.add(row * job.stride + half * (STEP / 2)));
                        for (words, weights) in words.iter_mut().zip(&weights) {
                            *words = Q::dot(*words, weights[half], x);
                        }
                    }
                }
                lines = lines.add(Q::STEP_LINES);
                x = x.add(STEP);
            }
            let panel_scales = place.apart * layout.panel_scales();
            for panel in 0..WIDTH {
                let scales = Q::scales(scales.add(panel * panel_scales));
                for (row, (sums, words)) in sums.iter_mut().zip(&words).enumerate() {
                    let x = x.add(row * job.stride).cast::<f32>().read_unaligned();
                    sums[panel] = Q::scale(sums[panel], words[panel], scales, x);
                }
            }
            scales = scales.add(PANEL);
            x = x.add(TRAILER);
        }
        for (row, sums) in sums.into_iter().enumerate() {
            for (panel, sums) in sums.into_iter().enumerate() {
                let output = (place.panel + panel * place.apart) * PANEL;
                write(job, place.row + row, output, Q::totals(sums));
            }
        }
    }
}

/// Writes the totals of a panel, of which the last may not be full.
///
/// # Safety
/// As for [`run`]; the row and the first output must be in range.
#[inline(always)]
unsafe fn write(job: &Job<'_>, row: usize, output: usize, mut totals: [f32; PANEL]) {
    let outputs = job.panels.layout.outputs;
    let len = PANEL.min(outputs - output);
    if let Some(bias) = job.bias {
        for (total, bias) in totals.iter_mut().zip(&bias[output..output + len]) {
            *total += bias;
        }
    }
    // SAFETY: the row and the outputs are in range, and the outputs are the caller's.
    unsafe {
        let to = job.out.add(row * outputs + output);
        if len == PANEL {
            to.cast::<[f32; PANEL]>().write(totals);
        } else {
            to.copy_from_nonoverlapping(totals.as_ptr(), len);
        }
    }
}
