//! Host time per cycle without the models: tree growth, mask and acceptance.
//!
//! The budget is 0.3 ms per cycle with 30 nodes and a vocabulary of 152k.
//! `logits.rs` measures reading logits: top-k of the draft, and picks of the target if its logits
//! are on the host.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use vispec_core::testing::{TableFeatures, TableModel};
use vispec_core::{
    AcceptanceRule, Ask, Beam, BoxError, DraftModel, Drafter, DynamicTreeDrafter, Expansion,
    GenerationConfig, HostLogits, KvCache, LogitsError, MatchPicks, NoDraft, NodeId, OutputOf,
    PassInput, PositionUniforms, PromptLookupDrafter, Sampler, Session, TargetLogits, TargetModel,
    TargetOutput, TokenId, TokenTree, TopK, TreeShape, UniformStream,
};

const VOCAB: usize = 152_064;

/// A draft model that takes no time: its candidates are prepared in advance.
struct Prepared {
    first: TopK,
    next: TopK,
}

impl Prepared {
    fn new(width: usize) -> Self {
        let mut stream = UniformStream::new(1);
        let mut rows = |n_rows: usize| {
            let mut tokens = Vec::new();
            let mut log_probs = Vec::new();
            for _ in 0..n_rows {
                let mut row: Vec<f32> = (0..width)
                    .map(|_| -4.0 * stream.next_uniform() as f32)
                    .collect();
                row.sort_by(|a, b| b.total_cmp(a));
                log_probs.extend(row);
                tokens.extend((0..width).map(|rank| (rank * 1_009) as TokenId));
            }
            TopK {
                k: width,
                tokens,
                log_probs,
            }
        };
        Self {
            first: rows(1),
            next: rows(width),
        }
    }

    fn expansion(top: &TopK) -> Result<Expansion<()>, BoxError> {
        Ok(Expansion {
            top: top.clone(),
            hidden: (),
        })
    }
}

impl<T: TargetModel> DraftModel<T> for Prepared {
    type Hidden = ();

    fn name(&self) -> &str {
        "prepared"
    }

    fn begin(
        &mut self,
        _prompt: &T::Prompt,
        _features: T::Features,
        _next: TokenId,
        _ask: Ask,
    ) -> Result<Expansion<()>, BoxError> {
        Self::expansion(&self.first)
    }

    fn commit(
        &mut self,
        _accepted: &[TokenId],
        _features: T::Features,
        _next: TokenId,
        _ask: Ask,
    ) -> Result<Expansion<()>, BoxError> {
        Self::expansion(&self.first)
    }

    fn expand(&mut self, beam: &Beam, _: &(), _ask: Ask) -> Result<Expansion<()>, BoxError> {
        black_box(beam);
        Self::expansion(&self.next)
    }
}

/// Logits of a device that has picked a token for every row in one read-back.
struct Picked(Vec<TokenId>);

impl TargetLogits for Picked {
    fn n_rows(&self) -> usize {
        self.0.len()
    }

    fn pick(&mut self, row: usize, _: &Sampler, _: f64) -> Result<TokenId, LogitsError> {
        Ok(self.0[row])
    }

    fn read_row(&mut self, _: usize) -> Result<&[f32], LogitsError> {
        unreachable!("nothing reads rows")
    }
}

/// A target that takes no time and agrees with the first children of the tree, up to a depth.
struct Instant;

struct Length(usize);

impl KvCache for Length {
    fn len(&self) -> usize {
        self.0
    }

    fn keep_path(&mut self, base: usize, path: &[NodeId]) {
        self.0 = base + path.len();
    }

    fn truncate(&mut self, len: usize) {
        self.0 = len;
    }
}

fn picks(tree: &TokenTree) -> Picked {
    let pick = |node| match tree.children(node).next() {
        Some(child) if tree.depths()[child.index()] <= 2 => tree.token(child),
        _ => 77,
    };
    Picked(tree.nodes().map(pick).collect())
}

impl TargetModel for Instant {
    type Prompt = Vec<TokenId>;
    type Cache = Length;
    type Features = ();
    type Logits = Picked;

    fn vocab_size(&self) -> usize {
        VOCAB
    }

    fn context_len(&self) -> usize {
        usize::MAX
    }

    fn new_cache(&self) -> Result<Length, BoxError> {
        Ok(Length(0))
    }

    fn read(
        &self,
        input: PassInput<'_, Vec<TokenId>>,
        cache: &mut Length,
    ) -> Result<OutputOf<Self>, BoxError> {
        let logits = match input {
            PassInput::Prompt { end, .. } => {
                cache.0 = end;
                Picked(vec![5])
            }
            PassInput::Tree(tree) => {
                cache.0 += tree.n_nodes();
                picks(tree)
            }
        };
        let features = ();
        Ok(TargetOutput { logits, features })
    }

