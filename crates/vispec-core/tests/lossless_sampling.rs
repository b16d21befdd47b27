//! Sampled output: the same tokens per seed for every draft, and the correct joint distribution.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;

use vispec_core::testing::{
    ContinuationDrafter, FixedTreeDrafter, RandomDrafter, TableDraft, TableModel,
};
use vispec_core::{
    AcceptanceRule, Chance, Drafter, DynamicTreeDrafter, GenerationConfig, LogitsError, MatchPicks,
    NoDraft, NodeId, PositionUniforms, PromptLookupConfig, PromptLookupDrafter, RecursiveRejection,
    Sampler, TargetLogits, TokenId, TokenTree, TreeShape, UniformStream, Verdict, generate,
};

const PROMPT: [TokenId; 3] = [0, 1, 0];

fn limit(max_new_tokens: usize) -> GenerationConfig {
    GenerationConfig {
        max_new_tokens,
        stop_tokens: Vec::new(),
    }
}

fn dynamic(law: TableModel, total_token: usize) -> DynamicTreeDrafter<TableModel, TableDraft> {
    let shape = TreeShape::from_upstream(2, 2, total_token).unwrap();
    DynamicTreeDrafter::new(TableDraft::new(law), shape)
}

/// A tree with several accepted levels, rejected siblings and a dead end.
fn bushy() -> FixedTreeDrafter {
    FixedTreeDrafter::new(vec![
        (0, 1),
        (0, 2),
        (1, 0),
        (1, 3),
        (2, 2),
        (2, 1),
        (3, 1),
        (5, 0),
    ])
}

#[test]
fn tokens_do_not_depend_on_the_drafter() {
    let vocab = 12;
    let samplers = [
        Sampler::new(1.0, None, None),
        Sampler::new(0.7, Some(0.8), None),
        Sampler::new(1.3, None, std::num::NonZeroUsize::new(5)),
        Sampler::new(1.0, Some(0.9), std::num::NonZeroUsize::new(4)),
    ];
    let prompt = PROMPT.to_vec();
    for seed in 0..20 {
        let model = TableModel::random(vocab, 2, seed / 5);
        for sampler in samplers {
            let sampler = sampler.unwrap();
            let uniforms = PositionUniforms::new(seed);
            let expected = model.decode_plainly(&prompt, 60, &sampler, uniforms);
            let lookup = PromptLookupConfig {
                max_branches: 3,
                ..PromptLookupConfig::default()
            };
            let drafters: Vec<Box<dyn Drafter<TableModel>>> = vec![
                Box::new(NoDraft),
                Box::new(bushy()),
                Box::new(RandomDrafter::new(vocab, 30, seed)),
                Box::new(PromptLookupDrafter::new(lookup).unwrap()),
                Box::new(dynamic(TableModel::random(vocab, 2, seed / 5), 9)),
                Box::new(dynamic(TableModel::random(vocab, 1, 99), 11)),
                Box::new(ContinuationDrafter::new(expected.clone(), 7)),
            ];
            for drafter in drafters {
                let name = drafter.name().to_owned();
                let rule = MatchPicks::new(sampler, uniforms);
                let generation =
                    generate(&model, drafter, rule, &prompt, limit(60), &mut ()).unwrap();
                assert_eq!(
                    generation.tokens, expected,
                    "seed {seed}, {sampler:?}, {name}"
                );
            }
        }
    }
}

#[test]
fn seeds_and_positions_matter() {
    let model = TableModel::random(12, 2, 1);
    let sampler = Sampler::new(1.0, None, None).unwrap();
    let answers: Vec<_> = (0..50)
        .map(|seed| model.decode_plainly(&PROMPT, 20, &sampler, PositionUniforms::new(seed)))
        .collect();
    for (seed, answer) in answers.iter().enumerate() {
        assert!(
            !answers[..seed].contains(answer),
            "seed {seed} repeats an earlier answer"
        );
    }
}

/// Number of tokens whose joint distribution is tested.
const N_TOKENS: usize = 4;
const VOCAB: usize = 4;
const N_RUNS: u64 = 20_000;

