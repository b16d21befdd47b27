//! Grouped-query attention over the caches of several sequences, with a list of visible rows for
//! each query row.

mod heads;
mod span;

use std::ops::Range;

use half::bf16;

use self::heads::{Heads, MOST_QUERIES};
use crate::isa::Isa;
use crate::pool::{self, Out};
use crate::vector::dispatch;

/// Cached keys and values, each `[kv_heads, cache_stride, head_dim]`.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum KeyValues<'a> {
    /// 32-bit floats.
    F32 {
        /// Keys `[kv_heads, cache_stride, head_dim]`.
        keys: &'a [f32],
        /// Values `[kv_heads, cache_stride, head_dim]`.
        values: &'a [f32],
    },
    /// bfloat16, widened on the fly.
    Bf16 {
        /// Keys `[kv_heads, cache_stride, head_dim]`.
        keys: &'a [bf16],
        /// Values `[kv_heads, cache_stride, head_dim]`.
        values: &'a [bf16],
    },
}

/// The cache rows that each query row sees after the common prefix, in path order.
#[derive(Clone, Copy, Debug)]
pub enum VisibleRows<'a> {
    /// Row `r` sees `prefix..=prefix + r`: plain decoding and causal prefill.
    Causal,
    /// Row `r` sees `rows[offsets[r]..offsets[r + 1]]`: a token tree, the row itself last.
    Lists {
        /// `rows + 1` ascending offsets into `rows`.
        offsets: &'a [usize],
        /// Cache rows.
        rows: &'a [usize],
    },
}

impl VisibleRows<'_> {
    /// Returns the number of keys that query row `row` sees after the prefix.
    fn len(&self, row: usize) -> usize {
        match self {
            Self::Causal => row + 1,
            Self::Lists { offsets, .. } => offsets[row + 1] - offsets[row],
        }
    }

    /// Returns the cache rows listed for query row `row`; empty if it sees them in cache order.
    fn own(&self, row: usize) -> &[usize] {
        match self {
            Self::Causal => &[],
            Self::Lists { offsets, rows } => &rows[offsets[row]..offsets[row + 1]],
        }
    }
}

/// The rows of one sequence in an attention call.
#[derive(Clone, Copy, Debug)]
pub struct AttentionSegment<'a> {
    /// Number of query rows.
    pub rows: usize,
    /// The sequence's keys and values.
    pub cache: KeyValues<'a>,
    /// Rows from one key head to the next in the cache, which is the cache's capacity.
    pub cache_stride: usize,
    /// Number of leading cache rows that every query row sees.
    pub prefix: usize,
    /// The rows that each query row sees after the prefix.
    pub visible: VisibleRows<'a>,
}

impl AttentionSegment<'_> {
    /// Panics unless the cache has the shape that the call asks for and every query row sees at
    /// least one of its rows, and no row outside of it.
    fn check(&self, shape: &AttentionShape) {
        let Self {
            rows,
            cache_stride,
            prefix,
            ..
        } = *self;
        let len = [shape.kv_heads, cache_stride, shape.head_dim];
        let len = len.into_iter().try_fold(1, usize::checked_mul);
        let found = match self.cache {
            KeyValues::F32 { keys, values } => [keys.len(), values.len()],
            KeyValues::Bf16 { keys, values } => [keys.len(), values.len()],
        };
        assert!(
            found.into_iter().all(|found| Some(found) == len),
            "attention: keys and values must be [kv_heads, cache_stride, head_dim]"
        );
        match self.visible {
            VisibleRows::Causal => {
                let end = prefix.checked_add(rows);
                assert!(
                    end.is_some_and(|end| end <= cache_stride),
                    "attention: more rows than the cache has"
                );
            }
            VisibleRows::Lists {
                offsets,
                rows: listed,
            } => {
                assert_eq!(
                    offsets.len(),
                    rows + 1,
                    "attention: `offsets` must be [rows + 1]"
                );
                assert!(
                    prefix <= cache_stride,
                    "attention: `prefix` must lie in the cache"
                );
                for pair in offsets.windows(2) {
                    let ascending = pair[0] <= pair[1] && pair[1] <= listed.len();
                    assert!(
                        ascending,
                        "attention: `offsets` must ascend within the rows"
                    );
                    assert!(
                        prefix + pair[1] > pair[0],
                        "attention: a query row sees no key"
                    );
                }
                let inside = listed.iter().all(|&row| row < cache_stride);
                assert!(inside, "attention: visible rows must lie in the cache");
            }
        }
    }

    /// Returns the number of keys that query row `row` sees.
    fn len(&self, row: usize) -> usize {
        self.prefix + self.visible.len(row)
    }

    /// Returns the number of leading keys that all `rows` see in cache order.
    fn shared(&self, rows: &Range<usize>) -> usize {
        match self.visible {
            VisibleRows::Causal => self.prefix + rows.end,
            VisibleRows::Lists { .. } => self.prefix,
        }
    }
}

