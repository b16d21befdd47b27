//! Test cases of attention.

use half::bf16;
use proptest::prelude::*;
use vispec_kernels::{AttentionSegment, AttentionShape, Isa, Kernels, KeyValues, VisibleRows};

use super::{bits, values};

pub(crate) fn kernels() -> Vec<Kernels> {
    Isa::available().filter_map(Kernels::new).collect()
}

/// Axes of a test case.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) rows: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) cache_stride: usize,
    pub(crate) prefix: usize,
    pub(crate) scale: f32,
}

impl Shape {
    /// Returns the shape that is common to all segments of a call.
    pub(crate) fn call(self) -> AttentionShape {
        AttentionShape {
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            scale: self.scale,
        }
    }

    /// Returns a segment with these rows, cache and lists.
    pub(crate) fn segment<'a>(
        self,
        cache: KeyValues<'a>,
        visible: VisibleRows<'a>,
    ) -> AttentionSegment<'a> {
        AttentionSegment {
            rows: self.rows,
            cache,
            cache_stride: self.cache_stride,
            prefix: self.prefix,
            visible,
        }
    }
}

/// Runs a call with one segment.
pub(crate) fn run(
    kernels: Kernels,
    q: &[f32],
    cache: KeyValues<'_>,
    visible: VisibleRows<'_>,
    shape: Shape,
) -> Vec<f32> {
    let mut out = vec![f32::NAN; q.len()];
    kernels.attention(q, &[shape.segment(cache, visible)], &mut out, shape.call());
    out
}

/// A cache with the same values in either dtype, and lists of visible rows.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) shape: Shape,
    pub(crate) q: Vec<f32>,
    pub(crate) keys: Vec<f32>,
    pub(crate) values: Vec<f32>,
    half_keys: Vec<bf16>,
    half_values: Vec<bf16>,
    pub(crate) lists: Vec<Vec<usize>>,
}

/// Returns the lists of `rows` rows: paths of a random tree whose nodes are placed after the
/// prefix, shuffled.
pub(crate) fn tree(rows: usize, prefix: usize, capacity: usize, seed: u64) -> Vec<Vec<usize>> {
    let random = values(3 * rows, seed);
    let pick = |index: usize, below: usize| ((random[index] + 1.0) / 2.0 * below as f32) as usize;
    let mut free: Vec<usize> = (prefix..capacity).collect();
    let mut lists: Vec<Vec<usize>> = Vec::new();
    for row in 0..rows {
        let parent = pick(row, row + 1);
        let mut path = if parent == row {
            Vec::new()
        } else {
            lists[parent].clone()
        };
        path.push(free.swap_remove(pick(rows + row, free.len()).min(free.len() - 1)));
        lists.push(path);
    }
    lists
}

impl Case {
    pub(crate) fn new(shape: Shape, lists: Vec<Vec<usize>>, seed: u64) -> Self {
        let cache = shape.kv_heads * shape.cache_stride * shape.head_dim;
        let half = |values: &[f32]| {
            values
                .iter()
                .copied()
                .map(bf16::from_f32)
                .collect::<Vec<_>>()
        };
        let q = values(shape.rows * shape.heads * shape.head_dim, seed);
        let (half_keys, half_values) = (
            half(&values(cache, seed ^ 1)),
            half(&values(cache, seed ^ 2)),
        );
        let keys = half_keys.iter().map(|key| key.to_f32()).collect();
        let values = half_values.iter().map(|value| value.to_f32()).collect();
        Self {
            shape,
            q,
            keys,
            values,
            half_keys,
            half_values,
            lists,
        }
    }

    pub(crate) fn caches(&self) -> [KeyValues<'_>; 2] {
        [
            KeyValues::F32 {
                keys: &self.keys,
                values: &self.values,
            },
            KeyValues::Bf16 {
                keys: &self.half_keys,
                values: &self.half_values,
            },
        ]
    }

