//! Causal self-attention over whole samples, and its gradients, for training.
//!
//! Scores exist for a few queries of a head at a time. The way back computes them again from the
//! logarithms of their sums, which are all that is kept. Each key head of a sample is one task, with
//! a fixed order of sums; so results do not depend on the number of threads.

mod backward;
mod forward;
mod scores;

use std::ops::Range;

pub(crate) use self::backward::run as backward;
pub(crate) use self::forward::run as forward;
use crate::isa::Isa;
use crate::matrix::{Panels, Strided, pack, packed_len};
use crate::pool;

/// Queries whose scores are there at a time. Every tile height divides it.
const BLOCK: usize = 48;

/// Causal self-attention of several samples, each for itself: a row sees itself and the rows of its
/// sample before it.
#[derive(Clone, Copy, Debug)]
pub struct CausalAttention<'a> {
    /// `[rows, heads, head_dim]`.
    pub q: &'a [f32],
    /// `[rows, kv_heads, head_dim]`.
    pub keys: &'a [f32],
    /// `[rows, kv_heads, head_dim]`.
    pub values: &'a [f32],
    /// Rows of each sample, ascending.
    pub samples: &'a [Range<usize>],
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Length of a head.
    pub head_dim: usize,
    /// Factor of the scores, most often `1 / sqrt(head_dim)`.
    pub scale: f32,
}

/// What the way forth gives, and the way back needs.
#[derive(Debug)]
pub struct Attended<'a> {
    /// `[rows, heads, head_dim]`.
    pub out: &'a mut [f32],
    /// Logarithms of the sums of exponentials of each query's scores, `[rows, heads]`.
    pub log_sums: &'a mut [f32],
}

/// What the way back reads: results of the way forth, and the gradient of `out`.
#[derive(Clone, Copy, Debug)]
pub struct AttendedGradient<'a> {
    /// `[rows, heads, head_dim]`.
    pub out: &'a [f32],
    /// `[rows, heads]`.
    pub log_sums: &'a [f32],
    /// `[rows, heads, head_dim]`.
    pub gradient: &'a [f32],
}

/// Gradients of what [`CausalAttention`] reads, in its shapes.
#[derive(Debug)]
pub struct CausalGradients<'a> {
    /// `[rows, heads, head_dim]`.
    pub q: &'a mut [f32],
    /// `[rows, kv_heads, head_dim]`.
    pub keys: &'a mut [f32],
    /// `[rows, kv_heads, head_dim]`.
    pub values: &'a mut [f32],
}

impl CausalAttention<'_> {
    /// Panics unless all slices fit.
    fn check(&self) {
        let fits = self.kv_heads > 0 && self.heads.is_multiple_of(self.kv_heads);
        assert!(fits, "causal_attention: `kv_heads` must divide `heads`");
        let rows = self.rows();
        assert_eq!(
            self.q.len(),
            rows * self.heads * self.head_dim,
            "causal_attention: `q` must be [rows, heads, head_dim]"
        );
        let len = rows * self.kv_heads * self.head_dim;
        assert!(
            self.keys.len() == len && self.values.len() == len,
            "causal_attention: keys and values must be [rows, kv_heads, head_dim]"
        );
        let mut end = 0;
        for sample in self.samples {
            assert!(
                end <= sample.start && sample.start <= sample.end,
                "causal_attention: samples must ascend"
            );
            end = sample.end;
        }
        assert!(
            end <= rows,
            "causal_attention: samples must lie in the rows"
        );
    }

    fn rows(&self) -> usize {
        self.q.len().checked_div(self.q_stride()).unwrap_or(0)
    }

    /// Floats from one row of queries to the next.
    fn q_stride(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Floats from one row of keys to the next.
    fn kv_stride(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Runs `work` for each key head of each sample, with the index of the head.
    fn for_each_head(&self, work: impl Fn(&Range<usize>, usize) + Sync + Send) {
        let products: usize = self
            .samples
            .iter()
            .map(|sample| sample.len() * sample.len() * self.q_stride())
            .sum();
        let task = |task: usize| work(&self.samples[task / self.kv_heads], task % self.kv_heads);
        let tasks = self.samples.len() * self.kv_heads;
        if pool::pays(products) {
            pool::for_each(tasks, task);
        } else {
            (0..tasks).for_each(task);
        }
    }
}

/// Blocks of queries of a sample of `rows` rows.
fn blocks(rows: usize) -> impl Iterator<Item = Range<usize>> {
    (0..rows)
        .step_by(BLOCK)
        .map(move |start| start..rows.min(start + BLOCK))
}

/// Takes `len` floats from the front of `memory`.
fn take<'a>(memory: &mut &'a mut [f32], len: usize) -> &'a mut [f32] {
    let (front, rest) = std::mem::take(memory).split_at_mut(len);
    *memory = rest;
    front
}

/// Packs `from` `[inner, columns]` into `memory`.
///
/// # Safety
/// The machine must support `isa`, and `from` be readable.
unsafe fn pack_into(
    isa: Isa,
    memory: &mut &mut [f32],
    from: Strided,
    [inner, columns]: [usize; 2],
) -> Panels {
    let packed = take(memory, packed_len(isa, inner, columns));
    // SAFETY: the caller's promise; there is room.
    unsafe { pack(isa, from, inner, columns, packed.as_mut_ptr()) };
    Panels::packed(isa, packed.as_ptr(), inner, columns)
}
