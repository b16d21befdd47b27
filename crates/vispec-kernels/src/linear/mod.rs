//! Linear layers: `out[rows, outputs] = x[rows, inputs] · weight[outputs, inputs]ᵀ + bias`.

mod block;
mod dot;
mod pack;
mod portable;
mod tile;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;

use half::{bf16, f16};
use rayon::prelude::*;

use self::block::{Job, OUTPUT_BLOCK, ROW_BLOCK};
use self::dot::Dot;
use self::portable::Portable;
use crate::isa::Isa;
use crate::scratch::Scratch;
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
    let call = Call {
        x,
        bias,
        out,
        shape,
    };
    // SAFETY: `isa` is available, by the contract of `Kernels`; the lengths were checked.
    unsafe {
        match (isa, weight) {
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2, Weight::F32(weight)) => call.run::<avx2::F32>(weight),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2, Weight::Bf16(weight)) => call.run::<avx2::Bf16>(weight),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2, Weight::F16(weight)) => call.run::<avx2::F16>(weight),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512 | Isa::Avx512Bf16, Weight::F32(weight)) => {
                call.run::<avx512::F32>(weight);
            }
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512, Weight::Bf16(weight)) => call.run::<avx512::Bf16>(weight),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512Bf16, Weight::Bf16(weight)) => call.run::<avx512::Bf16Pairs>(weight),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512 | Isa::Avx512Bf16, Weight::F16(weight)) => {
                call.run::<avx512::F16>(weight);
            }
            #[cfg(target_arch = "aarch64")]
            (Isa::Neon, Weight::F32(weight)) => call.run::<neon::F32>(weight),
            #[cfg(target_arch = "aarch64")]
            (Isa::Neon, Weight::Bf16(weight)) => call.run::<neon::Bf16>(weight),
            (_, Weight::F32(weight)) => call.run::<Portable<f32>>(weight),
            (_, Weight::Bf16(weight)) => call.run::<Portable<bf16>>(weight),
            (_, Weight::F16(weight)) => call.run::<Portable<f16>>(weight),
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
            // SAFETY: the caller's promise.
            let x = unsafe { pack::<D>(x, inputs, stride, scratch.slice(rows * stride)) };
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
            // SAFETY: the caller's promise.
            unsafe { split::<D>(&job) };
        }
    }
}

/// Packs rows of `x` into `packed[rows, stride]`.
///
/// # Safety
/// The machine must support the instruction set.
unsafe fn pack<'a, D: Dot>(
    x: &[f32],
    inputs: usize,
    stride: usize,
    packed: &'a mut [D::Input],
) -> &'a [D::Input] {
    if inputs == 0 {
        return packed;
    }
    // SAFETY: the caller's promise; a packed row is as long as `Dot::pack` wants it.
    let pack = |x: &[f32], packed: &mut [D::Input]| unsafe { D::pack(x, packed) };
    if x.len() < SERIAL_PACK {
        x.chunks_exact(inputs)
            .zip(packed.chunks_exact_mut(stride))
            .for_each(|(x, packed)| pack(x, packed));
    } else {
        x.par_chunks_exact(inputs)
            .zip(packed.par_chunks_exact_mut(stride))
            .for_each(|(x, packed)| pack(x, packed));
    }
    packed
}

/// Gives each thread some of the outputs of a job.
///
/// # Safety
/// The machine must support the instruction set, and the job's lengths fit its axes.
unsafe fn split<D: Dot>(job: &Job<'_, D>) {
    let tasks = rayon::current_num_threads() * TASKS_PER_THREAD;
    if job.rows * job.inputs * job.outputs < SERIAL_PRODUCTS || tasks <= TASKS_PER_THREAD {
        // SAFETY: the caller's promise; all outputs go to this thread.
        unsafe { D::run(job, 0..job.outputs) };
        return;
    }
    let len = job.outputs.div_ceil(tasks).next_multiple_of(OUTPUT_BLOCK);
    (0..job.outputs.div_ceil(len))
        .into_par_iter()
        .with_max_len(1)
        .for_each(|task| {
            let outputs = task * len..job.outputs.min((task + 1) * len);
            // SAFETY: the caller's promise; tasks have disjoint outputs.
            unsafe { D::run(job, outputs) };
        });
}