    pub(crate) fn with_lists<T>(&self, work: impl FnOnce(VisibleRows<'_>) -> T) -> T {
        let rows: Vec<usize> = self.lists.concat();
        let mut offsets = vec![0];
        offsets.extend(self.lists.iter().scan(0, |end, list| {
            *end += list.len();
            Some(*end)
        }));
        work(VisibleRows::Lists {
            offsets: &offsets,
            rows: &rows,
        })
    }

    /// Returns the output and its magnitude in double precision.
    pub(crate) fn reference(&self) -> Vec<[f64; 2]> {
        let Shape {
            rows,
            heads,
            kv_heads,
            head_dim,
            cache_stride,
            prefix,
            scale,
        } = self.shape;
        let mut out = Vec::new();
        for row in 0..rows {
            let seen: Vec<usize> = (0..prefix).chain(self.lists[row].iter().copied()).collect();
            for head in 0..heads {
                let at = |key: usize| (head / (heads / kv_heads) * cache_stride + key) * head_dim;
                let q = &self.q[(row * heads + head) * head_dim..][..head_dim];
                let score = |&key: &usize| {
                    let key = &self.keys[at(key)..][..head_dim];
                    let products = q
                        .iter()
                        .zip(key)
                        .map(|(q, k)| f64::from(*q) * f64::from(*k));
                    (products.sum::<f64>() * f64::from(scale)).exp()
                };
                let weights: Vec<f64> = seen.iter().map(score).collect();
                let total: f64 = weights.iter().sum();
                for place in 0..head_dim {
                    let value = |key: usize| f64::from(self.values[at(key) + place]);
                    let terms = seen
                        .iter()
                        .zip(&weights)
                        .map(|(&key, w)| value(key) * w / total);
                    out.push([terms.clone().sum(), terms.map(f64::abs).sum()]);
                }
            }
        }
        out
    }

    /// Decodes one row causally, with its keys moved to the start of a cache of another size.
    pub(crate) fn alone(
        &self,
        kernels: Kernels,
        row: usize,
        half: bool,
        prefix: usize,
    ) -> Vec<f32> {
        let shape = self.shape;
        let seen: Vec<usize> = (0..shape.prefix)
            .chain(self.lists[row].iter().copied())
            .collect();
        let stride = seen.len() + 3;
        let compact = |cache: &[f32]| {
            let mut compact = vec![f32::NAN; shape.kv_heads * stride * shape.head_dim];
            for head in 0..shape.kv_heads {
                for (to, from) in seen.iter().enumerate() {
                    let to = (head * stride + to) * shape.head_dim;
                    let from = (head * shape.cache_stride + from) * shape.head_dim;
                    compact[to..][..shape.head_dim]
                        .copy_from_slice(&cache[from..][..shape.head_dim]);
                }
            }
            compact
        };
        let (keys, values) = (compact(&self.keys), compact(&self.values));
        let to_half = |values: &[f32]| {
            values
                .iter()
                .copied()
                .map(bf16::from_f32)
                .collect::<Vec<_>>()
        };
        let (half_keys, half_values) = (to_half(&keys), to_half(&values));
        let cache = if half {
            KeyValues::Bf16 {
                keys: &half_keys,
                values: &half_values,
            }
        } else {
            KeyValues::F32 {
                keys: &keys,
                values: &values,
            }
        };
        let len = shape.heads * shape.head_dim;
        let rest: Vec<usize> = (prefix..seen.len()).collect();
        let visible = VisibleRows::Lists {
            offsets: &[0, rest.len()],
            rows: &rest,
        };
        let shape = Shape {
            rows: 1,
            cache_stride: stride,
            prefix,
            ..shape
        };
        let causal = Shape {
            prefix: seen.len() - 1,
            ..shape
        };
        let q = &self.q[row * len..][..len];
        let out = run(kernels, q, cache, visible, shape);
        assert_eq!(
            bits(&out),
            bits(&run(kernels, q, cache, VisibleRows::Causal, causal))
        );
        out
    }
}

pub(crate) fn cases() -> impl Strategy<Value = Case> {
    let sizes = (
        1_usize..20,
        1_usize..4,
        1_usize..5,
        1_usize..40,
        0_usize..150,
        any::<u64>(),
    );
    sizes.prop_map(|(rows, kv_heads, group, head_dim, prefix, seed)| {
        let cache_stride = prefix + rows + 5;
        let heads = kv_heads * group;
        let scale = 1.5;
        let shape = Shape {
            rows,
            heads,
            kv_heads,
            head_dim,
            cache_stride,
            prefix,
            scale,
        };
        Case::new(shape, tree(rows, prefix, cache_stride, seed), seed)
    })
}
