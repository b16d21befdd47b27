//! Linear layers with quantised weights: integer dot products within a group, then scales.
//!
//! Rows of `x` are quantised to 8 bits group by group, so products are exact integers. The sum over
//! groups has a fixed order, so the layer is batch-invariant like the float kernels. A register
//! holds the sixteen outputs of a panel, so no sum runs across a register.

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
use crate::panel::{Bits, QuantizedPanels};
use crate::panel::{INTEGERS, Layout, PANEL};
use crate::scratch::{Line, Scratch};
use crate::weight::Weight;

/// Size of the trailer after the quantised inputs of a group: their scale and the correction.
const TRAILER: usize = 8;
/// Inputs per step. A group is a whole number of steps.
const STEP: usize = 8;
/// Number of adjacent outputs that one thread computes.
const BLOCK: usize = 2 * PANEL;
/// How far ahead to prefetch weights that stream from memory.
const AHEAD_LINES: usize = AHEAD_BYTES / CACHE_LINE;

/// The operations that an instruction set and a weight width implement.
///
/// # Safety
/// For all functions, the CPU must support the instruction set, and all data read through pointers
/// must be readable.
pub(super) trait Quantized: Sized + Send + Sync + 'static {
    /// Lines per [`STEP`] inputs of a panel.
    const STEP_LINES: usize;
    /// The offset that [`Quantized::weights`] adds to each weight.
    const OFFSET: i32;
    /// Maximum number of panels times rows in a tile whose words fit into registers.
    const WORDS: usize;
    /// Maximum number of rows in a tile, at most 6.
    const ROWS: usize;
    /// The cache that weights are prefetched into.
    const FETCH: Cache;
    /// Weights of a panel for four inputs.
    type Weights: Copy;
    /// Four inputs of a row, repeated for each output of a panel.
    type Inputs: Copy;
    /// An integer sum for each output of a panel.
    type Words: Copy;
    /// A float sum for each output of a panel.
    type Sums: Copy;

    /// Quantises one row of `x`; see [`pack`].
    unsafe fn pack(x: &[f32], group: usize, packed: &mut [u8]);
    /// [`tile`], compiled for the instruction set.
    unsafe fn tile<const WIDTH: usize, const ROWS: usize>(job: &Job<'_>, place: &Place);
    /// Returns the weights of the first and the second half of a step.
    unsafe fn weights(step: *const Line) -> [Self::Weights; 2];
    /// Repeats four bytes of a row for each output.
    unsafe fn inputs(x: *const u8) -> Self::Inputs;
    /// Returns `value` in every sum.
    unsafe fn words(value: i32) -> Self::Words;
    /// Adds the products of four inputs.
    unsafe fn dot(words: Self::Words, weights: Self::Weights, x: Self::Inputs) -> Self::Words;
    /// Returns sums of zero.
    unsafe fn zero() -> Self::Sums;
    /// Returns the scales of one group of a panel.
    unsafe fn scales(from: *const bf16) -> Self::Sums;
    /// Adds the words times both scales.
    unsafe fn scale(
        sums: Self::Sums,
        words: Self::Words,
        weights: Self::Sums,
        x: f32,
    ) -> Self::Sums;
    /// Returns the sums in the order of the outputs.
    unsafe fn totals(sums: Self::Sums) -> [f32; PANEL];
}

/// One layer, with packed rows and checked lengths.
pub(super) struct Job<'a> {
    /// Packed rows: for each group, its bytes, their scale and the correction.
    x: &'a [u8],
    /// Bytes per packed row.
    stride: usize,
    rows: usize,
    panels: QuantizedPanels<'a>,
    bias: Option<&'a [f32]>,
    out: *mut f32,
}

// SAFETY: the slices are shared read-only, and `out` is written at disjoint places: `run` requires
// disjoint ranges of outputs from concurrent calls.
unsafe impl Sync for Job<'_> {}

