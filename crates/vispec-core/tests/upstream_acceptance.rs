//! Acceptance against the reference implementation's `evaluate_posterior`.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod fixture;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use fixture::Fixture;
use vispec_core::{
    AcceptanceRule, Chance, HostLogits, LogitsError, MatchPicks, NodeId, PositionUniforms,
    RecursiveRejection, Sampler, TargetLogits, TokenId, TokenTree,
};

/// One case: the tree described by its candidate rows, and the logits of each node.
struct Case {
    rows: Vec<Vec<i64>>,
    tree: TokenTree,
    logits: HostLogits,
}

impl Case {
    fn read(fixture: &Fixture, name: &str) -> Self {
        let shape = fixture.shape(&format!("{name}.logits"));
        let (width, vocab) = (shape[1], shape[2]);
        let rows = fixture.integers(&format!("{name}.candidates"));
        let rows: Vec<Vec<i64>> = rows.chunks_exact(width).map(<[i64]>::to_vec).collect();
        let values = fixture.floats(&format!("{name}.logits"));
        let mut tree = TokenTree::new(TokenId::try_from(rows[0][0]).unwrap());
        let mut by_node = values[..vocab].to_vec();
        for (row_idx, row) in rows.iter().enumerate() {
            let mut node = NodeId::ROOT;
            for (column, &token) in row.iter().enumerate().skip(1) {
                let Ok(token) = TokenId::try_from(token) else {
                    break;
                };
                node = tree.child_with(node, token).unwrap_or_else(|| {
                    let start = (row_idx * width + column) * vocab;
                    by_node.extend_from_slice(&values[start..start + vocab]);
                    tree.push(node, token).unwrap()
                });
            }
        }
        Self {
            rows,
            tree,
            logits: HostLogits::new(by_node, vocab),
        }
    }
}

#[test]
fn greedy_verdicts_equal_the_reference() {
    let fixture = Fixture::open("posterior_greedy");
    for case in fixture.cases() {
        let name = case["case"].as_str().unwrap();
        let Case {
            rows,
            tree,
            mut logits,
        } = Case::read(&fixture, name);
        let one = |field: &str| fixture.integers(&format!("{name}.{field}"))[0];
        let accepted = usize::try_from(one("accept_length")).unwrap();
        let best = &rows[usize::try_from(one("best_candidate")).unwrap()];

        let matched = MatchPicks::greedy().accept(&tree, &mut logits, 0).unwrap();
        let rejected = RecursiveRejection::new(Sampler::Greedy, 1);
        let rejected = { rejected }.accept(&tree, &mut logits, 0).unwrap();
        assert_eq!(
            matched, rejected,
            "{name}: both rules are the same when greedy"
        );
        let path: Vec<i64> = matched
            .path
            .iter()
            .map(|&node| tree.token(node).into())
            .collect();
        assert_eq!(path, best[..=accepted], "{name} path");
        assert_eq!(i64::from(matched.bonus), one("next_token"), "{name} bonus");
        let last = matched.path.last().unwrap().index();
        let expected = fixture.floats(&format!("{name}.sample_logits"));
        assert_eq!(logits.read_row(last).unwrap(), expected, "{name} last row");
    }
}

/// Enumerates every sequence of random decisions, one run at a time.
#[derive(Default)]
struct Enumeration {
    /// Decision and number of options of each random event in the current run.
    script: Vec<(usize, usize)>,
    at: usize,
    probability: f64,
}

impl Enumeration {
    fn decide(&mut self, n_options: usize) -> usize {
        if self.at == self.script.len() {
            self.script.push((0, n_options));
        }
        self.at += 1;
        self.script[self.at - 1].0
    }

    /// Runs `experiment` for every sequence of decisions and sums the probability by outcome.
    fn law<O: Ord>(mut experiment: impl FnMut(&mut Self) -> O) -> BTreeMap<O, f64> {
        let mut law = BTreeMap::new();
        let mut enumeration = Self::default();
        loop {
            enumeration.at = 0;
            enumeration.probability = 1.0;
            let outcome = experiment(&mut enumeration);
            if enumeration.probability > 0.0 {
                *law.entry(outcome).or_insert(0.0) += enumeration.probability;
            }
            loop {
                let Some((decision, n_options)) = enumeration.script.pop() else {
                    return law;
                };
                if decision + 1 < n_options {
                    enumeration.script.push((decision + 1, n_options));
                    break;
                }
            }
        }
    }
}

