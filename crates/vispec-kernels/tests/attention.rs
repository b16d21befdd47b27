//! Attention is correct within rounding, and depends only on the visible keys in path order.

mod common;

use common::attention::{Case, Shape, cases, kernels, run};
use common::{assert_close, bits, pool};
use proptest::prelude::*;
use vispec_kernels::{Kernels, VisibleRows};

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
    let shape = Shape {
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
                let shape = Shape {
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
