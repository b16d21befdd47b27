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

use std::ops::Range;

use half::{bf16, f16};
use rayon::prelude::*;

use self::block::{Job, OUTPUT_BLOCK, ROW_BLOCK};
use self::dot::Dot;
use self::portable::Portable;
use self::quantized::Groups;
use crate::isa::Isa;
use crate::scratch::{Plain, Scratch};
use crate::weight::{LinearShape, Weight};

/// Multiplications below which one thread is faster than a hand-off to several.
const SERIAL_PRODUCTS: usize = 1 << 19;
/// Elements of `x` below which one thread packs them.
const SERIAL_PACK: usize = 1 << 17;
/// Bytes of packed `x` worked on at a time.
const PANEL_BYTES: usize = 16 << 20;
/// Tasks per thread: threads that share their core with others then get less work.
const TASKS_PER_THREAD: usize = 4;

/// See [`crate::Kernels::linear`].
pub(crate) fn run(
    isa: Isa,
    x: &[f32],
    weight: Weight<'_>,
    bias: Option<&[f32]>,
    out: &mut [f32],
    shape: LinearShape,
) {
    let LinearShape {
        rows,
        inputs,
        outputs,
    } = shape;
    assert_eq!(x.len(), rows * inputs, "linear: `x` must be [rows, inputs]");
    assert_eq!(
        weight.len(),
        outputs * inputs,
        "linear: `weight` must be [outputs, inputs]"
    );
    assert_eq!(
        out.len(),
        rows * outputs,
        "linear: `out` must be [rows, outputs]"
    );
    if let Some(bias) = bias {
        assert_eq!(bias.len(), outputs, "linear: `bias` must be [outputs]");
    }
    // SAFETY: `isa` is available, by the contract of `Kernels`; the lengths were checked.
    unsafe {
        dispatch(
            isa,
            weight,
            Call {
                x,
                bias,
                out,
                shape,
            },
        )
    };
}

/// Picks the kernel for an instruction set and a dtype.
///
/// # Safety
/// The machine must support `isa`; `call` must be checked.
unsafe fn dispatch(isa: Isa, weight: Weight<'_>, call: Call<'_>) {
    // SAFETY: the caller's promise.
    unsafe {
        match weight {
            Weight::F32(weight) => match isa {
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => call.run::<avx2::F32>(weight),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 | Isa::Avx512Bf16 => call.run::<avx512::F32>(weight),
                #[cfg(target_arch = "aarch64")]
                Isa::Neon => call.run::<neon::F32>(weight),
                _ => call.run::<Portable<f32>>(weight),
            },
            Weight::Bf16(weight) => match isa {
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => call.run::<avx2::Bf16>(weight),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 => call.run::<avx512::Bf16>(weight),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512Bf16 => call.run::<avx512::Bf16Pairs>(weight),
                #[cfg(target_arch = "aarch64")]
                Isa::Neon => call.run::<neon::Bf16>(weight),
                _ => call.run::<Portable<bf16>>(weight),
            },
            Weight::F16(weight) => match isa {
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => call.run::<avx2::F16>(weight),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 | Isa::Avx512Bf16 => call.run::<avx512::F16>(weight),
                _ => call.run::<Portable<f16>>(weight),
            },
            Weight::Int8 {
                values,
                scales,
                group,
            } => {
                // The same bytes, read as unsigned ones.
                let values = std::slice::from_raw_parts(values.as_ptr().cast(), values.len());
                quantized::eight(
                    isa,
                    call,
                    Groups {
                        values,
                        scales,
                        group,
                    },
                );
            }
            Weight::Int4 {
                values,
                scales,
                group,
            } => {
                quantized::four(
                    isa,
                    call,
                    Groups {
                        values,
                        scales,
                        group,
                    },
                );
            }
        }
    }
}

/// The arguments of a call whose lengths were checked.
struct Call<'a> {
    x: &'a [f32],
    bias: Option<&'a [f32]>,
    out: &'a mut [f32],
    shape: LinearShape,
}

impl Call<'_> {
    /// Panel by panel of rows: packs the panel, then works on all outputs in parallel.
    ///
    /// # Safety
    /// The machine must support the instruction set, and all lengths fit the shape.
    unsafe fn run<D: Dot>(self, weight: &[D::Weight]) {
        let LinearShape {
            rows,
            inputs,
            outputs,
        } = self.shape;
        if rows == 0 || outputs == 0 {
            return;
        }
        let stride = inputs.next_multiple_of(D::STEP);
        let row_bytes = (stride * size_of::<D::Input>()).max(1);
        let panel = (PANEL_BYTES / row_bytes)
            .next_multiple_of(ROW_BLOCK)
            .min(rows);
        let mut scratch = Scratch::take();
        for first in (0..rows).step_by(panel) {
            let rows = panel.min(rows - first);
            let x = &self.x[first * inputs..][..rows * inputs];
            let packed = scratch.slice(rows * stride);
            let x = in_rows(x, inputs, stride, packed, |x, packed| {
                // SAFETY: the caller's promise; the packed row is as long as it must be.
                unsafe { D::pack(x, packed) };
            });
            let out = self.out[first * outputs..][..rows * outputs].as_mut_ptr();
            let job = Job {
                x,
                stride,
                rows,
                weight,
                inputs,
                outputs,
                bias: self.bias,
                out,
            };
            in_outputs(LinearShape { rows, ..self.shape }, |outputs| {
                // SAFETY: the caller's promise; ranges of outputs are disjoint.
                unsafe { D::run(&job, outputs) };
            });
        }
    }
}

/// Packs rows of `x` into `packed[rows, stride]`.
fn in_rows<'a, T: Plain>(
    x: &[f32],
    inputs: usize,
    stride: usize,
    packed: &'a mut [T],
    pack: impl Fn(&[f32], &mut [T]) + Sync,
) -> &'a [T] {
    if inputs == 0 {
        return packed;
    }
    if x.len() < SERIAL_PACK {
        let rows = x.chunks_exact(inputs).zip(packed.chunks_exact_mut(stride));
        rows.for_each(|(x, packed)| pack(x, packed));
    } else {
        let rows = x
            .par_chunks_exact(inputs)
            .zip(packed.par_chunks_exact_mut(stride));
        rows.for_each(|(x, packed)| pack(x, packed));
    }
    packed
}

/// Gives each thread some of the outputs.
fn in_outputs(shape: LinearShape, work: impl Fn(Range<usize>) + Sync) {
    let LinearShape {
        rows,
        inputs,
        outputs,
    } = shape;
    let tasks = rayon::current_num_threads() * TASKS_PER_THREAD;
    if rows * inputs * outputs < SERIAL_PRODUCTS || tasks <= TASKS_PER_THREAD {
        work(0..outputs);
        return;
    }
    let len = outputs.div_ceil(tasks).next_multiple_of(OUTPUT_BLOCK);
    let parts = (0..outputs.div_ceil(len)).into_par_iter().with_max_len(1);
    parts.for_each(|part| work(part * len..outputs.min((part + 1) * len)));
}
