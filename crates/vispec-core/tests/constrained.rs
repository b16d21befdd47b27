//! Answers under a constraint: the same with and without a draft, with forced tokens drafted for
//! free.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use proptest::prelude::*;
use vispec_core::testing::{RandomDrafter, TableDraft, TableModel};
use vispec_core::{
    AcceptanceRule, AdjustedPicks, BoxError, Constraint, DecodeError, Drafter, DynamicTreeDrafter,
    ForcedTokens, Generation, GenerationConfig, LogitAdjustments, NoDraft, NodeId,
    PositionUniforms, PromptLookupDrafter, Sampler, TokenId, TokenTree, TreeShape, UniformStream,
    generate,
};

const PROMPT: [TokenId; 5] = [1, 2, 1, 2, 2];
const VOCAB: usize = 12;
const END: TokenId = 0;

/// An automaton: the allowed tokens of each state and the states they lead to. `END` is allowed in
/// states that list it, and nothing follows it.
#[derive(Clone, Debug)]
struct Automaton {
    states: Vec<Vec<(TokenId, usize)>>,
    path: Vec<usize>,
    ended: usize,
}

impl Automaton {
    /// Creates an automaton in which some states have a choice and others have a single transition.
    fn random(seed: u64) -> Self {
        let mut stream = UniformStream::new(seed);
        let mut below = |bound: usize| (stream.next_uniform() * bound as f64) as usize;
        let n_states = 8;
        let states = (0..n_states).map(|state| {
            let mut arrows = vec![(1 + (state % 11) as TokenId, below(n_states))];
            if !usize::is_multiple_of(state, 3) {
                for token in 1..VOCAB as TokenId {
                    if below(3) == 0 && arrows[0].0 != token {
                        arrows.push((token, below(n_states)));
                    }
                }
            }
            if state == 5 {
                arrows.push((END, state));
            }
            arrows
        });
        Self {
            states: states.collect(),
            path: vec![0],
            ended: 0,
        }
    }

    fn arrows(&self) -> &[(TokenId, usize)] {
        &self.states[self.path[self.path.len() - 1]]
    }
}

impl Constraint for Automaton {
    fn mask(&mut self, logits: &mut [f32]) -> Result<(), BoxError> {
        if self.ended > 0 {
            return Ok(());
        }
        for (token, logit) in logits.iter_mut().enumerate() {
            if !self.arrows().iter().any(|&(id, _)| id as usize == token) {
                *logit = f32::NEG_INFINITY;
            }
        }
        Ok(())
    }

    fn allows(&mut self, token: TokenId) -> Result<bool, BoxError> {
        Ok(self.ended == 0 && self.arrows().iter().any(|&(id, _)| id == token))
    }

    fn forced(&mut self) -> Result<Vec<TokenId>, BoxError> {
        let mut chain = Vec::new();
        let start = self.path.len();
        while let (&[(token, next)], 0) = (self.arrows(), self.ended) {
            chain.push(token);
            self.path.push(next);
            if chain.len() == 40 {
                break;
            }
        }
        self.path.truncate(start);
        Ok(chain)
    }

    fn advance(&mut self, token: TokenId) -> Result<(), BoxError> {
        if token == END || self.ended > 0 {
            self.ended += 1;
            return Ok(());
        }
        let arrow = self.arrows().iter().find(|&&(id, _)| id == token);
        let &(_, next) = arrow.ok_or("a token that may not come")?;
        self.path.push(next);
        Ok(())
    }

    fn retreat(&mut self) -> Result<(), BoxError> {
        if self.ended > 0 {
            self.ended -= 1;
        } else {
            self.path.pop();
        }
        Ok(())
    }
}

fn model() -> TableModel {
    TableModel::random(VOCAB, 2, 5)
}

fn rule(automaton: u64, sampler: Sampler, seed: u64, forced: ForcedTokens) -> AdjustedPicks {
    let uniforms = PositionUniforms::new(seed);
    let rule = AdjustedPicks::new(sampler, uniforms, LogitAdjustments::default(), &PROMPT);
    rule.with_constraint(Box::new(Automaton::random(automaton)), forced)
}

fn answer(drafter: impl Drafter<TableModel>, rule: impl AcceptanceRule) -> Generation {
    let config = GenerationConfig {
        max_new_tokens: 40,
        stop_tokens: vec![END],
    };
    let prompt = PROMPT.to_vec();
    generate(&model(), drafter, rule, &prompt, config, &mut ()).unwrap()
}

