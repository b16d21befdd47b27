//! The tokens of a sequence do not depend on the other sequences in the pass.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use proptest::prelude::*;
use vispec_core::testing::{
    CheckingDrafter, ContinuationDrafter, Fault, FaultyDrafter, RandomDrafter, TableCache,
    TableDraft, TableFeatures, TableModel,
};
use vispec_core::{
    AutoTree, Batch, BoxError, ContextCost, Cost, CostTable, DecodeError, DraftCosts, Drafter,
    DynamicTreeDrafter, Ended, FinishReason, GenerationConfig, GenerationObserver, HostLogits,
    MatchPicks, NoDraft, NodeId, OutputOf, Pass, PassInput, PositionUniforms, PromptLookupDrafter,
    Sampler, Segment, SequenceId, Session, TargetCosts, TargetModel, TokenId, TreeShape, generate,
};

const VOCAB: usize = 11;

type AnyDrafter = Box<dyn Drafter<TableModel>>;
type AnyBatch<O> = Batch<TableModel, Vec<TokenId>, AnyDrafter, MatchPicks, O>;

fn model(seed: u64) -> TableModel {
    TableModel::random(VOCAB, 3, seed).with_context_len(90)
}

fn costs() -> Arc<CostTable> {
    let cost = |rows, seconds| Cost { rows, seconds };
    let target = TargetCosts {
        prefill: 0.5,
        verify: vec![cost(1, 1.0), cost(4, 1.1), cost(16, 2.0), cost(64, 6.0)],
        context: ContextCost::default(),
    };
    let draft = DraftCosts {
        read: 0.001,
        commit: 0.01,
        expand: vec![cost(1, 0.01), cost(8, 0.02)],
    };
    Arc::new(CostTable::new(target, Some(draft)).unwrap())
}

/// One request.
#[derive(Clone, Debug)]
struct Asked {
    prompt: Vec<TokenId>,
    n_tokens: usize,
    temperature: f32,
    drafter: u8,
    seed: u64,
    /// Number of passes before the request arrives.
    arrives: usize,
    /// Number of tokens after which its observer cancels it.
    cancelled_after: Option<usize>,
}

impl Asked {
    fn drafter(&self) -> AnyDrafter {
        let draft = || TableDraft::new(model(self.seed ^ 1));
        let shape = TreeShape::from_upstream(3, 4, 12).unwrap();
        match self.drafter % 8 {
            0 => Box::new(NoDraft),
            1 => Box::new(CheckingDrafter::new(RandomDrafter::new(
                VOCAB, 8, self.seed,
            ))),
            2 => Box::new(PromptLookupDrafter::default()),
            3 => Box::new(PromptLookupDrafter::auto(AutoTree::new(costs()))),
            4 => Box::new(DynamicTreeDrafter::new(draft(), shape)),
            5 => Box::new(DynamicTreeDrafter::new(draft(), AutoTree::new(costs()))),
            6 => Box::new(DynamicTreeDrafter::new(draft(), shape).with_lookup()),
            _ => Box::new(DynamicTreeDrafter::new(draft(), AutoTree::new(costs())).with_lookup()),
        }
    }

    fn rule(&self) -> MatchPicks {
        let sampler = match self.temperature {
            0.0 => Sampler::Greedy,
            temperature => Sampler::new(temperature, None, None).unwrap(),
        };
        MatchPicks::new(sampler, PositionUniforms::new(self.seed))
    }

    fn config(&self) -> GenerationConfig {
        GenerationConfig {
            max_new_tokens: self.n_tokens,
            stop_tokens: vec![3],
        }
    }

    fn observer(&self) -> Counting {
        Counting {
            tokens: Vec::new(),
            cancelled_after: self.cancelled_after,
        }
    }

    /// Returns tokens and finish reason of plain decoding without other sequences.
    fn alone(&self, target: &TableModel) -> (Vec<TokenId>, FinishReason) {
        let (rule, config) = (self.rule(), self.config());
        let plain = generate(target, NoDraft, rule, &self.prompt, config, &mut ()).unwrap();
        (plain.tokens, plain.finish_reason)
    }

    fn session(
        &self,
        target: &TableModel,
    ) -> Session<TableModel, Vec<TokenId>, AnyDrafter, MatchPicks> {
        let (drafter, rule) = (self.drafter(), self.rule());
        Session::start(target, drafter, rule, self.prompt.clone(), self.config()).unwrap()
    }
}

fn asked() -> impl Strategy<Value = Asked> {
    let prompt = prop::collection::vec(0..11_u32, 1..40);
    let temperature = prop_oneof![Just(0.0_f32), Just(0.7), Just(1.3)];
    let cancelled = prop::option::weighted(0.2, 1..20_usize);
    let numbers = (1..50_usize, 0..8_u8, 0..1_000_u64, 0..12_usize);
    (prompt, temperature, cancelled, numbers).prop_map(
        |(prompt, temperature, cancelled_after, (n_tokens, drafter, seed, arrives))| Asked {
            prompt,
            n_tokens,
            temperature,
            drafter,
            seed,
            arrives,
            cancelled_after,
        },
    )
}