impl Chance for Enumeration {
    fn uniform(&mut self) -> f64 {
        unreachable!("both kinds of event are overridden")
    }

    fn happens(&mut self, probability: f64) -> bool {
        let happens = self.decide(2) == 0;
        self.probability *= if happens {
            probability
        } else {
            1.0 - probability
        };
        happens
    }

    fn choose(&mut self, weights: &[f64]) -> Option<usize> {
        let index = self.decide(weights.len());
        self.probability *= weights[index] / weights.iter().sum::<f64>();
        Some(index)
    }
}

/// Logits for which every pick is a random event of the enumeration.
struct EnumeratedLogits<'a> {
    logits: &'a HostLogits,
    enumeration: &'a mut Enumeration,
}

impl TargetLogits for EnumeratedLogits<'_> {
    fn n_rows(&self) -> usize {
        self.logits.n_rows()
    }

    fn pick(&mut self, row: usize, sampler: &Sampler, _: f64) -> Result<TokenId, LogitsError> {
        let probabilities = sampler.probabilities(self.logits.row(row))?;
        let index = self.enumeration.choose(&probabilities).unwrap();
        Ok(TokenId::try_from(index).unwrap())
    }

    fn read_row(&mut self, row: usize) -> Result<&[f32], LogitsError> {
        Ok(self.logits.row(row))
    }
}

#[test]
fn sampled_outcomes_have_the_reference_probabilities() {
    let fixture = Fixture::open("posterior_sampling");
    for case in fixture.cases() {
        let name = case["case"].as_str().unwrap();
        let Case { tree, logits, .. } = Case::read(&fixture, name);
        let top_k = NonZeroUsize::new(usize::try_from(case["top_k"].as_u64().unwrap()).unwrap());
        let temperature = case["temperature"].as_f64().unwrap() as f32;
        let sampler = Sampler::new(temperature, None, top_k).unwrap();

        let first = sampler.probabilities(logits.row(0)).unwrap();
        let expected = fixture.floats(&format!("{name}.target_first_token_probs"));
        for (ours, theirs) in first.iter().zip(expected) {
            assert!(
                (ours - f64::from(theirs)).abs() < 1e-6,
                "{name}: {ours} {theirs}"
            );
        }

        let outcome = |verdict: vispec_core::Verdict| -> Vec<u64> {
            let path = verdict.path.iter().map(|&node| tree.token(node));
            path.chain([verdict.bonus]).map(u64::from).collect()
        };
        let rejection = Enumeration::law(|enumeration| {
            let mut rule = RecursiveRejection::with_chance(sampler, enumeration);
            outcome(rule.accept(&tree, &mut logits.clone(), 0).unwrap())
        });
        let matching = Enumeration::law(|enumeration| {
            let mut logits = EnumeratedLogits {
                logits: &logits,
                enumeration,
            };
            let mut rule = MatchPicks::new(sampler, PositionUniforms::new(0));
            outcome(rule.accept(&tree, &mut logits, 0).unwrap())
        });
        let expected: BTreeMap<Vec<u64>, f64> = case["outcomes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|outcome| {
                let tokens = outcome["tokens"].as_array().unwrap();
                let tokens = tokens.iter().map(|token| token.as_u64().unwrap()).collect();
                (tokens, outcome["exact"].as_f64().unwrap())
            })
            .collect();
        for (rule, law) in [("rejection", &rejection), ("matching", &matching)] {
            assert!(
                law.keys().eq(expected.keys()),
                "{name} {rule}: the outcomes that can happen"
            );
            for (outcome, exact) in &expected {
                let error = (law[outcome] - exact).abs();
                assert!(error < 1e-6, "{name} {rule}: {outcome:?} is off by {error}");
            }
            let accepted: f64 = law
                .iter()
                .map(|(outcome, p)| p * (outcome.len() - 2) as f64)
                .sum();
            let mean = case["mean_accept_exact"].as_f64().unwrap();
            assert!(
                (accepted - mean).abs() < 1e-6,
                "{name} {rule}: accepts {accepted}"
            );
        }
    }
}
