//! Causal self-attention over whole samples and its gradients, for training.
//!
//! Queries may also belong to a draft that continues separately from each row. The k-th further
//! pass over a sample sees the keys of the first pass up to the row that it starts from. Of the
//! further passes, it sees only the keys of its own row ([`OwnKeys`]).
//!
//! Scores exist only for a few queries of a head at a time. The forward pass keeps only the
//! logarithms of their sums, from which the backward pass recomputes them. Each key head of a
//! sample is one task with a fixed order of sums, so results do not depend on the number of
//! threads.

mod backward;
mod forward;
mod scores;

use std::ops::Range;

pub(crate) use self::backward::run as backward;
pub(crate) use self::forward::run as forward;
use crate::isa::Isa;
use crate::pool;
use crate::training::matrix::{Panels, Strided, pack, packed_len};

/// Number of queries whose scores exist at a time. Every tile height divides it.
const BLOCK: usize = 48;

/// Causal attention of several samples, each separate from the others.
#[derive(Clone, Copy, Debug)]
pub struct CausalAttention<'a> {
    /// `[queries, heads, head_dim]`.
    pub q: &'a [f32],
    /// `[rows, kv_heads, head_dim]`.
    pub keys: &'a [f32],
    /// `[rows, kv_heads, head_dim]`.
    pub values: &'a [f32],
    /// Queries and rows of each sample, in ascending order.
    pub samples: &'a [CausalSample],
    /// Additional keys and values, each seen by one query only.
    pub own: &'a [OwnKeys<'a>],
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Length of a head.
    pub head_dim: usize,
    /// Scale of the scores, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
}

/// Queries and rows of a sample.
///
/// Query `i` of the sample sees the first `first + i` rows of the sample, or all of them if there
/// are fewer. So every query sees all rows if `first` is the number of rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CausalSample {
    /// Range of queries.
    pub queries: Range<usize>,
    /// Range of rows of keys and values.
    pub rows: Range<usize>,
    /// Number of rows that the first query sees.
    pub first: usize,
}

impl CausalSample {
    /// Creates a sample that attends to itself causally: each row sees itself and the rows before
    /// it.
    #[must_use]
    pub fn of_itself(rows: Range<usize>) -> Self {
        Self {
            queries: rows.clone(),
            rows,
            first: 1,
        }
    }

    /// Creates a sample that attends to itself without a causal mask: each row sees all rows.
    #[must_use]
    pub fn of_all(rows: Range<usize>) -> Self {
        Self {
            queries: rows.clone(),
            first: rows.len(),
            rows,
        }
    }

    /// Returns the number of rows that the query at `index` sees.
    fn seen(&self, index: usize) -> usize {
        (self.first + index).min(self.rows.len())
    }

    /// Returns whether every query sees at least one row, and only rows of the sample.
    fn is_sound(&self) -> bool {
        let last = self.first + self.queries.len().saturating_sub(1);
        let rows = self.rows.len();
        self.queries.is_empty() || self.first > 0 && (self.first == rows || last <= rows)
    }
}

/// One additional key and value for each query, seen only by that query.
#[derive(Clone, Copy, Debug)]
pub struct OwnKeys<'a> {
    /// `[queries, kv_heads, head_dim]`.
    pub keys: &'a [f32],
    /// `[queries, kv_heads, head_dim]`.
    pub values: &'a [f32],
}

/// Gradients of [`OwnKeys`], in the same shapes.
#[derive(Debug)]
pub struct OwnGradients<'a> {
    /// `[queries, kv_heads, head_dim]`.
    pub keys: &'a mut [f32],
    /// `[queries, kv_heads, head_dim]`.
    pub values: &'a mut [f32],
}

/// Outputs of the forward pass that the backward pass needs.
#[derive(Debug)]
pub struct Attended<'a> {
    /// `[queries, heads, head_dim]`.
    pub out: &'a mut [f32],
    /// Logarithm of the sum of the exponentials of each query's scores, `[queries, heads]`.
    pub log_sums: &'a mut [f32],
}

/// Inputs of the backward pass: outputs of the forward pass, and the gradient of `out`.
#[derive(Clone, Copy, Debug)]
pub struct AttendedGradient<'a> {
    /// `[queries, heads, head_dim]`.
    pub out: &'a [f32],
    /// `[queries, heads]`.
    pub log_sums: &'a [f32],
    /// `[queries, heads, head_dim]`.
    pub gradient: &'a [f32],
}

/// Gradients of the inputs of [`CausalAttention`], in the same shapes.
#[derive(Debug)]
pub struct CausalGradients<'a> {
    /// `[queries, heads, head_dim]`.
    pub q: &'a mut [f32],
    /// `[rows, kv_heads, head_dim]`.
    pub keys: &'a mut [f32],
    /// `[rows, kv_heads, head_dim]`.
    pub values: &'a mut [f32],
    /// Gradients of each entry of the own keys.
    pub own: &'a mut [OwnGradients<'a>],
}

impl CausalAttention<'_> {
    /// Panics unless all slices have matching lengths.
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

    /// Returns the number of floats from one row of queries to the next.
    fn q_stride(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Returns the number of floats from one row of keys to the next.
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

/// Returns the blocks of at most [`BLOCK`] queries of a sample.
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
/// The CPU must support `isa`, and `from` must be readable.
unsafe fn pack_into(
    isa: Isa,
    memory: &mut &mut [f32],
    from: Strided,
    [inner, columns]: [usize; 2],
) -> Panels {
    let packed = take(memory, packed_len(isa, inner, columns));
    // SAFETY: upheld by the caller; there is room for the packed matrix.
    unsafe { pack(isa, from, inner, columns, packed.as_mut_ptr()) };
    Panels::packed(isa, packed.as_ptr(), inner, columns)
}