/// Returns the probability of each continuation of the prompt, by enumeration.
fn enumerated_law(model: &TableModel, sampler: &Sampler) -> BTreeMap<Vec<TokenId>, f64> {
    let mut law = BTreeMap::from([(Vec::new(), 1.0)]);
    for _ in 0..N_TOKENS {
        let mut longer = BTreeMap::new();
        for (tokens, probability) in law {
            let context = [&PROMPT[..], &tokens].concat();
            let next = sampler.probabilities(&model.logits(&context)).unwrap();
            for (token, p) in next.into_iter().enumerate().filter(|&(_, p)| p > 0.0) {
                let mut tokens = tokens.clone();
                tokens.push(TokenId::try_from(token).unwrap());
                longer.insert(tokens, probability * p);
            }
        }
        law = longer;
    }
    law
}

/// Result of a goodness-of-fit test.
#[derive(Debug)]
struct GTest {
    g: f64,
    quantile: f64,
}

impl GTest {
    fn passes(&self) -> bool {
        self.g < self.quantile
    }
}

/// Runs a G-test of the joint distribution of the first tokens under `rule` against `law`.
fn g_test<A: AcceptanceRule>(
    model: &TableModel,
    law: &BTreeMap<Vec<TokenId>, f64>,
    mut drafter: impl Drafter<TableModel>,
    mut rule: impl FnMut(u64) -> A,
) -> GTest {
    let prompt = PROMPT.to_vec();
    let mut counts: BTreeMap<Vec<TokenId>, u64> = BTreeMap::new();
    for run in 0..N_RUNS {
        // Two more tokens than tested, so that trees are not cut within the tested tokens.
        let config = limit(N_TOKENS + 2);
        let generation =
            generate(model, &mut drafter, rule(run), &prompt, config, &mut ()).unwrap();
        *counts
            .entry(generation.tokens[..N_TOKENS].to_vec())
            .or_default() += 1;
    }
    let mut cells: Vec<(f64, f64)> = Vec::new();
    let mut rare = (0.0, 0.0);
    for (tokens, probability) in law {
        let expected = probability * N_RUNS as f64;
        let observed = counts.remove(tokens).unwrap_or(0) as f64;
        if expected < 5.0 {
            rare = (rare.0 + observed, rare.1 + expected);
        } else {
            cells.push((observed, expected));
        }
    }
    assert!(counts.is_empty(), "outcomes of probability 0: {counts:?}");
    cells.push(rare);
    let g: f64 = cells
        .iter()
        .filter(|(observed, _)| *observed > 0.0)
        .map(|(observed, expected)| 2.0 * observed * (observed / expected).ln())
        .sum();
    // 0.9999 quantile of chi-squared by the Wilson-Hilferty approximation.
    let freedom = (cells.len() - 1) as f64;
    let spread = 2.0 / (9.0 * freedom);
    let quantile = freedom * (1.0 - spread + 3.719_016 * spread.sqrt()).powi(3);
    GTest { g, quantile }
}

/// A classic mistake: after a rejection the next token is sampled from the full distribution
/// instead of the remaining one.
struct NoResidual {
    sampler: Sampler,
    stream: UniformStream,
}

impl AcceptanceRule for NoResidual {
    fn first(
        &mut self,
        logits: &mut dyn TargetLogits,
        _position: usize,
    ) -> Result<TokenId, LogitsError> {
        logits.pick(0, &self.sampler, self.stream.next_uniform())
    }

    fn accept(
        &mut self,
        tree: &TokenTree,
        logits: &mut dyn TargetLogits,
        _position: usize,
    ) -> Result<Verdict, LogitsError> {
        let mut path = vec![NodeId::ROOT];
        loop {
            let node = *path.last().unwrap();
            let probabilities = self.sampler.probabilities(logits.read_row(node.index())?)?;
            let accepted = tree.children(node).find(|&child| {
                self.stream
                    .happens(probabilities[tree.token(child) as usize])
            });
            match accepted {
                Some(child) => path.push(child),
                None => {
                    let uniform = self.stream.next_uniform();
                    let bonus = logits.pick(node.index(), &self.sampler, uniform)?;
                    return Ok(Verdict { path, bonus });
                }
            }
        }
    }
}

