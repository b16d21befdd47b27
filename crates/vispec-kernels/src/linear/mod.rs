//! Linear layers: `out[rows, outputs] = x[rows, inputs] · weight[outputs, inputs]ᵀ + bias`.

mod block;
mod dot;
mod pack;
mod portable;
mod quantized;
mod tile;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;

use std::mem::{Discriminant, discriminant};
use std::ops::Range;

use half::{bf16, f16};

use self::block::{OUTPUT_BLOCK, ROW_BLOCK};
pub(crate) use self::dot::{Cache, prefetch};
use self::dot::{Dot, Job, Stored};
use self::portable::Portable;
pub(crate) use self::tile::AHEAD_BYTES;
use crate::isa::Isa;
use crate::panel::Bits;
use crate::pool;
use crate::scratch::{Plain, Scratch};
use crate::weight::{GroupedLinear, Weight};

/// Number of elements of `x` below which a single thread packs them.
const SERIAL_PACK: usize = 1 << 17;
/// Maximum size in bytes of `x` that is packed and processed at a time.
const PANEL_BYTES: usize = 16 << 20;
/// Size of a cache line in bytes.
pub(crate) const CACHE_LINE: usize = 64;
/// Tasks per thread; more than one, so that threads that share their core with others get less
/// work.
const TASKS_PER_THREAD: usize = 4;

/// See [`crate::Kernels::linear_group`].
pub(crate) fn run(
    isa: Isa,
    x: &[f32],
    rows: usize,
    inputs: usize,
    layers: &mut [GroupedLinear<'_>],
) {
    assert_eq!(x.len(), rows * inputs, "linear: `x` must be [rows, inputs]");
    for layer in &*layers {
        check(layer, rows, inputs);
    }
    let panel = (PANEL_BYTES / (inputs * size_of::<f32>()).max(1)).next_multiple_of(ROW_BLOCK);
    for layers in layers.chunk_by_mut(|a, b| packing(&a.weight) == packing(&b.weight)) {
        for first in (0..rows).step_by(panel) {
            let rows = first..rows.min(first + panel);
            let call = Call {
                x: &x[rows.start * inputs..rows.end * inputs],
                rows,
                inputs,
                layers,
            };
            // SAFETY: `Kernels` guarantees that `isa` is available; the lengths were checked.
            unsafe { dispatch(isa, call) };
        }
    }
}

/// Panics unless the slices of a layer have matching lengths.
fn check(layer: &GroupedLinear<'_>, rows: usize, inputs: usize) {
    let outputs = layer.outputs;
    assert_eq!(
        layer.weight.len(),
        outputs * inputs,
        "linear: `weight` must be [outputs, inputs]"
    );
    assert_eq!(
        layer.out.len(),
        rows * outputs,
        "linear: `out` must be [rows, outputs]"
    );
    if let Some(bias) = layer.bias {
        assert_eq!(bias.len(), outputs, "linear: `bias` must be [outputs]");
    }
    if let Weight::Quantized(panels) = layer.weight {
        assert_eq!(
            panels.layout.inputs, inputs,
            "linear: a quantised `weight` must be [outputs, inputs]"
        );
    }
}

/// Returns what determines how rows are packed: the dtype and, for quantised weights, the group
/// size and width.
fn packing<'a>(weight: &Weight<'a>) -> (Discriminant<Weight<'a>>, Option<(usize, Bits)>) {
    let quantized = match weight {
        Weight::Quantized(panels) => Some((panels.layout.group, panels.layout.bits)),
        Weight::F32(_) | Weight::Bf16(_) | Weight::F16(_) => None,
    };
    (discriminant(weight), quantized)
}

/// Selects the kernel for an instruction set and a dtype.
///
/// # Safety
/// The CPU must support `isa`; `call` must be checked.
unsafe fn dispatch(isa: Isa, call: Call<'_, '_>) {
    let Some(layer) = call.layers.first() else {
        return;
    };
    // SAFETY: upheld by the caller.
    unsafe {
        match layer.weight {
            Weight::F32(_) => match isa {
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => call.run::<avx2::F32>(),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 | Isa::Avx512Vnni | Isa::Avx512Bf16 => call.run::<avx512::F32>(),
                #[cfg(target_arch = "aarch64")]
                Isa::Neon => call.run::<neon::F32>(),
                _ => call.run::<Portable<f32>>(),
            },
            Weight::Bf16(_) => match isa {
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => call.run::<avx2::Bf16>(),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 | Isa::Avx512Vnni => call.run::<avx512::Bf16>(),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512Bf16 => call.run::<avx512::Bf16Pairs>(),
                #[cfg(target_arch = "aarch64")]
                Isa::Neon => call.run::<neon::Bf16>(),
                _ => call.run::<Portable<bf16>>(),
            },
            Weight::F16(_) => match isa {
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => call.run::<avx2::F16>(),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 | Isa::Avx512Vnni | Isa::Avx512Bf16 => call.run::<avx512::F16>(),
                _ => call.run::<Portable<f16>>(),
            },
            Weight::Quantized(panels) => quantized::dispatch(isa, call, panels.layout),
        }
    }
}

