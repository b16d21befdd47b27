//! Greedy output equals plain decoding for every draft.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use proptest::prelude::*;
use vispec_core::testing::{
    CheckingDrafter, ContinuationDrafter, FixedTreeDrafter, RandomDrafter, TableDraft, TableModel,
};
use vispec_core::{
    Drafter, DynamicTreeDrafter, GenerationConfig, MatchPicks, NoDraft, PositionUniforms,
    PromptLookupConfig, PromptLookupDrafter, Sampler, TokenId, TreeShape, generate,
};

const PROMPT: [TokenId; 5] = [0, 1, 0, 1, 1];

fn check(
    model: &TableModel,
    drafter: impl Drafter<TableModel>,
    n_tokens: usize,
) -> Result<(), TestCaseError> {
    let name = drafter.name().to_owned();
    let prompt = PROMPT.to_vec();
    let expected = model.decode_plainly(
        &prompt,
        n_tokens,
        &Sampler::Greedy,
        PositionUniforms::new(0),
    );
    let config = GenerationConfig {
        max_new_tokens: n_tokens,
        stop_tokens: Vec::new(),
    };
    let mut drafter = CheckingDrafter::new(drafter);
    let generation = generate(
        model,
        &mut drafter,
        MatchPicks::greedy(),
        &prompt,
        config,
        &mut (),
    )
    .expect("nothing can fail");
    prop_assert_eq!(&generation.tokens, &expected, "{}", name);

    let stats = generation.stats;
    let accepted: u32 = stats.accepted_per_cycle().iter().sum();
    prop_assert_eq!(
        accepted as usize + stats.n_cycles(),
        n_tokens,
        "each cycle puts its root and its accepted tokens through the target, each token once"
    );
    prop_assert_eq!(
        stats.accepted_histogram().iter().sum::<u64>(),
        stats.n_cycles() as u64
    );
    // Every tree except that of a last cycle without a draft went through the drafter.
    let known = drafter.context();
    if !known.is_empty() {
        prop_assert_eq!(
            &known[PROMPT.len()..],
            &expected[..known.len() - PROMPT.len()]
        );
    }
    Ok(())
}

fn shapes() -> impl Strategy<Value = TreeShape> {
    (0..5_usize, 1..5_usize).prop_flat_map(|(depth, top_k)| {
        (1..=(top_k + depth * top_k * top_k).min(30) + 1).prop_map(move |total| {
            TreeShape::from_upstream(depth, top_k, total).expect("enough candidates")
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_tree(
        vocab in 2..8_usize,
        order in 0..3_usize,
        seed: u64,
        nodes in prop::collection::vec((any::<prop::sample::Index>(), 0..8_u32), 0..30),
        n_tokens in 1..40_usize,
    ) {
        let model = TableModel::random(vocab, order, seed);
        let mut tree = vispec_core::TokenTree::new(0);
        let mut pairs = Vec::new();
        for (parent, token) in nodes {
            let parent = parent.index(tree.n_nodes());
            let token = token % vocab as TokenId;
            if tree.push(vispec_core::NodeId::from_index(parent), token).is_ok() {
                pairs.push((parent, token));
            }
        }
        check(&model, FixedTreeDrafter::new(pairs), n_tokens)?;
        check(&model, RandomDrafter::new(vocab, 40, seed), n_tokens)?;
    }

    #[test]
    fn any_dynamic_tree(
        vocab in 2..8_usize,
        order in 0..3_usize,
        seed: u64,
        other in 0..2_u64,
        shape in shapes(),
        fixed_levels in prop::option::of(1..6_usize),
        joined: bool,
    ) {
        let model = TableModel::random(vocab, order, seed);
        // With `other` = 0 the draft has the target's law, otherwise a different one.
        let mut draft = TableDraft::new(TableModel::random(vocab, order, seed + other));
        if let Some(levels) = fixed_levels {
            draft = draft.with_fixed_levels(levels);
        }
        let drafter = DynamicTreeDrafter::new(draft, shape);
        let drafter = if joined { drafter.with_lookup() } else { drafter };
        check(&model, drafter, 24)?;
    }

    #[test]
    fn any_lookup(
        vocab in 2..5_usize,
        seed: u64,
        max_ngram in 1..4_usize,
        max_tokens in 0..12_usize,
        max_branches in 1..5_usize,
    ) {
        let model = TableModel::random(vocab, 2, seed);
        let config = PromptLookupConfig { max_ngram, min_ngram: 1, max_tokens, max_branches };
        check(&model, PromptLookupDrafter::new(config).unwrap(), 40)?;
        check(&model, NoDraft, 40)?;
    }
}

#[test]
fn the_whole_answer_at_once() {
    let model = TableModel::random(16, 2, 7);
    let answer = model.decode_plainly(&PROMPT, 100, &Sampler::Greedy, PositionUniforms::new(0));
    let drafter = ContinuationDrafter::new(answer.clone(), 1000);
    let prompt = PROMPT.to_vec();
    let config = GenerationConfig {
        max_new_tokens: 100,
        stop_tokens: Vec::new(),
    };
    let generation = generate(
        &model,
        drafter,
        MatchPicks::greedy(),
        &prompt,
        config,
        &mut (),
    )
    .unwrap();
    assert_eq!(generation.tokens, answer);
    assert_eq!(
        generation.stats.accepted_per_cycle(),
        [99],
        "first token, 99 drafted; the bonus token no longer fits"
    );
}

/// With one node per tree nothing is expanded, but the draft still tracks the answer.
#[test]
fn a_tree_of_one_node_keeps_the_draft_in_step() {
    let model = TableModel::random(6, 1, 3);
    let draft = TableDraft::new(TableModel::random(6, 1, 3));
    let shape = TreeShape::from_upstream(3, 2, 1).unwrap();
    let mut drafter = DynamicTreeDrafter::new(draft, shape);
    let prompt = PROMPT.to_vec();
    let config = GenerationConfig {
        max_new_tokens: 10,
        stop_tokens: Vec::new(),
    };
    let generation = generate(
        &model,
        &mut drafter,
        MatchPicks::greedy(),
        &prompt,
        config,
        &mut (),
    )
    .unwrap();
    assert_eq!(drafter.model().n_expansions(), 0);
    // The tenth token goes through the target in a cycle without a draft.
    let known = [&prompt, &generation.tokens[..9]].concat();
    assert_eq!(drafter.model().committed(), known);
    assert!(generation.stats.tau().abs() < 1e-12);
    assert!((generation.stats.tokens_per_cycle() - 1.0).abs() < 1e-12);
}
