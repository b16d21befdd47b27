//! Grouped-query attention over a cache, with a list of visible rows for each query row.

use half::bf16;

use crate::isa::Isa;

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

    /// Cache row of the `index`-th key after the prefix of query row `row`.
    fn cache_row(&self, row: usize, index: usize, prefix: usize) -> usize {
        match self {
            Self::Causal => prefix + index,
            Self::Lists { offsets, rows } => rows[offsets[row] + index],
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
    _isa: Isa,
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
        prefix,
        scale,
    } = shape;
    let cache_len = kv_heads * cache_stride * head_dim;
    assert_eq!(q.len(), rows * heads * head_dim, "q");
    assert_eq!(out.len(), rows * heads * head_dim, "out");
    let load = |values: bool, index: usize| match cache {
        KeyValues::F32 { keys, values: v } => {
            if values {
                v[index]
            } else {
                keys[index]
            }
        }
        KeyValues::Bf16 { keys, values: v } => {
            if values {
                v[index].to_f32()
            } else {
                keys[index].to_f32()
            }
        }
    };
    let _ = cache_len;
    for row in 0..rows {
        let len = prefix + visible.len(row);
        let cache_row = |key: usize| {
            if key < prefix {
                key
            } else {
                visible.cache_row(row, key - prefix, prefix)
            }
        };
        for head in 0..heads {
            let base = head / (heads / kv_heads) * cache_stride;
            let at = (row * heads + head) * head_dim;
            let query = &q[at..at + head_dim];
            let scores: Vec<f32> = (0..len)
                .map(|key| {
                    let start = (base + cache_row(key)) * head_dim;
                    let dot: f32 = query
                        .iter()
                        .enumerate()
                        .map(|(d, q)| q * load(false, start + d))
                        .sum();
                    dot * scale
                })
                .collect();
            let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let weights: Vec<f32> = scores.iter().map(|score| (score - max).exp()).collect();
            let total: f32 = weights.iter().sum();
            for d in 0..head_dim {
                let sum: f32 = weights
                    .iter()
                    .enumerate()
                    .map(|(key, w)| w * load(true, (base + cache_row(key)) * head_dim + d))
                    .sum();
                out[at + d] = sum / total;
            }
        }
    }
}
