//! Backward pass: gradients of queries, keys and values.

use std::ops::Range;

use super::scores::ScoreGradient;
use super::{
    AttendedGradient, BLOCK, CausalAttention, CausalGradients, CausalSample, add_scaled, blocks,
    dot, pack_into, take,
};
use crate::isa::Isa;
use crate::pool::Out;
use crate::scratch::Scratch;
use crate::training::matrix::{Panels, Strided, multiply, multiply_part, packed_len};

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
        "causal_attention_backward: `out` and `gradient` must be [queries, heads, \
         head_dim]"
    );
    assert_eq!(
        attended.log_sums.len(),
        call.queries() * call.heads,
        "causal_attention_backward: `log_sums` must be [queries, heads]"
    );
    let CausalGradients {
        q,
        keys,
        values,
        own,
    } = gradients;
    let own_fits = own.iter().zip(call.own).all(|(gradient, own)| {
        gradient.keys.len() == own.keys.len() && gradient.values.len() == own.values.len()
    });
    assert!(
        q.len() == call.q.len()
            && keys.len() == call.keys.len()
            && values.len() == call.values.len()
            && own.len() == call.own.len()
            && own_fits,
        "causal_attention_backward: gradients must have the lengths of their inputs"
    );
    let zeroed = |values: &mut [f32]| {
        values.fill(0.0);
        Out(values.as_mut_ptr())
    };
    let own = own.iter_mut();
    let to = To {
        q: zeroed(q),
        keys: zeroed(keys),
        values: zeroed(values),
        own: own
            .map(|own| [zeroed(own.keys), zeroed(own.values)])
            .collect(),
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
        // SAFETY: `Kernels` guarantees that `isa` is available; lengths and samples were checked,
        // and no two tasks share a head.
        unsafe { task.run() };
    });
}

/// Destinations of the gradients.
struct To {
    q: Out,
    keys: Out,
    values: Out,
    /// Keys and values of each entry of the own keys.
    own: Vec<[Out; 2]>,
}

/// One key head of a sample.
struct Task<'a> {
    isa: Isa,
    call: &'a CausalAttention<'a>,
    attended: AttendedGradient<'a>,
    sample: &'a CausalSample,
    kv_head: usize,
    to: &'a To,
}

