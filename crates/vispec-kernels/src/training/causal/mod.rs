//! Causal self-attention over whole samples, and its gradients, for training.
//!
//! Queries may also be those of a draft that goes on alone from each row: the k-th further pass over
//! a sample sees the keys of the first pass up to the row that it starts from, and of the passes
//! after that the keys of its own row only ([`OwnKeys`]).
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
use crate::pool;
use crate::training::matrix::{Panels, Strided, pack, packed_len};

/// Queries whose scores are there at a time. Every tile height divides it.
const BLOCK: usize = 48;

/// Causal attention of several samples, each for itself.
#[derive(Clone, Copy, Debug)]
pub struct CausalAttention<'a> {
    /// `[queries, heads, head_dim]`.
    pub q: &'a [f32],
    /// `[rows, kv_heads, head_dim]`.
    pub keys: &'a [f32],
    /// `[rows, kv_heads, head_dim]`.
    pub values: &'a [f32],
    /// What belongs to each sample, ascending.
    pub samples: &'a [CausalSample],
    /// Keys and values that one query each sees besides.
    pub own: &'a [OwnKeys<'a>],
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Length of a head.
    pub head_dim: usize,
    /// Factor of the scores, most often `1 / sqrt(head_dim)`.
    pub scale: f32,
}

/// Queries and rows of a sample. Query `i` of the sample sees its first `first + i` rows; all of them
/// if `first` is their number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CausalSample {
    /// Queries.
    pub queries: Range<usize>,
    /// Rows of keys and values.
    pub rows: Range<usize>,
    /// Rows that the first query sees.
    pub first: usize,
}

impl CausalSample {
    /// A sample that attends to itself: each row sees itself and those before it.
    #[must_use]
    pub fn of_itself(rows: Range<usize>) -> Self {
        Self {
            queries: rows.clone(),
            rows,
            first: 1,
        }
    }

    /// A sample that attends to itself, each row to all of them: not causal.
    #[must_use]
    pub fn of_all(rows: Range<usize>) -> Self {
        Self {
            queries: rows.clone(),
            first: rows.len(),
            rows,
        }
    }

    /// Rows that the query at `index` sees.
    fn seen(&self, index: usize) -> usize {
        (self.first + index).min(self.rows.len())
    }

    /// Whether queries see at least one row, and rows of the sample only.
    fn is_sound(&self) -> bool {
        let last = self.first + self.queries.len().saturating_sub(1);
        let rows = self.rows.len();
        self.queries.is_empty() || self.first > 0 && (self.first == rows || last <= rows)
    }
}

/// A key and a value for each query alone.
#[derive(Clone, Copy, Debug)]
pub struct OwnKeys<'a> {
    /// `[queries, kv_heads, head_dim]`.
    pub keys: &'a [f32],
    /// `[queries, kv_heads, head_dim]`.
    pub values: &'a [f32],
}

/// Gradients of [`OwnKeys`], in their shapes.
#[derive(Debug)]
pub struct OwnGradients<'a> {
    /// `[queries, kv_heads, head_dim]`.
    pub keys: &'a mut [f32],
    /// `[queries, kv_heads, head_dim]`.
    pub values: &'a mut [f32],
}

/// Forward outputs that the backward pass needs.
#[derive(Debug)]
pub struct Attended<'a> {
    /// `[queries, heads, head_dim]`.
    pub out: &'a mut [f32],
    /// Logarithms of the sums of exponentials of each query's scores, `[queries, heads]`.
    pub log_sums: &'a mut [f32],
}

/// What the backward pass reads: forward outputs, and the gradient of `out`.
#[derive(Clone, Copy, Debug)]
pub struct AttendedGradient<'a> {
    /// `[queries, heads, head_dim]`.
    pub out: &'a [f32],
    /// `[queries, heads]`.
    pub log_sums: &'a [f32],
    /// `[queries, heads, head_dim]`.
    pub gradient: &'a [f32],
}

/// Gradients of what [`CausalAttention`] reads, in its shapes.
#[derive(Debug)]
pub struct CausalGradients<'a> {
    /// `[queries, heads, head_dim]`.
    pub q: &'a mut [f32],
    /// `[rows, kv_heads, head_dim]`.
    pub keys: &'a mut [f32],
    /// `[rows, kv_heads, head_dim]`.
    pub values: &'a mut [f32],
    /// Of each of the own keys.
    pub own: &'a mut [OwnGradients<'a>],
}

impl CausalAttention<'_> {
    /// Panics unless all slices fit.
    fn check(&self) {
        let fits = self.kv_heads > 0 && self.heads.is_multiple_of(self.kv_heads);
        assert!(fits, "causal_attention: `kv_heads` must divide `heads`");
        let queries = self.queries();
        assert_eq!(
            self.q.len(),
            queries * self.heads * self.head_dim,
            "causal_attention: `q` must be [queries, heads, head_dim]"
        );
        let rows = self.keys.len().checked_div(self.kv_stride()).unwrap_or(0);
        let len = rows * self.kv_stride();
        assert!(
            self.keys.len() == len && self.values.len() == len,
            "causal_attention: keys and values must be [rows, kv_heads, head_dim]"
        );
        let len = queries * self.kv_stride();
        for own in self.own {
            assert!(
                own.keys.len() == len && own.values.len() == len,
                "causal_attention: own keys and values must be [queries, kv_heads, head_dim]"
            );
        }
        let (mut query, mut row) = (0, 0);
        for sample in self.samples {
            assert!(
                query <= sample.queries.start
                    && sample.queries.start <= sample.queries.end
                    && row <= sample.rows.start
                    && sample.rows.start <= sample.rows.end,
                "causal_attention: samples must ascend"
            );
            assert!(
                sample.is_sound(),
                "causal_attention: queries must see at least one row, and rows of the sample only"
            );
            (query, row) = (sample.queries.end, sample.rows.end);
        }
        assert!(
            query <= queries && row <= rows,
            "causal_attention: samples must lie in queries and rows"
        );
    }

    fn queries(&self) -> usize {
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
    fn for_each_head(&self, work: impl Fn(&CausalSample, usize) + Sync + Send) {
        let products: usize = self
            .samples
            .iter()
            .map(|sample| sample.queries.len() * sample.rows.len() * self.q_stride())
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

/// Blocks of so many queries of a sample.
fn blocks(queries: usize) -> impl Iterator<Item = Range<usize>> {
    (0..queries)
        .step_by(BLOCK)
        .map(move |start| start..queries.min(start + BLOCK))
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Adds `factor * from` to `to`.
fn add_scaled(to: &mut [f32], factor: f32, from: &[f32]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to += factor * from;
    }
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
