//! Attention of queries to the keys before them.

use std::ops::Range;

use super::scores::softmax;
use super::{Attended, BLOCK, CausalAttention, blocks, pack_into, take};
use crate::isa::Isa;
use crate::matrix::{Strided, multiply_part, packed_len};
use crate::pool::Out;
use crate::scratch::Scratch;

/// See [`crate::Kernels::causal_attention`].
pub(crate) fn run(isa: Isa, call: &CausalAttention<'_>, attended: Attended<'_>) {
    call.check();
    let Attended { out, log_sums } = attended;
    assert_eq!(
        out.len(),
        call.q.len(),
        "causal_attention: `out` must be [rows, heads, head_dim]"
    );
    assert_eq!(
        log_sums.len(),
        call.rows() * call.heads,
        "causal_attention: `log_sums` must be [rows, heads]"
    );
    out.fill(0.0);
    let (out, log_sums) = (Out(out.as_mut_ptr()), Out(log_sums.as_mut_ptr()));
    call.for_each_head(|sample, kv_head| {
        // SAFETY: `isa` is available, by the contract of `Kernels`; lengths and samples were
        // checked, and tasks have heads of their own.
        unsafe { attend(isa, call, sample, kv_head, out, log_sums) };
    });
}

/// # Safety
/// The machine must support `isa`; the slices of `call`, `out` and `log_sums` must have these rows
/// and heads, which no other thread may write meanwhile.
unsafe fn attend(
    isa: Isa,
    call: &CausalAttention<'_>,
    sample: &Range<usize>,
    kv_head: usize,
    out: Out,
    log_sums: Out,
) {
    let (rows, dim) = (sample.len(), call.head_dim);
    let (q_stride, kv_stride) = (call.q_stride(), call.kv_stride());
    let group = call.heads / call.kv_heads;
    let mut scratch = Scratch::take();
    let lens = packed_len(isa, dim, rows) + packed_len(isa, rows, dim);
    let mut memory = scratch.slice(lens + BLOCK * rows);
    let at = sample.start * kv_stride + kv_head * dim;
    // SAFETY: the caller's promise: all places are rows of the sample, in the heads of the task.
    unsafe {
        let keys = Strided {
            start: call.keys.as_ptr().add(at),
            row: 1,
            column: kv_stride,
        };
        let values = Strided {
            start: call.values.as_ptr().add(at),
            row: kv_stride,
            column: 1,
        };
        let keys = pack_into(isa, &mut memory, keys, [dim, rows]);
        let values = pack_into(isa, &mut memory, values, [rows, dim]);
        let scores = take(&mut memory, BLOCK * rows);
        for head in kv_head * group..(kv_head + 1) * group {
            for block in blocks(rows) {
                let (seen, row) = (block.end, sample.start + block.start);
                let q = Strided {
                    start: call.q.as_ptr().add(row * q_stride + head * dim),
                    row: q_stride,
                    column: 1,
                };
                let scores = &mut scores[..block.len() * seen];
                scores.fill(0.0);
                let sizes = [block.len(), dim, seen];
                multiply_part(isa, q, sizes, keys, scores.as_mut_ptr(), seen);
                let mut factors = [0.0; BLOCK];
                let lines = scores.chunks_exact_mut(seen).zip(&mut factors);
                for (index, (scores, factor)) in lines.enumerate() {
                    let own = block.start + index + 1;
                    let (log_sum, total) = softmax(isa, scores, own, call.scale);
                    *log_sums.at((row + index) * call.heads + head) = log_sum;
                    *factor = 1.0 / total;
                }
                let weights = Strided {
                    start: scores.as_ptr(),
                    row: seen,
                    column: 1,
                };
                let to = out.at(row * q_stride + head * dim);
                let sizes = [block.len(), seen, dim];
                multiply_part(isa, weights, sizes, values, to, q_stride);
                for (index, factor) in factors[..block.len()].iter().enumerate() {
                    for place in 0..dim {
                        *to.add(index * q_stride + place) *= factor;
                    }
                }
            }
        }
    }
}