/// Heads and scale of an attention call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Length of a head.
    pub head_dim: usize,
    /// Scale of the scores, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
}

impl AttentionShape {
    /// Returns the number of query heads per key head.
    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Returns the length of a row of `q` and `out`.
    fn width(&self) -> usize {
        self.heads * self.head_dim
    }
}

/// See [`crate::Kernels::attention`].
pub(crate) fn run(
    isa: Isa,
    q: &[f32],
    segments: &[AttentionSegment<'_>],
    out: &mut [f32],
    shape: AttentionShape,
) {
    let rows = segments.iter().map(|segment| segment.rows);
    let rows = rows.into_iter().try_fold(0, usize::checked_add);
    let width = shape.heads.checked_mul(shape.head_dim);
    let len = rows
        .zip(width)
        .and_then(|(rows, width)| rows.checked_mul(width));
    assert_eq!(
        Some(q.len()),
        len,
        "attention: `q` must be [rows, heads, head_dim]"
    );
    assert_eq!(
        out.len(),
        q.len(),
        "attention: `out` must be [rows, heads * head_dim]"
    );
    let fits = shape.kv_heads > 0 && shape.heads.is_multiple_of(shape.kv_heads);
    assert!(fits, "attention: `kv_heads` must divide `heads`");
    for segment in segments {
        segment.check(&shape);
    }
    if q.is_empty() {
        return;
    }
    let call = Call {
        isa,
        q,
        segments,
        out: Out(out.as_mut_ptr()),
        shape,
    };
    call.run();
}

/// Arguments of a call, with lengths and visible rows checked.
struct Call<'a> {
    isa: Isa,
    q: &'a [f32],
    segments: &'a [AttentionSegment<'a>],
    /// Output; each task writes only the heads of its own queries.
    out: Out,
    shape: AttentionShape,
}

impl Call<'_> {
    /// Splits the segments into tasks of some queries of one key head each, and runs them.
    fn run(&self) {
        let Self {
            segments, shape, ..
        } = *self;
        let of_segment = |segment: &AttentionSegment<'_>| -> usize {
            (0..segment.rows).map(|row| segment.len(row)).sum()
        };
        let keys: usize = segments.iter().map(of_segment).sum();
        let parallel = pool::pays(2 * keys * shape.width());
        let threads = pool::n_threads();
        // Smaller blocks of queries read the keys more often, but keep all threads busy.
        let most = if parallel && !shape.kv_heads.is_multiple_of(threads) {
            (self.q.len() / shape.head_dim)
                .div_ceil(3 * threads)
                .clamp(1, MOST_QUERIES)
        } else {
            MOST_QUERIES
        };
        let n_tasks = |segment| self.blocks(segment, most) * shape.kv_heads;
        let tasks = segments.iter().map(n_tasks).sum();
        let work = |mut task: usize| {
            let mut first_row = 0;
            for segment in segments {
                let n_tasks = n_tasks(segment);
                if task < n_tasks {
                    return self.attend(segment, first_row, task, most);
                }
                task -= n_tasks;
                first_row += segment.rows;
            }
        };
        if parallel {
            pool::for_each(tasks, work);
        } else {
            (0..tasks).for_each(work);
        }
    }

    /// Returns the number of blocks of at most `most` queries of a key head of `segment`.
    fn blocks(&self, segment: &AttentionSegment<'_>, most: usize) -> usize {
        (segment.rows * self.shape.group()).div_ceil(most)
    }

    /// Computes one block of queries of one key head of `segment`, whose rows start at `first_row`
    /// of the call. No two tasks of a segment share a query.
    fn attend(&self, segment: &AttentionSegment<'_>, first_row: usize, task: usize, most: usize) {
        let blocks = self.blocks(segment, most);
        // Consecutive tasks take different heads, so threads that start together wait for different
        // keys.
        let (kv_head, block) = (task % self.shape.kv_heads, task / self.shape.kv_heads);
        let queries = segment.rows * self.shape.group();
        let queries = queries * block / blocks..queries * (block + 1) / blocks;
        let start = first_row * self.shape.width();
        let q = &self.q[start..][..segment.rows * self.shape.width()];
        // The segment's part of `out`, which is as long as `q`.
        let out = Out(self.out.at(start));
        // SAFETY: `Kernels` guarantees that `isa` is available; lengths and visible rows of all
        // segments were checked; segments have disjoint rows of `out`, and tasks of one segment
        // disjoint heads of these rows.
        unsafe {
            match segment.cache {
                KeyValues::F32 { keys, values } => {
                    let heads = Heads {
                        shape: self.shape,
                        segment,
                        q,
                        keys,
                        values,
                        out,
                        kv_head,
                        queries,
                    };
                    dispatch(self.isa, heads);
                }
                KeyValues::Bf16 { keys, values } => {
                    let heads = Heads {
                        shape: self.shape,
                        segment,
                        q,
                        keys,
                        values,
                        out,
                        kv_head,
                        queries,
                    };
                    dispatch(self.isa, heads);
                }
            }
        }
    }
}
