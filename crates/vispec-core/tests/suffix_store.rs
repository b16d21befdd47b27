//! Drafts from earlier answers.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;

use proptest::prelude::*;
use vispec_core::testing::{TableDraft, TableModel};
use vispec_core::{
    AutoTree, ContextCost, Cost, CostTable, DraftCosts, Drafter, DynamicTreeDrafter, Generation,
    GenerationConfig, MatchPicks, PositionUniforms, PromptLookupDrafter, Sampler, SuffixStore,
    TargetCosts, TokenId, TreeShape, generate,
};

/// A machine on which eight rows take as long as one.
fn limits() -> AutoTree {
    let cost = |rows, seconds| Cost { rows, seconds };
    let target = TargetCosts {
        prefill: 0.3,
        verify: vec![cost(1, 1.0), cost(8, 1.0), cost(64, 8.0)],
        context: ContextCost::default(),
    };
    let draft = DraftCosts {
        read: 0.01,
        commit: 0.1,
        expand: vec![cost(8, 0.1)],
    };
    AutoTree::new(Arc::new(CostTable::new(target, Some(draft)).unwrap()))
}

/// Drafters with lookup, combined with a useless network.
fn drafter(kind: usize, model: &TableModel) -> Box<dyn Drafter<TableModel>> {
    drafter_with(kind, model, None)
}

fn drafter_with(
    kind: usize,
    model: &TableModel,
    store: Option<&Arc<SuffixStore>>,
) -> Box<dyn Drafter<TableModel>> {
    let vocab = model.logits(&[0]).len();
    let draft = || TableDraft::new(TableModel::random(vocab, 1, 77));
    let lookup = |drafter: PromptLookupDrafter| match store {
        Some(store) => drafter.with_store(Arc::clone(store)),
        None => drafter,
    };
    let joined = |drafter: DynamicTreeDrafter<TableModel, TableDraft>| match store {
        Some(store) => drafter.with_lookup().with_store(Arc::clone(store)),
        None => drafter.with_lookup(),
    };
    match kind {
        0 => Box::new(lookup(PromptLookupDrafter::default())),
        1 => Box::new(lookup(PromptLookupDrafter::auto(limits()))),
        2 => Box::new(joined(DynamicTreeDrafter::new(
            draft(),
            TreeShape::default(),
        ))),
        _ => Box::new(joined(DynamicTreeDrafter::new(draft(), limits()))),
    }
}

const KINDS: usize = 4;

fn answer(
    model: &TableModel,
    drafter: Box<dyn Drafter<TableModel>>,
    prompt: &[TokenId],
    (sampler, seed): (&Sampler, u64),
) -> Generation {
    let config = GenerationConfig {
        max_new_tokens: 100,
        stop_tokens: vec![],
    };
    let rule = MatchPicks::new(*sampler, PositionUniforms::new(seed));
    generate(model, drafter, rule, &prompt.to_vec(), config, &mut ()).unwrap()
}

#[test]
fn an_answer_that_was_given_before_comes_in_few_cycles() {
    // The vocabulary and the order are large enough that nothing repeats within an answer.
    let model = TableModel::random(500, 4, 5);
    let prompt = Vec::from_iter(100..120);
    let plain = (&Sampler::Greedy, 0);
    let reference = answer(&model, drafter(0, &model), &prompt, plain);
    for kind in 0..KINDS {
        let store = Arc::new(SuffixStore::new(1 << 16));
        let ask = |prompt: &[TokenId]| {
            let generation = answer(
                &model,
                drafter_with(kind, &model, Some(&store)),
                prompt,
                plain,
            );
            store.insert(prompt, &generation.tokens);
            generation
        };
        let first = ask(&prompt);
        let second = ask(&prompt);
        assert_eq!(first.tokens, reference.tokens);
        assert_eq!(second.tokens, reference.tokens);
        let (before, after) = (first.stats.tau(), second.stats.tau());
        assert!(before < 0.5 && after > 3.0, "{kind}: {before} {after}");
        assert!(store.usage().accepted > 60, "{:?}", store.usage());
        // A different prompt gets no guesses from it and is unaffected.
        let other = ask(&Vec::from_iter(200..220));
        assert!(other.stats.tau() < 0.5);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_stored_answers_are_those_of_plain_decoding(
        vocab in 2..30_usize,
        order in 0..4_usize,
        law: u64,
        greedy: bool,
        bytes in prop_oneof![Just(0_usize), 16..4_000_usize, Just(1 << 16)],
        asked in proptest::collection::vec((0..3_u32, 0..KINDS, 0..2_u64), 2..8),
    ) {
        let model = TableModel::random(vocab, order, law);
        let sampler = if greedy { Sampler::Greedy } else { Sampler::new(1.0, None, None).unwrap() };
        let store = Arc::new(SuffixStore::new(bytes));
        for (question, kind, seed) in asked {
            let prompt = Vec::from_iter((0..5).map(|i| (i * question) % vocab as u32));
            let expected = model.decode_plainly(&prompt, 100, &sampler, PositionUniforms::new(seed));
            let drafter = drafter_with(kind, &model, Some(&store));
            let found = answer(&model, drafter, &prompt, (&sampler, seed));
            prop_assert_eq!(&found.tokens, &expected);
            store.insert(&prompt, &found.tokens);
            prop_assert!(store.usage().bytes <= bytes);
        }
    }
}
