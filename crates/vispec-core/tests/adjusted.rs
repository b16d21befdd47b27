//! Penalties, biases and log-probabilities: the same with and without a draft.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use vispec_core::testing::{RandomDrafter, TableDraft, TableModel};
use vispec_core::{
    AdjustedPicks, Drafter, DynamicTreeDrafter, Generation, GenerationConfig, LogitAdjustments,
    MatchPicks, NoDraft, PickLog, PickedLogProbs, PositionUniforms, Sampler, TokenId, TreeShape,
    Withheld, generate,
};

const PROMPT: [TokenId; 5] = [0, 1, 0, 1, 1];
const VOCAB: usize = 12;

fn model() -> TableModel {
    TableModel::random(VOCAB, 2, 5)
}

fn answer(
    drafter: impl Drafter<TableModel>,
    adjustments: &LogitAdjustments,
    sampler: Sampler,
    seed: u64,
) -> (Generation, Vec<PickedLogProbs>) {
    let log = PickLog::new(3);
    let uniforms = PositionUniforms::new(seed);
    let rule = AdjustedPicks::new(sampler, uniforms, adjustments.clone(), &PROMPT);
    let config = GenerationConfig {
        max_new_tokens: 30,
        stop_tokens: Vec::new(),
    };
    let rule = rule.with_log(log.clone());
    let prompt = PROMPT.to_vec();
    let generation = generate(&model(), drafter, rule, &prompt, config, &mut ()).unwrap();
    let mut noted = log.take();
    noted.truncate(generation.tokens.len());
    (generation, noted)
}

/// Plain decoding without the crate's loop and rules.
fn by_hand(adjustments: &LogitAdjustments, sampler: Sampler, seed: u64) -> Vec<TokenId> {
    let mut context = PROMPT.to_vec();
    for _ in 0..30 {
        let mut logits = model().logits(&context);
        for (token, logit) in logits.iter_mut().enumerate() {
            let token = TokenId::try_from(token).unwrap();
            if context.contains(&token) {
                let penalty = adjustments.repetition_penalty;
                *logit = if *logit > 0.0 {
                    *logit / penalty
                } else {
                    *logit * penalty
                };
            }
            let said = context[PROMPT.len()..].iter();
            let count = said.filter(|&&said| said == token).count();
            if count > 0 {
                *logit -=
                    adjustments.presence_penalty + adjustments.frequency_penalty * count as f32;
            }
            *logit += adjustments.logit_bias.get(&token).unwrap_or(&0.0);
            let withheld = &adjustments.withheld;
            if context.len() - PROMPT.len() < withheld.until && withheld.tokens.contains(&token) {
                *logit = f32::MIN;
            }
        }
        let uniform = PositionUniforms::new(seed).at(context.len());
        context.push(sampler.pick(&logits, uniform).unwrap());
    }
    context.split_off(PROMPT.len())
}

fn adjustments() -> impl Strategy<Value = LogitAdjustments> {
    let bias = prop::collection::btree_map(0..VOCAB as TokenId, -5.0..5.0_f32, 0..4);
    let withheld = (
        prop::collection::vec(0..VOCAB as TokenId, 0..3),
        0..20_usize,
    );
    let withheld = withheld.prop_map(|(tokens, until)| Withheld { tokens, until });
    let penalties = (0.5..3.0_f32, -2.0..2.0_f32, -1.0..1.0_f32);
    (penalties, bias, withheld).prop_map(|(penalties, logit_bias, withheld)| {
        let (repetition_penalty, presence_penalty, frequency_penalty) = penalties;
        LogitAdjustments {
            repetition_penalty,
            presence_penalty,
            frequency_penalty,
            logit_bias,
            withheld,
        }
    })
}

proptest! {
    #[test]
    fn drafts_do_not_show(adjustments in adjustments(), greedy in any::<bool>(), seed in 0..20_u64) {
        let temperature = if greedy { 0.0 } else { 1.0 };
        let sampler = Sampler::new(temperature, Some(0.95), None).unwrap();
        let expected = by_hand(&adjustments, sampler, seed);
        let (plain, plain_noted) = answer(NoDraft, &adjustments, sampler, seed);
        prop_assert_eq!(&plain.tokens, &expected);
        let shape = TreeShape::from_upstream(3, 4, 20).unwrap();
        let tree = DynamicTreeDrafter::new(TableDraft::new(model()), shape);
        let (drafted, noted) = answer(tree, &adjustments, sampler, seed);
        prop_assert_eq!(&drafted.tokens, &expected);
        prop_assert_eq!(&noted, &plain_noted);
        let random = RandomDrafter::new(VOCAB, 10, seed);
        prop_assert_eq!(answer(random, &adjustments, sampler, seed).0.tokens, expected);
    }
}

/// A draft that guesses well without adjustments must still guess a part of the adjusted answer.
/// Otherwise the test above would compare plain decoding with itself.
#[test]
fn drafts_are_accepted_under_adjustments() {
    let adjustments = LogitAdjustments {
        repetition_penalty: 1.1,
        ..LogitAdjustments::default()
    };
    let shape = TreeShape::from_upstream(3, 4, 20).unwrap();
    let tree = DynamicTreeDrafter::new(TableDraft::new(model()), shape);
    let (generation, _) = answer(tree, &adjustments, Sampler::Greedy, 0);
    assert!(
        generation.stats.tau() > 0.5,
        "tau {}",
        generation.stats.tau()
    );
}

#[test]
fn without_adjustments_nothing_changes() {
    let neutral = LogitAdjustments::default();
    assert!(neutral.is_neutral());
    for seed in 0..10 {
        let sampler = Sampler::new(1.0, None, None).unwrap();
        let config = GenerationConfig {
            max_new_tokens: 30,
            stop_tokens: Vec::new(),
        };
        let rule = MatchPicks::new(sampler, PositionUniforms::new(seed));
        let expected =
            generate(&model(), NoDraft, rule, &PROMPT.to_vec(), config, &mut ()).unwrap();
        let (found, noted) = answer(NoDraft, &neutral, sampler, seed);
        assert_eq!(found.tokens, expected.tokens);
        for (token, noted) in found.tokens.iter().zip(noted) {
            assert_eq!(noted.token, *token);
            assert_eq!(noted.top.len(), 3);
            assert!(noted.log_prob <= noted.top[0].1 && noted.top[0].1 < 0.0);
        }
    }
}

/// Log-probabilities come from the target's own logits: the probabilities add up to 1 and ignore
/// the bias.
#[test]
fn log_probabilities_are_the_targets_own() {
    let adjustments = LogitAdjustments {
        logit_bias: BTreeMap::from([(3, 100.0)]),
        ..LogitAdjustments::default()
    };
    let (generation, noted) = answer(NoDraft, &adjustments, Sampler::Greedy, 0);
    assert!(generation.tokens.iter().all(|&token| token == 3));
    let probabilities = Sampler::new(1.0, None, None).unwrap();
    let expected = probabilities
        .probabilities(&model().logits(&PROMPT))
        .unwrap();
    assert!((f64::from(noted[0].log_prob).exp() - expected[3]).abs() < 1e-6);
    assert!(noted[0].top.iter().all(|&(token, log_prob)| {
        (f64::from(log_prob).exp() - expected[token as usize]).abs() < 1e-6
    }));
}