/// Decodes without the crate's loop and rules.
fn by_hand(automaton: u64, sampler: Sampler, seed: u64) -> Vec<TokenId> {
    let mut automaton = Automaton::random(automaton);
    let mut context = PROMPT.to_vec();
    while context.len() < PROMPT.len() + 40 {
        let mut logits = model().logits(&context);
        automaton.mask(&mut logits).unwrap();
        let uniform = PositionUniforms::new(seed).at(context.len());
        let token = sampler.pick(&logits, uniform).unwrap();
        automaton.advance(token).unwrap();
        context.push(token);
        if token == END {
            break;
        }
    }
    context.split_off(PROMPT.len())
}

proptest! {
    #[test]
    fn drafts_do_not_show(automaton in 0..200_u64, greedy in any::<bool>(), seed in 0..20_u64) {
        let temperature = if greedy { 0.0 } else { 1.0 };
        let sampler = Sampler::new(temperature, Some(0.95), None).unwrap();
        let rule_with = |forced| rule(automaton, sampler, seed, forced);
        let rule = || rule_with(ForcedTokens::Drafted);
        let unshaped = || rule_with(ForcedTokens::Decoded);
        let expected = by_hand(automaton, sampler, seed);
        let plain = answer(NoDraft, unshaped());
        prop_assert_eq!(&plain.tokens, &expected);
        prop_assert!(plain.stats.accepted_per_cycle().iter().all(|&n| n == 0));
        let shape = TreeShape::from_upstream(3, 4, 20).unwrap();
        let tree = || DynamicTreeDrafter::new(TableDraft::new(model()), shape);
        prop_assert_eq!(&answer(NoDraft, rule()).tokens, &expected);
        prop_assert_eq!(&answer(tree(), rule()).tokens, &expected);
        prop_assert_eq!(&answer(tree(), unshaped()).tokens, &expected);
        prop_assert_eq!(&answer(tree().with_lookup(), rule()).tokens, &expected);
        prop_assert_eq!(&answer(PromptLookupDrafter::default(), rule()).tokens, &expected);
        let random = RandomDrafter::new(VOCAB, 10, seed);
        prop_assert_eq!(&answer(random, rule()).tokens, &expected);
    }
}

#[test]
fn what_must_come_is_drafted_for_free() {
    let automatons =
        (0..50).map(|automaton| rule(automaton, Sampler::Greedy, 0, ForcedTokens::Drafted));
    let cycles = automatons.map(|rule| {
        let generation = answer(NoDraft, rule);
        (generation.tokens.len(), generation.stats.n_cycles())
    });
    let (tokens, cycles) = cycles.fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
    assert!(
        cycles * 5 < tokens * 4,
        "{cycles} cycles for {tokens} tokens"
    );
}

#[test]
fn nothing_forbidden_is_verified() {
    let mut rule = rule(7, Sampler::Greedy, 0, ForcedTokens::Drafted);
    let mut tree = TokenTree::new(9);
    for token in 1..VOCAB as TokenId {
        let child = tree.push(NodeId::ROOT, token).unwrap();
        tree.push(child, END).unwrap();
    }
    let shaped = rule.shape(tree).unwrap();
    // State 0 has a single transition.
    let root = NodeId::ROOT;
    let children = Vec::from_iter(shaped.children(root).map(|child| shaped.token(child)));
    assert_eq!(children, [1]);
}

/// A constraint that fails.
#[derive(Debug)]
struct Broken;

impl Constraint for Broken {
    fn mask(&mut self, _: &mut [f32]) -> Result<(), BoxError> {
        Err("too much work".into())
    }

    fn allows(&mut self, _: TokenId) -> Result<bool, BoxError> {
        Ok(true)
    }

    fn forced(&mut self) -> Result<Vec<TokenId>, BoxError> {
        Ok(Vec::new())
    }

    fn advance(&mut self, _: TokenId) -> Result<(), BoxError> {
        Ok(())
    }

    fn retreat(&mut self) -> Result<(), BoxError> {
        Ok(())
    }
}

#[test]
fn a_constraint_that_gives_up_ends_the_answer_with_its_error() {
    let uniforms = PositionUniforms::new(0);
    let rule = AdjustedPicks::new(
        Sampler::Greedy,
        uniforms,
        LogitAdjustments::default(),
        &PROMPT,
    );
    let rule = rule.with_constraint(Box::new(Broken), ForcedTokens::Drafted);
    let config = GenerationConfig::default();
    let prompt = PROMPT.to_vec();
    let error = generate(&model(), NoDraft, rule, &prompt, config, &mut ()).unwrap_err();
    assert!(matches!(error, DecodeError::Constraint(_)), "{error}");
}
