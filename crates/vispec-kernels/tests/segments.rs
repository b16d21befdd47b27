//! Attention over several sequences in one call: each has the same bits as in a separate call.

mod common;

use common::attention::{Case, Shape, kernels, run, tree};
use common::{bits, pool, values};
use proptest::prelude::*;
use vispec_kernels::{AttentionSegment, Kernels, VisibleRows, in_pool};

/// One sequence of a call.
#[derive(Debug)]
struct Sequence {
    case: Case,
    offsets: Vec<usize>,
    listed: Vec<usize>,
    kind: Kind,
}

/// The visible rows of a sequence, and the dtype of its cache.
#[derive(Clone, Copy, Debug)]
struct Kind {
    visible: Visible,
    dtype: Dtype,
}

#[derive(Clone, Copy, Debug)]
enum Visible {
    Causal,
    Tree,
}

#[derive(Clone, Copy, Debug)]
enum Dtype {
    F32,
    Bf16,
}

impl Sequence {
    fn new(shape: Shape, kind: Kind, seed: u64) -> Self {
        let lists = tree(shape.rows, shape.prefix, shape.cache_stride, seed);
        let mut offsets = vec![0];
        let mut listed = Vec::new();
        for list in &lists {
            listed.extend(list);
            offsets.push(listed.len());
        }
        Self {
            case: Case::new(shape, lists, seed),
            offsets,
            listed,
            kind,
        }
    }

    fn segment(&self) -> AttentionSegment<'_> {
        let visible = match self.kind.visible {
            Visible::Causal => VisibleRows::Causal,
            Visible::Tree => VisibleRows::Lists {
                offsets: &self.offsets,
                rows: &self.listed,
            },
        };
        let [wide, half] = self.case.caches();
        let cache = match self.kind.dtype {
            Dtype::F32 => wide,
            Dtype::Bf16 => half,
        };
        self.case.shape.segment(cache, visible)
    }

    fn alone(&self, kernels: Kernels) -> Vec<u32> {
        let AttentionSegment { cache, visible, .. } = self.segment();
        bits(&run(kernels, &self.case.q, cache, visible, self.case.shape))
    }
}

/// Returns the output of each sequence of a call with all of them.
fn together(kernels: Kernels, sequences: &[Sequence]) -> Vec<Vec<u32>> {
    let segments: Vec<_> = sequences.iter().map(Sequence::segment).collect();
    let queries = sequences.iter().map(|sequence| &*sequence.case.q);
    let q = queries.collect::<Vec<_>>().concat();
    let mut out = vec![f32::NAN; q.len()];
    let shape = sequences[0].case.shape.call();
    kernels.attention(&q, &segments, &mut out, shape);
    let mut rest = bits(&out);
    let mut parts = Vec::new();
    for sequence in sequences {
        let behind = rest.split_off(sequence.case.q.len());
        parts.push(std::mem::replace(&mut rest, behind));
    }
    parts
}

