//! Passes over host logits with a vocabulary of 152k: top-k of the draft, picks of the target.

use std::hint::black_box;
use std::num::NonZeroUsize;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vispec_core::{AcceptanceRule, HostLogits};
use vispec_core::{RecursiveRejection, Sampler, TokenTree, TopK, UniformStream};

const VOCAB: usize = 152_064;

/// Logits shaped like those of a language model: a bell curve with a few high values.
fn logits(n_rows: usize) -> Vec<f32> {
    let mut stream = UniformStream::new(3);
    let mut values: Vec<f32> = (0..n_rows * VOCAB)
        .map(|_| {
            (0..4)
                .map(|_| 4.0 * stream.next_uniform() as f32 - 2.0)
                .sum()
        })
        .collect();
    for row in values.chunks_exact_mut(VOCAB) {
        for rank in 0..20_u8 {
            row[(stream.next_uniform() * VOCAB as f64) as usize] = 18.0 - f32::from(rank);
        }
    }
    values
}

fn top_k(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("top-8 with log-softmax");
    for n_rows in [1, 8] {
        let values = logits(n_rows);
        group.throughput(Throughput::Elements((n_rows * VOCAB) as u64));
        group.bench_function(format!("{n_rows} x {VOCAB}"), |bencher| {
            bencher.iter(|| TopK::from_logits(black_box(&values), VOCAB, 8));
        });
    }
    group.finish();
}

fn picks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pick from one row");
    let values = logits(1);
    group.throughput(Throughput::Elements(VOCAB as u64));
    let top_k = NonZeroUsize::new(50);
    let samplers = [
        ("greedy", 0.0, None, None),
        ("sampled", 1.0, None, None),
        ("top-k 50", 1.0, None, top_k),
        ("top-p 0.9", 1.0, Some(0.9), None),
    ];
    for (name, temperature, top_p, top_k) in samplers {
        let sampler = Sampler::new(temperature, top_p, top_k).expect("legal");
        group.bench_function(name, |bencher| {
            bencher.iter(|| sampler.pick(black_box(&values), 0.7));
        });
    }
    group.bench_function("recursive rejection of 8 children", |bencher| {
        let mut tree = TokenTree::new(0);
        for token in 1..=8 {
            tree.push(vispec_core::NodeId::ROOT, token)
                .expect("tokens differ");
        }
        let mut rule = RecursiveRejection::new(Sampler::new(1.0, None, None).expect("legal"), 1);
        let mut logits = HostLogits::new(values.as_slice(), VOCAB);
        bencher.iter(|| rule.accept(&tree, &mut logits, 0));
    });
    group.finish();
}

criterion_group!(benches, top_k, picks);
criterion_main!(benches);
