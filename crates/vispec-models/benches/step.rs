//! Benchmarks of one decode, verify and draft step, with the tiny fixture models or other
//! checkpoints.
//!
//! Run with `cargo bench --bench step`; `VISPEC_BENCH_TARGET=DIR` and `VISPEC_BENCH_DRAFT=DIR`
//! select other checkpoints.
#![allow(clippy::unwrap_used, reason = "a benchmark may panic")]

use std::path::{Path, PathBuf};

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use vispec_core::{
    Ask, Beam, DraftModel, KvCache, NodeId, Sampler, TargetLogits, TargetModel, TokenTree,
};
use vispec_models::{
    DeviceSpec, Draft, DraftVocab, DtypeChoice, EncodedPrompt, Engine, EngineOptions, KvPrecision,
    LayerIds,
};
use vispec_processor::Messages;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures");
/// Approximate number of tokens in the cache.
const PROMPT_WORDS: usize = 100;

fn engine() -> Engine {
    let path = |variable: &str, carried: &str| {
        std::env::var_os(variable).map_or_else(|| Path::new(FIXTURES).join(carried), PathBuf::from)
    };
    Engine::load(&EngineOptions {
        target: path("VISPEC_BENCH_TARGET", "models/qwen-tied"),
        draft: Some(path("VISPEC_BENCH_DRAFT", "drafts/qwen-tied-q4")),
        draft_vocab: DraftVocab::Auto,
        draft_layer_ids: LayerIds::Auto,
        device: DeviceSpec::Flex.open().unwrap(),
        dtype: DtypeChoice::Auto,
        kv: KvPrecision::Auto,
    })
    .unwrap()
}

fn bush(nodes: usize) -> TokenTree {
    let mut tree = TokenTree::new(1);
    for token in 1..u32::try_from(nodes).unwrap() {
        tree.push(NodeId::ROOT, token).unwrap();
    }
    tree
}

fn verify(criterion: &mut Criterion, engine: &Engine, prompt: &EncodedPrompt) {
    let target = engine.target();
    let mut cache = target.new_cache().unwrap();
    target.prefill(prompt, &mut cache).unwrap();
    let base = cache.len();
    let mut group = criterion.benchmark_group("verify");
    for nodes in [1, 2, 4, 8, 16, 30, 60] {
        let tree = bush(nodes);
        group.bench_function(BenchmarkId::from_parameter(nodes), |bencher| {
            bencher.iter(|| {
                let mut output = target.verify(&tree, &mut cache).unwrap();
                output.logits.pick(0, &Sampler::Greedy, 0.0).unwrap();
                cache.truncate(base);
            });
        });
    }
}

fn draft(criterion: &mut Criterion, engine: &Engine, prompt: &EncodedPrompt) {
    let Some(Draft::Neural(_, draft)) = engine.draft() else {
        return;
    };
    let target = engine.target();
    let mut cache = target.new_cache().unwrap();
    let features = target.prefill(prompt, &mut cache).unwrap().features;
    let root = TokenTree::new(1);
    let accepted = target.verify(&root, &mut cache).unwrap().features;
    let begun = || {
        let mut session = draft.session();
        session
            .begin(prompt, features.clone(), 1, Ask::best(8))
            .unwrap();
        session
    };
    let mut group = criterion.benchmark_group("draft");
    group.bench_function("commit", |bencher| {
        bencher.iter_batched(
            || (begun(), accepted.clone()),
            |(mut session, accepted)| session.commit(&[], accepted, 1, Ask::best(8)).unwrap(),
            BatchSize::SmallInput,
        );
    });
    for rows in [1, 8] {
        let beam = Beam {
            level: 0,
            tokens: vec![1; rows],
            parent_rows: vec![0; rows],
            paths: (0..rows).map(|row| vec![row]).collect(),
        };
        group.bench_function(BenchmarkId::new("expand", rows), |bencher| {
            bencher.iter_batched(
                || {
                    let mut session = begun();
                    let first = session
                        .commit(&[], accepted.clone(), 1, Ask::best(8))
                        .unwrap();
                    (session, first.hidden)
                },
                |(mut session, hidden)| session.expand(&beam, &hidden, Ask::best(8)).unwrap(),
                BatchSize::SmallInput,
            );
        });
    }
}

fn steps(criterion: &mut Criterion) {
    let engine = engine();
    let words = vec!["picture"; PROMPT_WORDS].join(" ");
    let messages = Messages::from_prompt(None, &words, 0);
    let (prompt, _) = engine.encode(&messages, &[]).unwrap();
    verify(criterion, &engine, &prompt);
    draft(criterion, &engine, &prompt);
}

criterion_group!(benches, steps);
criterion_main!(benches);