fn sequences() -> impl Strategy<Value = Vec<Sequence>> {
    let heads = (1_usize..4, 1_usize..5, 1_usize..40);
    let of_sequence = (
        0_usize..24,
        0_usize..150,
        prop::sample::select(vec![Visible::Causal, Visible::Tree]),
        prop::sample::select(vec![Dtype::F32, Dtype::Bf16]),
        any::<u64>(),
    );
    let all = prop::collection::vec(of_sequence, 1..6);
    (heads, all).prop_map(|((kv_heads, group, head_dim), all)| {
        let sequence = |(rows, prefix, visible, dtype, seed)| {
            let shape = Shape {
                rows,
                heads: kv_heads * group,
                kv_heads,
                head_dim,
                cache_stride: prefix + rows + 5,
                prefix,
                scale: 1.5,
            };
            Sequence::new(shape, Kind { visible, dtype }, seed)
        };
        all.into_iter().map(sequence).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn each_sequence_has_the_bits_that_it_has_alone(sequences in sequences()) {
        for kernels in kernels() {
            let together = together(kernels, &sequences);
            for (sequence, found) in sequences.iter().zip(together) {
                prop_assert!(found == sequence.alone(kernels), "{:?}: {:?}", kernels, sequence.kind);
            }
        }
    }
}

/// Returns sequences large enough to be shared by threads, of very different lengths.
fn large(kv_heads: usize) -> Vec<Sequence> {
    let sequence = |(index, (rows, prefix))| {
        let shape = Shape {
            rows,
            heads: 2 * kv_heads,
            kv_heads,
            head_dim: 64,
            cache_stride: prefix + rows + index,
            prefix,
            scale: 0.125,
        };
        let kind = Kind {
            visible: [Visible::Causal, Visible::Tree][index % 2],
            dtype: [Dtype::F32, Dtype::Bf16, Dtype::F32][index % 3],
        };
        Sequence::new(shape, kind, index as u64)
    };
    let sizes = [(70, 10), (1, 700), (0, 5), (30, 300), (1, 0), (8, 129)];
    sizes.into_iter().enumerate().map(sequence).collect()
}

#[test]
fn every_number_of_threads_gives_the_same_bits_within_a_step_and_outside() {
    for kv_heads in [2, 3] {
        let sequences = large(kv_heads);
        for kernels in kernels() {
            let alone: Vec<_> = sequences.iter().map(|s| s.alone(kernels)).collect();
            for threads in [1, 2, 3, 5] {
                let found = pool(threads).install(|| together(kernels, &sequences));
                assert!(found == alone, "{kernels:?}: {threads} threads");
            }
            let found = in_pool(usize::MAX, || together(kernels, &sequences));
            assert!(found == alone, "{kernels:?}: within a step");
        }
    }
}

/// Shows that the comparisons above are sensitive: one number of a cache changes only its own
/// sequence.
#[test]
fn a_sequence_reads_its_own_cache_and_no_other() {
    for kernels in kernels() {
        let before = together(kernels, &large(2));
        for changed in [0, 3, 5] {
            let mut sequences = large(2);
            let case = &mut sequences[changed].case;
            // A row of the prefix, in the second head.
            let at = (case.shape.cache_stride + 3) * case.shape.head_dim + 1;
            case.values[at] += 0.5;
            let after = together(kernels, &sequences);
            for (index, (before, after)) in before.iter().zip(after).enumerate() {
                assert_eq!(*before != after, index == changed, "{kernels:?}: {index}");
            }
        }
    }
}

/// Summing over the same keys in another order changes bits, so the comparisons above would show
/// it.
#[test]
fn another_order_of_the_same_keys_shows() {
    for kernels in kernels() {
        let before = together(kernels, &large(2));
        let mut sequences = large(2);
        let tree = &mut sequences[3];
        let len = |row: &usize| tree.offsets[row + 1] - tree.offsets[*row];
        let longest = (0..tree.case.shape.rows).max_by_key(len).expect("rows");
        let list = tree.offsets[longest]..tree.offsets[longest + 1];
        assert!(list.len() > 3, "{list:?}");
        tree.listed[list].reverse();
        let after = together(kernels, &sequences);
        let width = 2 * 2 * 64;
        for (index, (before, after)) in before.iter().zip(&after).enumerate() {
            let rows = before.chunks(width).zip(after.chunks(width));
            for (row, (before, after)) in rows.enumerate() {
                let differs = (index, row) == (3, longest);
                assert_eq!(before != after, differs, "{kernels:?}: {index}, row {row}");
                let values = before.iter().zip(after);
                for (before, after) in values.map(|(a, b)| (f32::from_bits(*a), f32::from_bits(*b)))
                {
                    assert!((before - after).abs() < 1e-5, "{before} {after}");
                }
            }
        }
    }
}

#[test]
fn a_call_without_rows_does_nothing() {
    let shape = large(2)[2].case.shape;
    Kernels::detected().attention(&[], &[], &mut [], shape.call());
    let sequences = [large(2).remove(2)];
    assert_eq!(together(Kernels::detected(), &sequences), [Vec::new()]);
}

#[test]
#[should_panic(expected = "`q` must be [rows, heads, head_dim]")]
fn rows_of_all_segments_are_counted() {
    let sequences = large(2);
    let segments: Vec<_> = sequences.iter().map(Sequence::segment).collect();
    let shape = sequences[0].case.shape;
    let q = values(shape.rows * shape.heads * shape.head_dim, 1);
    let mut out = vec![0.0; q.len()];
    Kernels::detected().attention(&q, &segments[..2], &mut out, shape.call());
}

#[test]
#[should_panic(expected = "keys and values must be [kv_heads, cache_stride, head_dim]")]
fn every_segment_is_checked() {
    let sequences = large(2);
    let mut segments: Vec<_> = sequences.iter().map(Sequence::segment).collect();
    segments[5].cache_stride += 1;
    let shape = sequences[0].case.shape;
    let rows: usize = segments.iter().map(|segment| segment.rows).sum();
    let q = values(rows * shape.heads * shape.head_dim, 1);
    let mut out = vec![0.0; q.len()];
    Kernels::detected().attention(&q, &segments, &mut out, shape.call());
}