/// Records the tokens and cancels after a number of them.
#[derive(Debug)]
struct Counting {
    tokens: Vec<TokenId>,
    cancelled_after: Option<usize>,
}

impl GenerationObserver for Counting {
    fn on_tokens(&mut self, tokens: &[TokenId]) -> ControlFlow<()> {
        self.tokens.extend_from_slice(tokens);
        match self.cancelled_after {
            Some(most) if self.tokens.len() >= most => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn each_sequence_gets_its_own_tokens(
        asked in prop::collection::vec(asked(), 1..9),
        chunks in prop::collection::vec(1..30_usize, 1..7),
        seed in 0..1_000_u64,
    ) {
        let target = model(seed);
        let mut batch: AnyBatch<Counting> = Batch::default();
        let mut ids: BTreeMap<SequenceId, usize> = BTreeMap::new();
        let (mut n_ended, mut n_emitted, mut n_tokens) = (0, 0, 0);
        for pass in 0.. {
            for (index, asked) in asked.iter().enumerate().filter(|(_, asked)| asked.arrives == pass) {
                ids.insert(batch.add(asked.session(&target), asked.observer()), index);
            }
            let Pass {
                rows,
                emitted,
                ended,
                ..
            } = batch.pass(&target, chunks[pass % chunks.len()]);
            prop_assert!(rows.prompt <= chunks[pass % chunks.len()]);
            n_emitted += emitted;
            for Ended { id, outcome, session, observer } in ended {
                let asked = &asked[ids[&id]];
                let (expected, reason) = asked.alone(&target);
                let tokens = session.tokens();
                prop_assert_eq!(tokens, &observer.tokens);
                n_tokens += tokens.len();
                if outcome.as_ref().unwrap() == &FinishReason::Cancelled {
                    prop_assert!(tokens.len() >= asked.cancelled_after.unwrap());
                    prop_assert_eq!(tokens, &expected[..tokens.len()]);
                } else {
                    prop_assert_eq!(outcome.unwrap(), reason);
                    prop_assert_eq!(tokens, expected);
                }
                n_ended += 1;
            }
            if n_ended == asked.len() {
                break;
            }
            prop_assert!(pass < 2_000, "the batch does not come to its end");
        }
        prop_assert!(batch.is_empty());
        prop_assert_eq!(n_emitted, n_tokens);
    }
}

/// A target whose rows depend on other segments, as with kernels whose sums depend on the shape of
/// the pass.
struct Leaky(TableModel);

impl TargetModel for Leaky {
    type Prompt = Vec<TokenId>;
    type Cache = TableCache;
    type Features = TableFeatures;
    type Logits = HostLogits;

    fn vocab_size(&self) -> usize {
        VOCAB
    }

    fn context_len(&self) -> usize {
        90
    }

    fn new_cache(&self) -> Result<TableCache, BoxError> {
        self.0.new_cache()
    }

    fn read(
        &self,
        input: PassInput<'_, Vec<TokenId>>,
        cache: &mut TableCache,
    ) -> Result<OutputOf<Self>, BoxError> {
        self.0.read(input, cache)
    }

    fn forward(&self, segments: &mut [Segment<'_, Self>]) -> Vec<Result<OutputOf<Self>, BoxError>> {
        let rows: usize = segments.iter().map(Segment::n_rows).sum();
        let outputs = segments.iter_mut().map(|segment| {
            let mut output = self.0.read(segment.input, segment.cache)?;
            let row = output.logits.row(0).iter().enumerate();
            let off = |(token, logit): (usize, &f32)| logit + ((token * rows) % 5) as f32;
            let changed = Vec::from_iter(row.map(off));
            if let PassInput::Prompt { .. } = segment.input {
                output.logits = HostLogits::new(changed, VOCAB);
            }
            Ok(output)
        });
        outputs.collect()
    }

    fn gather_features(
        &self,
        features: TableFeatures,
        path: &[NodeId],
    ) -> Result<TableFeatures, BoxError> {
        self.0.gather_features(features, path)
    }
}

/// The comparison above must detect a target whose rows depend on other segments.
#[test]
fn company_that_matters_is_noticed() {
    let target = Leaky(model(5));
    let start = |prompt: Vec<TokenId>| {
        let config = GenerationConfig {
            max_new_tokens: 12,
            stop_tokens: Vec::new(),
        };
        Session::start(&target, NoDraft, MatchPicks::greedy(), prompt, config).unwrap()
    };
    let run = |prompts: Vec<Vec<TokenId>>| {
        let mut batch = Batch::default();
        let first = batch.add(start(prompts[0].clone()), ());
        for prompt in &prompts[1..] {
            batch.add(start(prompt.clone()), ());
        }
        loop {
            for ended in batch.pass(&target, 1_000).ended {
                if ended.id == first {
                    return ended.session.tokens().to_vec();
                }
            }
        }
    };
    let prompts: Vec<Vec<TokenId>> = (1..6).map(|n| (0..n).collect()).collect();
    assert_ne!(run(prompts.clone()), run(prompts[..1].to_vec()));
}

/// Panics after a number of tokens, or only counts them.
#[derive(Default)]
struct Nervous {
    tokens: usize,
    panics_at: Option<usize>,
}

impl GenerationObserver for Nervous {
    fn on_tokens(&mut self, tokens: &[TokenId]) -> ControlFlow<()> {
        self.tokens += tokens.len();
        assert!(
            self.panics_at.is_none_or(|at| self.tokens < at),
            "a broken observer"
        );
        ControlFlow::Continue(())
    }
}

#[test]
fn a_sequence_that_fails_ends_alone() {
    let target = TableModel::random(VOCAB, 3, 9);
    let prompt: Vec<TokenId> = vec![1, 2, 3, 4];
    let config = || GenerationConfig {
        max_new_tokens: 30,
        stop_tokens: Vec::new(),
    };
    let expected = target.decode_plainly(&prompt, 30, &Sampler::Greedy, PositionUniforms::new(0));
    let faulty = |fault| -> AnyDrafter { Box::new(FaultyDrafter::new(fault)) };
    let drafters: Vec<(AnyDrafter, Option<usize>)> = vec![
        (Box::new(NoDraft), None),
        (faulty(Fault::Error), None),
        (
            Box::new(ContinuationDrafter::new(expected.clone(), 3)),
            None,
        ),
        (faulty(Fault::Panic), None),
        (Box::new(NoDraft), Some(5)),
        (faulty(Fault::PanicWhileGrowing), None),
        (Box::new(PromptLookupDrafter::default()), None),
    ];
    let mut batch: AnyBatch<Nervous> = Batch::default();
    let mut ids = Vec::new();
    for (drafter, panics_at) in drafters {
        let rule = MatchPicks::greedy();
        let session = Session::start(&target, drafter, rule, prompt.clone(), config()).unwrap();
        let observer = Nervous {
            tokens: 0,
            panics_at,
        };
        ids.push(batch.add(session, observer));
    }
    let mut outcomes = BTreeMap::new();
    while !batch.is_empty() {
        for ended in batch.pass(&target, 3).ended {
            outcomes.insert(ended.id, (ended.outcome, ended.session.tokens().to_vec()));
        }
    }
    let mut outcome = |index: usize| outcomes.remove(&ids[index]).unwrap();
    for index in [0, 2, 6] {
        let (ended, tokens) = outcome(index);
        assert_eq!(ended.unwrap(), FinishReason::Length);
        assert_eq!(tokens, expected);
    }
    assert!(matches!(outcome(1).0, Err(DecodeError::Draft(_))));
    let Err(DecodeError::Panicked(panicked)) = outcome(3).0 else {
        panic!("a panic is a separate error")
    };
    assert!(
        panicked.to_string().contains("a broken drafter"),
        "{panicked}"
    );
    assert!(matches!(outcome(4).0, Err(DecodeError::Panicked(_))));
    let Err(DecodeError::Draft(error)) = outcome(5).0 else {
        panic!("a panic while a tree grows is the drafter's")
    };
    assert!(
        error.to_string().contains("breaks while it grows"),
        "{error}"
    );
}

/// The prompt that has waited longest gets half of the rows, the shortest one the rest.
#[test]
fn short_prompts_pass_long_ones() {
    let target = TableModel::random(VOCAB, 3, 9);
    let mut batch: Batch<TableModel, Vec<TokenId>, NoDraft, MatchPicks, ()> = Batch::default();
    let mut add = |n_tokens: usize| {
        let prompt = vec![1; n_tokens];
        let (rule, config) = (MatchPicks::greedy(), GenerationConfig::default());
        let session = Session::start(&target, NoDraft, rule, prompt, config).unwrap();
        batch.add(session, ())
    };
    let [long, longer, short] = [100, 200, 10].map(&mut add);
    let rows = batch.pass(&target, 40).rows;
    assert_eq!((rows.sequences, rows.prompt, rows.tree), (2, 40, 0));
    let read = |batch: &Batch<_, _, _, _, _>| -> BTreeMap<SequenceId, usize> {
        let cached =
            |session: &Session<TableModel, _, _, _>| vispec_core::KvCache::len(session.cache());
        batch
            .sessions()
            .map(|(id, session)| (id, cached(session)))
            .collect()
    };
    let cached = read(&batch);
    assert_eq!(
        [cached[&long], cached[&longer], cached[&short]],
        [30, 0, 10]
    );
    let rows = batch.pass(&target, 40).rows;
    assert_eq!((rows.prompt, rows.tree), (40, 1));
}
