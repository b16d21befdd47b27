//! Gradients of queries, keys and values.

use std::ops::Range;

use super::scores::ScoreGradient;
use super::{AttendedGradient, BLOCK, CausalAttention, CausalGradients, blocks, pack_into, take};
use crate::isa::Isa;
use crate::matrix::{Panels, Strided, multiply, multiply_part, packed_len};
use crate::pool::Out;
use crate::scratch::Scratch;

/// See [`crate::Kernels::causal_attention_backward`].
pub(crate) fn run(
    isa: Isa,
    call: &CausalAttention<'_>,
    attended: AttendedGradient<'_>,
    gradients: CausalGradients<'_>,
) {
    call.check();
    assert!(
        attended.out.len() == call.q.len() && attended.gradient.len() == call.q.len(),
        "causal_attention_backward: `out` and `gradient` must be [rows, heads, head_dim]"
    );
    assert_eq!(
        attended.log_sums.len(),
        call.rows() * call.heads,
        "causal_attention_backward: `log_sums` must be [rows, heads]"
    );
    let CausalGradients { q, keys, values } = gradients;
    assert!(
        q.len() == call.q.len()
            && keys.len() == call.keys.len()
            && values.len() == call.values.len(),
        "causal_attention_backward: gradients must be as long as what they are of"
    );
    q.fill(0.0);
    keys.fill(0.0);
    values.fill(0.0);
    let to = To {
        q: Out(q.as_mut_ptr()),
        keys: Out(keys.as_mut_ptr()),
        values: Out(values.as_mut_ptr()),
    };
    call.for_each_head(|sample, kv_head| {
        let task = Task {
            isa,
            call,
            attended,
            sample,
            kv_head,
            to: &to,
        };
        // SAFETY: `isa` is available, by the contract of `Kernels`; lengths and samples were
        // checked, and tasks have heads of their own.
        unsafe { task.run() };
    });
}

/// Where gradients go.
struct To {
    q: Out,
    keys: Out,
    values: Out,
}

/// One key head of a sample.
struct Task<'a> {
    isa: Isa,
    call: &'a CausalAttention<'a>,
    attended: AttendedGradient<'a>,
    sample: &'a Range<usize>,
    kv_head: usize,
    to: &'a To,
}

/// Keys and values of a task, packed, and memory for a block of queries.
struct Packed<'a> {
    /// `[head_dim, rows]`.
    keys_across: Panels,
    /// `[rows, head_dim]`.
    keys: Panels,
    /// `[head_dim, rows]`.
    values_across: Panels,
    scores: &'a mut [f32],
    slopes: &'a mut [f32],
    rest: &'a mut [f32],
}

impl Task<'_> {
    /// # Safety
    /// The machine must support the instruction set; the slices must have these rows and heads,
    /// whose gradients no other thread may write meanwhile.
    unsafe fn run(&self) {
        let (rows, dim) = (self.sample.len(), self.call.head_dim);
        let across = packed_len(self.isa, dim, rows);
        let along = packed_len(self.isa, rows, dim);
        let block = packed_len(self.isa, BLOCK, dim);
        let mut scratch = Scratch::take();
        let mut memory = scratch.slice(2 * across + along + 2 * block + 2 * BLOCK * rows);
        let stride = self.call.kv_stride();
        let at = self.sample.start * stride + self.kv_head * dim;
        let along = |start| Strided {
            start,
            row: stride,
            column: 1,
        };
        let across = |start| Strided {
            start,
            row: 1,
            column: stride,
        };
        // SAFETY: the caller's promise: all places are rows of the sample, in the heads of the task.
        unsafe {
            let keys = self.call.keys.as_ptr().add(at);
            let values = self.call.values.as_ptr().add(at);
            let mut packed = Packed {
                keys_across: pack_into(self.isa, &mut memory, across(keys), [dim, rows]),
                keys: pack_into(self.isa, &mut memory, along(keys), [rows, dim]),
                values_across: pack_into(self.isa, &mut memory, across(values), [dim, rows]),
                scores: take(&mut memory, BLOCK * rows),
                slopes: take(&mut memory, BLOCK * rows),
                rest: memory,
            };
            let group = self.call.heads / self.call.kv_heads;
            for head in self.kv_head * group..(self.kv_head + 1) * group {
                for block in blocks(rows) {
                    self.block(&mut packed, head, &block);
                }
            }
        }
    }

    /// Adds what the queries `block` of a head contribute.
    ///
    /// # Safety
    /// As for [`Task::run`].
    unsafe fn block(&self, packed: &mut Packed<'_>, head: usize, block: &Range<usize>) {
        let (isa, call, dim) = (self.isa, self.call, self.call.head_dim);
        let (q_stride, kv_stride) = (call.q_stride(), call.kv_stride());
        let (seen, len) = (block.end, block.len());
        let row = self.sample.start + block.start;
        let at = row * q_stride + head * dim;
        let queries = |start: *const f32| Strided {
            start: start.wrapping_add(at),
            row: q_stride,
            column: 1,
        };
        let (q, gradient) = (
            queries(call.q.as_ptr()),
            queries(self.attended.gradient.as_ptr()),
        );
        let scores = &mut packed.scores[..len * seen];
        let slopes = &mut packed.slopes[..len * seen];
        scores.fill(0.0);
        slopes.fill(0.0);
        let sizes = [len, dim, seen];
        // SAFETY: the caller's promise.
        unsafe {
            multiply_part(isa, q, sizes, packed.keys_across, scores.as_mut_ptr(), seen);
            let to = slopes.as_mut_ptr();
            multiply_part(isa, gradient, sizes, packed.values_across, to, seen);
        }
        let lines = scores
            .chunks_exact_mut(seen)
            .zip(slopes.chunks_exact_mut(seen));
        for (index, (scores, slopes)) in lines.enumerate() {
            let own = block.start + index + 1;
            scores[own..].fill(0.0);
            slopes[own..].fill(0.0);
            let places = at + index * q_stride..at + index * q_stride + dim;
            let out = &self.attended.out[places.clone()];
            let gradient = &self.attended.gradient[places];
            let line = ScoreGradient {
                scores: &mut scores[..own],
                gradients: &mut slopes[..own],
                scale: call.scale,
                log_sum: self.attended.log_sums[(row + index) * call.heads + head],
                mean: out.iter().zip(gradient).map(|(out, g)| out * g).sum(),
            };
            // SAFETY: the caller's promise.
            unsafe { line.compute(isa) };
        }
        let (scores, slopes) = (scores.as_ptr(), slopes.as_ptr());
        let along = Strided {
            start: slopes,
            row: seen,
            column: 1,
        };
        let across = |start| Strided {
            start,
            row: 1,
            column: seen,
        };
        let kv_at = self.sample.start * kv_stride + self.kv_head * dim;
        let (keys, values) = (self.to.keys.at(kv_at), self.to.values.at(kv_at));
        // SAFETY: the caller's promise.
        unsafe {
            let sizes = [len, seen, dim];
            multiply_part(isa, along, sizes, packed.keys, self.to.q.at(at), q_stride);
            let mut memory = &mut *packed.rest;
            let q = pack_into(isa, &mut memory, q, [len, dim]);
            let gradient = pack_into(isa, &mut memory, gradient, [len, dim]);
            multiply(isa, across(slopes), seen, q, keys, kv_stride);
            multiply(isa, across(scores), seen, gradient, values, kv_stride);
        }
    }
}
