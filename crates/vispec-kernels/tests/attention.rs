//! Attention: right within rounding, and a function of the visible keys in path order alone.

mod common;

use common::{assert_close, bits, pool, values};
use half::bf16;
use proptest::prelude::*;
use vispec_kernels::{AttentionShape, Isa, Kernels, KeyValues, VisibleRows};

fn kernels() -> Vec<Kernels> {
    Isa::available().filter_map(Kernels::new).collect()
}

fn run(
    kernels: Kernels,
    q: &[f32],
    cache: KeyValues<'_>,
    visible: VisibleRows<'_>,
    shape: AttentionShape,
) -> Vec<f32> {
    let mut out = vec![f32::NAN; q.len()];
    kernels.attention(q, cache, visible, &mut out, shape);
    out
}

/// A cache of either dtype with the same values, and lists of visible rows.
#[derive(Debug)]
struct Case {
    shape: AttentionShape,
    q: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    half_keys: Vec<bf16>,
    half_values: Vec<bf16>,
    lists: Vec<Vec<usize>>,
}

/// Lists of `rows` rows: paths of a random tree whose nodes stand after the prefix, shuffled.
fn tree(rows: usize, prefix: usize, capacity: usize, seed: u64) -> Vec<Vec<usize>> {
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
    fn new(shape: AttentionShape, lists: Vec<Vec<usize>>, seed: u64) -> Self {
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

    fn caches(&self) -> [KeyValues<'_>; 2] {
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

    fn with_lists<T>(&self, work: impl FnOnce(VisibleRows<'_>) -> T) -> T {
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

    /// Output and its magnitude, in double precision.
    fn reference(&self) -> Vec<[f64; 2]> {
        let AttentionShape {
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

    /// One row, its keys moved to the start of a cache of another size, decoded causally.
    fn alone(&self, kernels: Kernels, row: usize, half: bool, prefix: usize) -> Vec<f32> {
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
        let shape = AttentionShape {
            rows: 1,
            cache_stride: stride,
            prefix,
            ..shape
        };
        let causal = AttentionShape {
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

fn cases() -> impl Strategy<Value = Case> {
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
        let shape = AttentionShape {
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn agrees_with_the_reference(case in cases()) {
        for kernels in kernels() {
            for cache in case.caches() {
                let out = case.with_lists(|visible| run(kernels, &case.q, cache, visible, case.shape));
                assert_close(&out, &case.reference(), 2e-5);
            }
        }
    }

    #[test]
    fn a_tree_row_has_the_bits_of_decoding_its_path(case in cases(), pick: prop::sample::Index) {
        let row = pick.index(case.shape.rows);
        let len = case.shape.heads * case.shape.head_dim;
        for kernels in kernels() {
            for (cache, half) in case.caches().into_iter().zip([false, true]) {
                let out = case.with_lists(|visible| run(kernels, &case.q, cache, visible, case.shape));
                let out = bits(&out[row * len..][..len]);
                for prefix in [0, case.shape.prefix / 2, case.shape.prefix] {
                    prop_assert_eq!(&out, &bits(&case.alone(kernels, row, half, prefix)));
                }
            }
        }
    }
}

fn causal(rows: usize, prefix: usize) -> Case {
    let shape = AttentionShape {
        rows,
        heads: 6,
        kv_heads: 3,
        head_dim: 64,
        cache_stride: prefix + rows + 2,
        prefix,
        scale: 0.125,
    };
    Case::new(
        shape,
        (0..rows)
            .map(|row| (prefix..=prefix + row).collect())
            .collect(),
        3,
    )
}

#[test]
fn causal_rows_are_those_of_a_chain_and_of_any_chunks() {
    let case = causal(150, 70);
    let len = case.shape.heads * case.shape.head_dim;
    for kernels in kernels() {
        let [cache, _] = case.caches();
        let all = bits(&run(
            kernels,
            &case.q,
            cache,
            VisibleRows::Causal,
            case.shape,
        ));
        let chain = case.with_lists(|visible| run(kernels, &case.q, cache, visible, case.shape));
        assert_eq!(all, bits(&chain));
        for chunk in [1, 7, 64] {
            let mut chunks = Vec::new();
            for start in (0..case.shape.rows).step_by(chunk) {
                let rows = chunk.min(case.shape.rows - start);
                let shape = AttentionShape {
                    rows,
                    prefix: case.shape.prefix + start,
                    ..case.shape
                };
                let q = &case.q[start * len..][..rows * len];
                chunks.extend(bits(&run(kernels, q, cache, VisibleRows::Causal, shape)));
            }
            assert!(all == chunks, "{kernels:?}: chunks of {chunk}");
        }
    }
}

#[test]
fn every_number_of_threads_gives_the_same_bits() {
    let case = causal(40, 300);
    for kernels in kernels() {
        for cache in case.caches() {
            let attend = || {
                bits(&run(
                    kernels,
                    &case.q,
                    cache,
                    VisibleRows::Causal,
                    case.shape,
                ))
            };
            let one = pool(1).install(attend);
            for threads in [2, 3, 5] {
                assert!(
                    pool(threads).install(attend) == one,
                    "{kernels:?}: {threads} threads"
                );
            }
        }
    }
}

#[test]
fn poison_shows_where_it_is_seen_and_nowhere_else() {
    let mut case = causal(9, 20);
    let len = case.shape.heads * case.shape.head_dim;
    let poisoned = 24;
    for head in 0..case.shape.kv_heads {
        let at = (head * case.shape.cache_stride + poisoned) * case.shape.head_dim;
        case.keys[at] = f32::NAN;
        case.values[at..at + case.shape.head_dim].fill(f32::INFINITY);
    }
    for kernels in kernels() {
        let [cache, _] = case.caches();
        let out = run(kernels, &case.q, cache, VisibleRows::Causal, case.shape);
        for (row, out) in out.chunks(len).enumerate() {
            let sees = case.shape.prefix + row >= poisoned;
            assert_eq!(
                out.iter().all(|out| out.is_finite()),
                !sees,
                "{kernels:?}: row {row}"
            );
        }
    }
}

#[test]
fn scores_far_apart_do_not_overflow() {
    let mut case = causal(3, 200);
    case.shape.scale = 1e4;
    for kernels in kernels() {
        let [cache, _] = case.caches();
        let out = run(kernels, &case.q, cache, VisibleRows::Causal, case.shape);
        assert!(out.iter().all(|out| out.abs() <= 1.0));
    }
}

#[test]
#[should_panic(expected = "visible rows must lie in the cache")]
fn a_row_outside_of_the_cache_is_refused() {
    let mut case = causal(2, 4);
    case.lists[1][0] = case.shape.cache_stride;
    let [cache, _] = case.caches();
    case.with_lists(|visible| run(Kernels::detected(), &case.q, cache, visible, case.shape));
}

#[test]
#[should_panic(expected = "a query row sees no key")]
fn a_row_without_keys_is_refused() {
    let mut case = causal(2, 0);
    case.lists[1].clear();
    let [cache, _] = case.caches();
    case.with_lists(|visible| run(Kernels::detected(), &case.q, cache, visible, case.shape));
}