/// Computes linear layers of one width and group size.
///
/// # Safety
/// The CPU must support `isa`; `call` must be checked.
pub(super) unsafe fn dispatch(isa: Isa, call: Call<'_, '_>, layout: Layout) {
    let group = layout.group;
    // SAFETY: upheld by the caller.
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

/// Packs the rows, then computes all outputs in parallel.
///
/// # Safety
/// The CPU must support the instruction set; `call` must be checked.
unsafe fn linear<Q: Quantized>(call: Call<'_, '_>, group: usize) {
    let (rows, inputs) = (call.rows.len(), call.inputs);
    let stride = inputs / group * (group + TRAILER);
    let mut scratch = Scratch::take();
    let packed = scratch.slice(rows * stride);
    let x = super::in_rows(call.x, inputs, stride, packed, |x, packed| {
        // SAFETY: upheld by the caller; the packed row has room for all groups.
        unsafe { Q::pack(x, group, packed) };
    });
    let jobs = call.layers.iter_mut().map(|layer| {
        let Weight::Quantized(panels) = layer.weight else {
            unreachable!("layers of a call have the same packing");
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
        // SAFETY: upheld by the caller; ranges of outputs are disjoint.
        unsafe { run::<Q>(&jobs[layer], outputs) };
    });
}

/// Quantises a row of `x` to bytes from -127 to 127. Each group is followed by its scale and by the
/// correction for [`Quantized::OFFSET`]. A group with a non-finite value gets a scale of NaN.
#[inline(always)]
fn pack<Q: Quantized>(x: &[f32], group: usize, packed: &mut [u8]) {
    for (x, packed) in x
        .chunks_exact(group)
        .zip(packed.chunks_exact_mut(group + TRAILER))
    {
        // The bits of magnitudes have the same order as the magnitudes, with infinities and NaNs on
        // top.
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
            // Adding `INTEGERS` rounds to the nearest integer, ties to even, in the lowest bits.
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

/// Computes `outputs` of a job, in tiles of rows and panels.
///
/// The panels of a tile lie far apart: the hardware prefetcher follows a few long streams better
/// than many short ones. If there are several tiles of rows, all but the first find the weights in
/// the nearest cache.
///
/// # Safety
/// The CPU must support the instruction set, lengths must match, `outputs` must be whole panels (or
/// end with the last one), and no other thread may work on these outputs.
unsafe fn run<Q: Quantized>(job: &Job<'_>, outputs: Range<usize>) {
    let panels = outputs.start / PANEL..outputs.end.div_ceil(PANEL);
    let tiles = job.rows.div_ceil(Q::ROWS).max(1);
    // SAFETY: upheld by the caller.
    unsafe {
        match (Q::WORDS / job.rows.div_ceil(tiles).max(1)).min(4) {
            0 | 1 => streams::<Q, 1>(job, panels, tiles),
            2 | 3 => streams::<Q, 2>(job, panels, tiles),
            _ => streams::<Q, 4>(job, panels, tiles),
        }
    }
}

/// Computes `panels` in tiles of `WIDTH` panels.
///
/// # Safety
/// Same as [`run`].
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

/// Computes all rows for the panels of a tile, which start at `panel` and are `apart` panels apart.
///
/// # Safety
/// Same as [`run`].
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
        // SAFETY: upheld by the caller; the rows of a tile are in range.
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

/// Position of a tile, and what it prefetches.
pub(super) struct Place {
    /// First row.
    row: usize,
    /// First panel.
    panel: usize,
    /// Distance from one panel to the next.
    apart: usize,
    /// The lines of each group that this tile prefetches, spread evenly over time: memory is slower
    /// than the products of a few rows.
    fetch: Range<usize>,
    /// Distance from a line to the one to prefetch.
    ahead: usize,
}

/// Sums `WIDTH` panels by `ROWS` rows over all groups, and writes the totals.
///
/// # Safety
/// Same as [`run`]; the tile must be in range.
#[inline(always)]
unsafe fn tile<Q: Quantized, const WIDTH: usize, const ROWS: usize>(job: &Job<'_>, place: &Place) {
    if WIDTH * ROWS > Q::WORDS {
        unreachable!("{WIDTH} panels by {ROWS} rows is not a valid tile");
    }
    let layout = job.panels.layout;
    let steps = layout.group / STEP;
    let down = place.apart * layout.panel_lines();
    // SAFETY: upheld by the caller; a prefetch may point anywhere.
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

/// Writes the totals of a panel; the last panel may be partial.
///
/// # Safety
/// Same as [`run`]; the row and the first output must be in range.
#[inline(always)]
unsafe fn write(job: &Job<'_>, row: usize, output: usize, mut totals: [f32; PANEL]) {
    let outputs = job.panels.layout.outputs;
    let len = PANEL.min(outputs - output);
    if let Some(bias) = job.bias {
        for (total, bias) in totals.iter_mut().zip(&bias[output..output + len]) {
            *total += bias;
        }
    }
    // SAFETY: the row and the outputs are in range, and no other thread writes these outputs.
    unsafe {
        let to = job.out.add(row * outputs + output);
        if len == PANEL {
            to.cast::<[f32; PANEL]>().write(totals);
        } else {
            to.copy_from_nonoverlapping(totals.as_ptr(), len);
        }
    }
}