#[test]
fn joint_law_equals_enumeration() {
    let model = TableModel::random(VOCAB, 2, 5);
    for sampler in [
        Sampler::new(1.0, None, None),
        Sampler::new(1.2, Some(0.9), None),
    ] {
        let sampler = sampler.unwrap();
        let law = enumerated_law(&model, &sampler);
        assert!((law.values().sum::<f64>() - 1.0).abs() < 1e-9);
        let matching = |run| MatchPicks::new(sampler, PositionUniforms::new(run));
        let rejection = |run| RecursiveRejection::new(sampler, run);
        let good = || dynamic(TableModel::random(VOCAB, 2, 5), 7);

        let tests = [
            ("matching, none", g_test(&model, &law, NoDraft, matching)),
            ("matching, bushy", g_test(&model, &law, bushy(), matching)),
            ("matching, dynamic", g_test(&model, &law, good(), matching)),
            ("rejection, bushy", g_test(&model, &law, bushy(), rejection)),
            (
                "rejection, dynamic",
                g_test(&model, &law, good(), rejection),
            ),
        ];
        for (name, test) in tests {
            assert!(test.passes(), "{name}: {test:?}");
        }
        // The same test must detect a wrong rule.
        let biased = |run| NoResidual {
            sampler,
            stream: UniformStream::new(run),
        };
        let test = g_test(&model, &law, bushy(), biased);
        assert!(
            !test.passes() && test.g > 2.0 * test.quantile,
            "the biased rule: {test:?}"
        );
    }
}

#[test]
fn both_rules_accept_equally_often() {
    let model = TableModel::random(VOCAB, 2, 5);
    let sampler = Sampler::new(1.0, None, None).unwrap();
    let prompt = PROMPT.to_vec();
    let tau = |rule: &mut dyn AcceptanceRule| {
        generate(&model, bushy(), rule, &prompt, limit(3000), &mut ())
            .unwrap()
            .stats
            .tau()
    };
    let matching = tau(&mut MatchPicks::new(sampler, PositionUniforms::new(1)));
    let rejection = tau(&mut RecursiveRejection::new(sampler, 1));
    assert!(
        matching > 0.5 && (matching - rejection).abs() < 0.1,
        "{matching} {rejection}"
    );
}

/// A source that always returns the same number.
struct Constant(f64);

impl Chance for Constant {
    fn uniform(&mut self) -> f64 {
        self.0
    }
}

/// A draft of tokens with probability 0 only: none is ever accepted, even with a uniform of exactly
/// 0 (which upstream's `u <= p` accepts).
#[test]
fn impossible_tokens_are_never_accepted() {
    let vocab = 8;
    let masked = TableModel::from_fn(vocab, |context| {
        let mut logits = TableModel::random(8, 1, 3).logits(context);
        (4..8).for_each(|token| logits[token] = f32::NEG_INFINITY);
        logits
    });
    // Without masks, top-k removes these tokens.
    let unlikely = TableModel::from_fn(vocab, |context| {
        let mut logits = TableModel::random(8, 1, 3).logits(context);
        (4..8).for_each(|token| logits[token] -= 10.0);
        logits
    });
    let impossible =
        FixedTreeDrafter::new(vec![(0, 4), (0, 5), (0, 6), (0, 7), (1, 4), (1, 5), (2, 7)]);
    let prompt = PROMPT.to_vec();
    for (model, top_k) in [(masked, None), (unlikely, std::num::NonZeroUsize::new(4))] {
        let sampler = Sampler::new(1.0, None, top_k).unwrap();
        let check = |rule: &mut dyn AcceptanceRule| {
            let generation = generate(
                &model,
                impossible.clone(),
                rule,
                &prompt,
                limit(50),
                &mut (),
            )
            .unwrap();
            assert_eq!(generation.stats.accepted_per_cycle().iter().sum::<u32>(), 0);
            assert!(generation.tokens.iter().all(|&token| token < 4));
        };
        for seed in 0..100 {
            check(&mut MatchPicks::new(sampler, PositionUniforms::new(seed)));
            check(&mut RecursiveRejection::new(sampler, seed));
        }
        for uniform in [0.0, 1.0 - f64::EPSILON / 2.0] {
            check(&mut RecursiveRejection::with_chance(
                sampler,
                Constant(uniform),
            ));
        }
    }
}

/// A drafter may know the numbers only if the resulting tokens do not depend on its proposals.
#[test]
fn only_numbers_of_positions_are_known() {
    let (sampler, uniforms) = (
        Sampler::new(1.0, None, None).unwrap(),
        PositionUniforms::new(1),
    );
    assert!(MatchPicks::new(sampler, uniforms).known_picks().is_some());
    assert!(MatchPicks::greedy().known_picks().is_none());
    let rejection = RecursiveRejection::new(sampler, 1);
    assert!(rejection.known_picks().is_none());
}
