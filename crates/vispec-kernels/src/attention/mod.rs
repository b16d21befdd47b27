//! Grouped-query attention over a cache, with a list of visible rows for each query row.

mod heads;
mod segment;

use std::ops::Range;

use half::bf16;

use self::heads::{Heads, MOST_QUERIES};
use crate::isa::Isa;
use crate::pool::{self, Out};
use crate::vector::{Element, dispatch};

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

/// The cache rows each query row sees after the common prefix, in path order.
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
    /// Number of keys query row `row` sees after the prefix.
    fn len(&self, row: usize) -> usize {
        match self {
            Self::Causal => row + 1,
            Self::Lists { offsets, .. } => offsets[row + 1] - offsets[row],
        }
    }

    /// Cache rows listed for query row `row`; none when their order is that of the cache.
    fn own(&self, row: usize) -> &[usize] {
        match self {
            Self::Causal => &[],
            Self::Lists { offsets, rows } => &rows[offsets[row]..offsets[row + 1]],
        }
    }

    /// Panics unless every query row sees rows of the cache, at least one.
    fn check(&self, shape: &AttentionShape) {
        let AttentionShape {
            rows,
            cache_stride,
            prefix,
            ..
        } = *shape;
        match self {
            Self::Causal => {
                assert!(
                    prefix + rows <= cache_stride,
                    "attention: more rows than the cache has"
                );
            }
            Self::Lists {
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
}

/// Axes and scale of an attention call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionShape {
    /// Query rows.
    pub rows: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Length of a head.
    pub head_dim: usize,
    /// Rows from one key head to the next in the cache: its capacity.
    pub cache_stride: usize,
    /// Cache rows every query row sees.
    pub prefix: usize,
    /// Factor of the scores, most often `1 / sqrt(head_dim)`.
    pub scale: f32,
}

/// See [`crate::Kernels::attention`].
pub(crate) fn run(
    isa: Isa,
    q: &[f32],
    cache: KeyValues<'_>,
    visible: VisibleRows<'_>,
    out: &mut [f32],
    shape: AttentionShape,
) {
    let AttentionShape {
        rows,
        heads,
        kv_heads,
        head_dim,
        cache_stride,
        ..
    } = shape;
    assert_eq!(
        q.len(),
        rows * heads * head_dim,
        "attention: `q` must be [rows, heads, head_dim]"
    );
    assert_eq!(
        out.len(),
        q.len(),
        "attention: `out` must be [rows, heads * head_dim]"
    );
    let fits = kv_heads > 0 && heads.is_multiple_of(kv_heads);
    assert!(fits, "attention: `kv_heads` must divide `heads`");
    visible.check(&shape);
    if q.is_empty() {
        return;
    }
    let len = kv_heads * cache_stride * head_dim;
    let message = "attention: keys and values must be [kv_heads, cache_stride, head_dim]";
    match cache {
        KeyValues::F32 { keys, values } => {
            assert!(keys.len() == len && values.len() == len, "{message}");
            split(
                isa,
                &Call {
                    q,
                    keys,
                    values,
                    visible,
                    out: Out(out.as_mut_ptr()),
                    shape,
                },
            );
        }
        KeyValues::Bf16 { keys, values } => {
            assert!(keys.len() == len && values.len() == len, "{message}");
            split(
                isa,
                &Call {
                    q,
                    keys,
                    values,
                    visible,
                    out: Out(out.as_mut_ptr()),
                    shape,
                },
            );
        }
    }
}

/// The arguments of a call whose lengths were checked.
struct Call<'a, E> {
    q: &'a [f32],
    keys: &'a [E],
    values: &'a [E],
    visible: VisibleRows<'a>,
    /// Each thread writes the heads of its own queries.
    out: Out,
    shape: AttentionShape,
}

impl<E: Element> Call<'_, E> {
    /// Query heads per key head.
    fn group(&self) -> usize {
        self.shape.heads / self.shape.kv_heads
    }

    /// Number of keys that query row `row` sees.
    fn len(&self, row: usize) -> usize {
        self.shape.prefix + self.visible.len(row)
    }

    /// Number of keys that stand in the cache in the order in which `rows` see them.
    fn shared(&self, rows: &Range<usize>) -> usize {
        match self.visible {
            VisibleRows::Causal => self.shape.prefix + rows.end,
            VisibleRows::Lists { .. } => self.shape.prefix,
        }
    }
}

/// Gives each thread some of the queries of some of the key heads.
fn split<E: Element>(isa: Isa, call: &Call<'_, E>) {
    let AttentionShape {
        rows,
        kv_heads,
        heads,
        head_dim,
        ..
    } = call.shape;
    let queries = rows * call.group();
    let threads = pool::n_threads();
    let keys: usize = (0..rows).map(|row| call.len(row)).sum();
    let parallel = pool::pays(2 * keys * heads * head_dim);
    // Fewer queries at a time read the keys more often, but keep all threads busy.
    let most = if parallel && !kv_heads.is_multiple_of(threads) {
        (queries * kv_heads)
            .div_ceil(3 * threads)
            .clamp(1, MOST_QUERIES)
    } else {
        MOST_QUERIES
    };
    let blocks = queries.div_ceil(most);
    let work = |task: usize| {
        let block = task % blocks;
        let queries = queries * block / blocks..queries * (block + 1) / blocks;
        // SAFETY: `isa` is available, by the contract of `Kernels`; lengths and visible rows
        // were checked; tasks have disjoint queries.
        unsafe {
            dispatch(
                isa,
                Heads {
                    call,
                    kv_head: task / blocks,
                    queries,
                },
            )
        };
    };
    if parallel {
        pool::for_each(kv_heads * blocks, work);
    } else {
        (0..kv_heads * blocks).for_each(work);
    }
}
