//! Forward pass: attention of queries to the keys before them.

use super::scores::softmax;
use super::{
    Attended, BLOCK, CausalAttention, CausalSample, add_scaled, blocks, dot, pack_into, take,
};
use crate::isa::Isa;
use crate::pool::Out;
use crate::scratch::Scratch;
use crate::training::matrix::{Strided, multiply_part, packed_len};

/// See [`crate::Kernels::causal_attention`].
pub(crate) fn run(isa: Isa, call: &CausalAttention<'_>, attended: Attended<'_>) {
    call.check();
    let Attended { out, log_sums } = attended;
    assert_eq!(
        out.len(),
        call.q.len(),
        "causal_attention: `out` must be [queries, heads, head_dim]"
    );
    assert_eq!(
        log_sums.len(),
        call.queries() * call.heads,
        "causal_attention: `log_sums` must be [queries, heads]"
    );
    out.fill(0.0);
    let (out, log_sums) = (Out(out.as_mut_ptr()), Out(log_sums.as_mut_ptr()));
    call.for_each_head(|sample, kv_head| {
        // SAFETY: `Kernels` guarantees that `isa` is available; lengths and samples were checked,
        // and no two tasks share a head.
        unsafe { attend(isa, call, sample, kv_head, out, log_sums) };
    });
}

/// # Safety
/// The CPU must support `isa`; the slices of `call`, `out` and `log_sums` must have these queries,
/// rows and heads; no other thread may write these places of `out` and `log_sums` meanwhile.
unsafe fn attend(
    isa: Isa,
    call: &CausalAttention<'_>,
    sample: &CausalSample,
    kv_head: usize,
    out: Out,
    log_sums: Out,
) {
    let (rows, dim) = (sample.rows.len(), call.head_dim);
    let (q_stride, kv_stride) = (call.q_stride(), call.kv_stride());
    let group = call.heads / call.kv_heads;
    let n_own = call.own.len();
    let mut scratch = Scratch::take();
    let lens = packed_len(isa, dim, rows) + packed_len(isa, rows, dim);
    let mut memory = scratch.slice(lens + BLOCK * (n_own + rows));
    let at = sample.rows.start * kv_stride + kv_head * dim;
    // SAFETY: upheld by the caller: all places belong to the sample, in the heads of the task.
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
        let scores = take(&mut memory, BLOCK * (n_own + rows));
        for head in kv_head * group..(kv_head + 1) * group {
            for block in blocks(sample.queries.len()) {
                let seen = sample.seen(block.end - 1);
                let query = sample.queries.start + block.start;
                // Scores of own keys come first.
                let line = n_own + seen;
                let q_at = query * q_stride + head * dim;
                let q = Strided {
                    start: call.q.as_ptr().add(q_at),
                    row: q_stride,
                    column: 1,
                };
                let scores = &mut scores[..block.len() * line];
                scores.fill(0.0);
                let sizes = [block.len(), dim, seen];
                multiply_part(isa, q, sizes, keys, scores.as_mut_ptr().add(n_own), line);
                let mut factors = [0.0; BLOCK];
                let lines = scores.chunks_exact_mut(line).zip(&mut factors);
                for (index, (scores, factor)) in lines.enumerate() {
                    let q = &call.q[q_at + index * q_stride..][..dim];
                    let own_at = (query + index) * kv_stride + kv_head * dim;
                    for (score, own) in scores.iter_mut().zip(call.own) {
                        *score = dot(q, &own.keys[own_at..own_at + dim]);
                    }
                    let sees = n_own + sample.seen(block.start + index);
                    let (log_sum, total) = softmax(isa, scores, sees, call.scale);
                    *log_sums.at((query + index) * call.heads + head) = log_sum;
                    *factor = 1.0 / total;
                }
                let weights = Strided {
                    start: scores.as_ptr().add(n_own),
                    row: line,
                    column: 1,
                };
                let to = out.at(q_at);
                let sizes = [block.len(), seen, dim];
                multiply_part(isa, weights, sizes, values, to, q_stride);
                let lines = scores.chunks_exact(line).zip(factors);
                for (index, (weights, factor)) in lines.enumerate() {
                    let to = std::slice::from_raw_parts_mut(to.add(index * q_stride), dim);
                    let own_at = (query + index) * kv_stride + kv_head * dim;
                    for (weight, own) in weights.iter().zip(call.own) {
                        add_scaled(to, *weight, &own.values[own_at..own_at + dim]);
                    }
                    for value in to {
                        *value *= factor;
                    }
                }
            }
        }
    }
}