    fn gather_features(&self, _: (), _: &[NodeId]) -> Result<(), BoxError> {
        Ok(())
    }
}

fn drafter(total_token: usize) -> DynamicTreeDrafter<Instant, Prepared> {
    let shape = TreeShape::from_upstream(3, 8, total_token).expect("a legal shape");
    DynamicTreeDrafter::new(Prepared::new(8), shape)
}

fn grow(total_token: usize) -> TokenTree {
    let mut drafter = drafter(total_token);
    let first = drafter.begin(&vec![0], (), 5);
    let tree = first.and_then(|proposal| proposal.finish(&mut drafter));
    tree.expect("candidates are good")
}

fn parts(criterion: &mut Criterion) {
    for total_token in [8, 30, 60] {
        let mut group = criterion.benchmark_group(format!("{total_token} nodes"));
        group.bench_function("grow", |bencher| {
            let mut drafter = drafter(total_token);
            bencher.iter(|| {
                let next = drafter.advance(&[], (), black_box(5));
                next.and_then(|proposal| proposal.finish(&mut drafter))
            });
        });
        let tree = grow(total_token);
        group.bench_function("mask", |bencher| bencher.iter(|| black_box(&tree).mask()));
        group.bench_function("cut to 2 levels", |bencher| {
            let cut = |mut tree: TokenTree| {
                tree.truncate_depth(2);
                tree
            };
            bencher.iter_batched(|| tree.clone(), cut, BatchSize::SmallInput);
        });
        group.bench_function("accept", |bencher| {
            let mut logits = picks(&tree);
            let mut rule = MatchPicks::greedy();
            bencher.iter(|| rule.accept(black_box(&tree), &mut logits, 1_000));
        });
        group.finish();
    }
}

/// Measures all host work of a cycle (tree, mask, acceptance, bookkeeping of the session), also
/// with the target's logits on the host.
fn whole_cycle(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("whole cycle");
    let prompt: Vec<TokenId> = (0..1_000).collect();
    let config = GenerationConfig {
        max_new_tokens: usize::MAX,
        stop_tokens: vec![151_645],
    };
    let start = "the prompt fits";
    group.bench_function("30 nodes", |bencher| {
        let (drafter, rule) = (drafter(30), MatchPicks::greedy());
        let mut session =
            Session::start(&Instant, drafter, rule, &prompt, config.clone()).expect(start);
        let tree = grow(30);
        bencher.iter(|| {
            black_box(tree.mask());
            session.step(&Instant, &mut ())
        });
    });
    group.bench_function("plain decoding", |bencher| {
        let rule = MatchPicks::greedy();
        let mut session =
            Session::start(&Instant, NoDraft, rule, &prompt, config.clone()).expect(start);
        bencher.iter(|| session.step(&Instant, &mut ()));
    });
    group.bench_function("prompt lookup in 4000 tokens", |bencher| {
        let prompt: Vec<TokenId> = (0..4_000).map(|at| (at * at) % 5_003).collect();
        let mut drafter = PromptLookupDrafter::default();
        bencher.iter(|| {
            let drafter: &mut dyn Drafter<TableModel> = &mut drafter;
            drafter.begin(black_box(&prompt), TableFeatures::default(), 16)
        });
    });
    group.finish();

    let mut group = criterion.benchmark_group("accept from host logits of 30 x 152064");
    let tree = grow(30);
    let mut stream = UniformStream::new(2);
    let mut values: Vec<f32> = (0..30 * VOCAB)
        .map(|_| 16.0 * stream.next_uniform() as f32)
        .collect();
    // The target agrees with two draft tokens: three rows are read.
    for (node, pick) in picks(&tree).0.into_iter().enumerate() {
        values[node * VOCAB + pick as usize] = 30.0;
    }
    let top_p = Sampler::new(1.0, Some(0.9), None).expect("legal");
    let plain = Sampler::new(1.0, None, None).expect("legal");
    for (name, sampler) in [
        ("greedy", Sampler::Greedy),
        ("sampled", plain),
        ("top-p", top_p),
    ] {
        group.bench_function(name, |bencher| {
            let mut logits = HostLogits::new(values.as_slice(), VOCAB);
            let mut rule = MatchPicks::new(sampler, PositionUniforms::new(0));
            bencher.iter(|| rule.accept(black_box(&tree), &mut logits, 1_000));
        });
    }
    group.finish();
}

criterion_group!(benches, parts, whole_cycle);
criterion_main!(benches);
