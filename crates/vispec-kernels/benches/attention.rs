//! Attention over a cache: one row, trees, and a chunk of prefill.
//!
//! `cargo bench -p vispec-kernels --bench attention`.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use vispec_kernels::{AttentionSegment, AttentionShape, KeyValues, VisibleRows, attention};

/// Numbers in -0.5..0.5.
fn values(len: usize) -> Vec<f32> {
    (0..len)
        .map(|index| (index * 7_919 % 1_000) as f32 / 1_000.0 - 0.5)
        .collect()
}

/// Lists the path of each node of a complete binary tree after the prefix, the node itself last.
fn paths(rows: usize, prefix: usize) -> (Vec<usize>, Vec<usize>) {
    let (mut offsets, mut listed) = (vec![0], Vec::new());
    for row in 0..rows {
        let start = listed.len();
        let mut node = row + 1; // heap order: the parent of node n is n / 2
        while node > 0 {
            listed.push(prefix + node - 1);
            node /= 2;
        }
        listed[start..].reverse();
        offsets.push(listed.len());
    }
    (offsets, listed)
}

/// SmolLM2-135M, Qwen2.5-VL-3B and LLaVA-1.5-7B.
const MODELS: [(&str, usize, usize, usize); 3] = [
    ("smollm2-135m", 9, 3, 64),
    ("qwen2.5-vl-3b", 16, 2, 128),
    ("llava-7b", 32, 32, 128),
];

fn caches(criterion: &mut Criterion) {
    for (model, heads, kv_heads, head_dim) in MODELS {
        for prefix in [512, 2_048] {
            let mut group = criterion.benchmark_group(format!("attention {model} after {prefix}"));
            group.sample_size(20);
            let cache_stride = prefix + 256;
            let keys = values(kv_heads * cache_stride * head_dim);
            let cache = KeyValues::F32 {
                keys: &keys,
                values: &keys,
            };
            for rows in [1, 4, 8, 30, 60, 256] {
                let scale = 0.1;
                let shape = AttentionShape {
                    heads,
                    kv_heads,
                    head_dim,
                    scale,
                };
                let q = values(rows * heads * head_dim);
                let mut out = vec![0.0; q.len()];
                let (offsets, listed) = paths(rows, prefix);
                let tree = VisibleRows::Lists {
                    offsets: &offsets,
                    rows: &listed,
                };
                let (kind, visible) = if rows > 60 {
                    ("causal", VisibleRows::Causal)
                } else {
                    ("tree", tree)
                };
                let segment = AttentionSegment {
                    rows,
                    cache,
                    cache_stride,
                    prefix,
                    visible,
                };
                let read = 2 * kv_heads * (prefix + rows) * head_dim * size_of::<f32>();
                group.throughput(Throughput::Bytes(read as u64));
                group.bench_function(BenchmarkId::new(kind, rows), |bencher| {
                    bencher.iter(|| attention(&q, &[segment], &mut out, shape));
                });
            }
        }
    }
}

criterion_group!(benches, caches);
criterion_main!(benches);