/// Some rows, and layers with the same packing; lengths are checked.
struct Call<'a, 'b> {
    x: &'a [f32],
    /// The rows of the outputs that this call computes.
    rows: Range<usize>,
    inputs: usize,
    layers: &'a mut [GroupedLinear<'b>],
}

impl Call<'_, '_> {
    /// Packs the rows, then computes all outputs in parallel.
    ///
    /// # Safety
    /// The CPU must support the instruction set, and all lengths must match.
    unsafe fn run<D: Dot>(self) {
        let (rows, inputs) = (self.rows.len(), self.inputs);
        let padded = inputs.next_multiple_of(D::STEP);
        let line = CACHE_LINE / size_of::<D::Input>();
        // An odd number of lines keeps the rows of a tile from mapping to the same cache sets.
        let stride = (padded.div_ceil(line) | 1) * line;
        let mut scratch = Scratch::take();
        let packed = scratch.slice(rows * stride);
        let x = in_rows(self.x, inputs, stride, packed, |x, packed| {
            // SAFETY: upheld by the caller; the packed row has the required length.
            unsafe { D::pack(x, &mut packed[..padded]) };
        });
        let jobs = self.layers.iter_mut().map(|layer| Job {
            x,
            stride,
            rows,
            weight: D::Weight::of(&layer.weight).expect("layers of a call have the same packing"),
            inputs,
            outputs: layer.outputs,
            bias: layer.bias,
            out: layer.out[self.rows.start * layer.outputs..].as_mut_ptr(),
        });
        let jobs: Vec<_> = jobs.collect();
        let outputs: Vec<_> = jobs.iter().map(|job| job.outputs).collect();
        in_outputs(rows * inputs, &outputs, OUTPUT_BLOCK, |layer, outputs| {
            // SAFETY: upheld by the caller; ranges of outputs are disjoint.
            unsafe { block::run::<D>(&jobs[layer], outputs) };
        });
    }
}

/// Packs rows of `x` into `packed[rows, stride]`.
fn in_rows<'a, T: Plain>(
    x: &[f32],
    inputs: usize,
    stride: usize,
    packed: &'a mut [T],
    pack: impl Fn(&[f32], &mut [T]) + Sync + Send,
) -> &'a [T] {
    if inputs == 0 {
        return packed;
    }
    if x.len() < SERIAL_PACK {
        let rows = x.chunks_exact(inputs).zip(packed.chunks_exact_mut(stride));
        rows.for_each(|(x, packed)| pack(x, packed));
    } else {
        pool::for_each_row(packed, stride, |row, packed| {
            pack(&x[row * inputs..(row + 1) * inputs], packed);
        });
    }
    packed
}

/// Splits the outputs of all layers into tasks of whole blocks.
fn in_outputs(
    products: usize,
    outputs: &[usize],
    block: usize,
    work: impl Fn(usize, Range<usize>) + Sync + Send,
) {
    let blocks: usize = outputs.iter().map(|len| len.div_ceil(block)).sum();
    let part = |part: Range<usize>| {
        let mut first = 0;
        for (layer, &len) in outputs.iter().enumerate() {
            let end = first + len.div_ceil(block);
            let own = part.start.max(first)..part.end.min(end);
            if !own.is_empty() {
                let outputs = (own.start - first) * block..(own.end - first) * block;
                work(layer, outputs.start..outputs.end.min(len));
            }
            first = end;
        }
    };
    if !pool::pays(products * outputs.iter().sum::<usize>()) {
        part(0..blocks);
        return;
    }
    let tasks = pool::n_threads() * TASKS_PER_THREAD;
    let len = blocks.div_ceil(tasks);
    pool::for_each(blocks.div_ceil(len), |index| {
        part(index * len..blocks.min((index + 1) * len));
    });
}