/// Packed keys and values of a task, and buffers for a block of queries.
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
    /// The CPU must support the instruction set; the slices must have these rows and heads; no
    /// other thread may write the gradients of these meanwhile.
    unsafe fn run(&self) {
        let (rows, dim) = (self.sample.rows.len(), self.call.head_dim);
        let line = self.call.own.len() + rows;
        let across = packed_len(self.isa, dim, rows);
        let along = packed_len(self.isa, rows, dim);
        let block = packed_len(self.isa, BLOCK, dim);
        let mut scratch = Scratch::take();
        let mut memory = scratch.slice(2 * across + along + 2 * block + 2 * BLOCK * line);
        let stride = self.call.kv_stride();
        let at = self.sample.rows.start * stride + self.kv_head * dim;
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
        // SAFETY: upheld by the caller: all places are rows of the sample, in the heads of the
        // task.
        unsafe {
            let keys = self.call.keys.as_ptr().add(at);
            let values = self.call.values.as_ptr().add(at);
            let mut packed = Packed {
                keys_across: pack_into(self.isa, &mut memory, across(keys), [dim, rows]),
                keys: pack_into(self.isa, &mut memory, along(keys), [rows, dim]),
                values_across: pack_into(self.isa, &mut memory, across(values), [dim, rows]),
                scores: take(&mut memory, BLOCK * line),
                slopes: take(&mut memory, BLOCK * line),
                rest: memory,
            };
            let group = self.call.heads / self.call.kv_heads;
            for head in self.kv_head * group..(self.kv_head + 1) * group {
                for block in blocks(self.sample.queries.len()) {
                    self.block(&mut packed, head, &block);
                }
            }
        }
    }

    /// Adds the contribution of the queries `block` of a head.
    ///
    /// # Safety
    /// Same as [`Task::run`].
    unsafe fn block(&self, packed: &mut Packed<'_>, head: usize, block: &Range<usize>) {
        let (isa, call, dim) = (self.isa, self.call, self.call.head_dim);
        let (q_stride, kv_stride) = (call.q_stride(), call.kv_stride());
        let (n_own, seen, len) = (call.own.len(), self.sample.seen(block.end - 1), block.len());
        // Scores of own keys come first.
        let line = n_own + seen;
        let query = self.sample.queries.start + block.start;
        let at = query * q_stride + head * dim;
        let queries = |start: *const f32| Strided {
            start: start.wrapping_add(at),
            row: q_stride,
            column: 1,
        };
        let (q, gradient) = (
            queries(call.q.as_ptr()),
            queries(self.attended.gradient.as_ptr()),
        );
        let scores = &mut packed.scores[..len * line];
        let slopes = &mut packed.slopes[..len * line];
        scores.fill(0.0);
        slopes.fill(0.0);
        let sizes = [len, dim, seen];
        // SAFETY: upheld by the caller.
        unsafe {
            let to = scores.as_mut_ptr().add(n_own);
            multiply_part(isa, q, sizes, packed.keys_across, to, line);
            let to = slopes.as_mut_ptr().add(n_own);
            multiply_part(isa, gradient, sizes, packed.values_across, to, line);
        }
        let lines = scores
            .chunks_exact_mut(line)
            .zip(slopes.chunks_exact_mut(line));
        for (index, (scores, slopes)) in lines.enumerate() {
            let sees = n_own + self.sample.seen(block.start + index);
            scores[sees..].fill(0.0);
            slopes[sees..].fill(0.0);
            // SAFETY: upheld by the caller.
            unsafe {
                self.query(
                    head,
                    query + index,
                    &mut scores[..sees],
                    &mut slopes[..sees],
                )
            };
        }
        let (scores, slopes) = (scores.as_ptr(), slopes.as_ptr());
        let (scores, slopes) = (scores.wrapping_add(n_own), slopes.wrapping_add(n_own));
        let along = Strided {
            start: slopes,
            row: line,
            column: 1,
        };
        let across = |start| Strided {
            start,
            row: 1,
            column: line,
        };
        let kv_at = self.sample.rows.start * kv_stride + self.kv_head * dim;
        let (keys, values) = (self.to.keys.at(kv_at), self.to.values.at(kv_at));
        // SAFETY: upheld by the caller.
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

    /// Turns the products of one query with keys, and of its gradient with values, into
    /// probabilities and gradients of scores. Adds the gradients of the query's own keys and
    /// values.
    ///
    /// # Safety
    /// Same as [`Task::run`].
    unsafe fn query(&self, head: usize, query: usize, scores: &mut [f32], slopes: &mut [f32]) {
        let (call, dim) = (self.call, self.call.head_dim);
        let at = query * call.q_stride() + head * dim;
        let q = &call.q[at..at + dim];
        let out = &self.attended.out[at..at + dim];
        let gradient = &self.attended.gradient[at..at + dim];
        let own_at = query * call.kv_stride() + self.kv_head * dim;
        let own_places = own_at..own_at + dim;
        for (own, (score, slope)) in call.own.iter().zip(scores.iter_mut().zip(&mut *slopes)) {
            *score = dot(q, &own.keys[own_places.clone()]);
            *slope = dot(gradient, &own.values[own_places.clone()]);
        }
        let scored = ScoreGradient {
            scores: &mut *scores,
            gradients: &mut *slopes,
            scale: call.scale,
            log_sum: self.attended.log_sums[query * call.heads + head],
            mean: dot(out, gradient),
        };
        // SAFETY: upheld by the caller.
        unsafe { scored.compute(self.isa) };
        let own = call.own.iter().zip(&self.to.own);
        for ((own, to), (weight, slope)) in own.zip(scores.iter().zip(&*slopes)) {
            // SAFETY: upheld by the caller: the query's heads are those of the task.
            let [to_keys, to_values, to_q] = unsafe {
                let floats = |out: Out, at| std::slice::from_raw_parts_mut(out.at(at), dim);
                [
                    floats(to[0], own_at),
                    floats(to[1], own_at),
                    floats(self.to.q, at),
                ]
            };
            add_scaled(to_keys, *slope, q);
            add_scaled(to_values, *weight, gradient);
            add_scaled(to_q, *slope, &own.keys[own_places.clone()]);
        }
    }
}
