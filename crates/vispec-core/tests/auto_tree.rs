//! Trees sized by cost: the tokens are those of plain decoding, and modelled time never exceeds it
//! by much.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::cell::Cell;
use std::sync::Arc;

use proptest::prelude::*;
use vispec_core::testing::{TableDraft, TableModel};
use vispec_core::{
    Ask, AutoTree, Beam, BoxError, ContextCost, Cost, CostTable, DraftCosts, DraftModel, Drafter,
    DynamicTreeDrafter, Expansion, Generation, GenerationConfig, GenerationStats, Idle, MatchPicks,
    PositionUniforms, PromptLookupDrafter, Sampler, TargetCosts, TargetModel, TokenId, generate,
    measure_draft_costs, measure_target_costs,
};

/// A machine on which up to `free` rows take as long as one, and each further row adds `slope`.
fn machine(free: usize, slope: f64, draft: Option<f64>) -> Arc<CostTable> {
    let at = |rows: usize| Cost {
        rows,
        seconds: 1.0 + slope * rows.saturating_sub(free) as f64,
    };
    let draft = draft.map(|seconds| DraftCosts {
        read: seconds / 10.0,
        commit: seconds,
        expand: vec![Cost { rows: 8, seconds }],
    });
    let mut rows = vec![1, free.max(2), 64];
    rows.dedup();
    let target = TargetCosts {
        prefill: 0.3,
        verify: rows.into_iter().map(at).collect(),
        context: ContextCost::default(),
    };
    Arc::new(CostTable::new(target, draft).unwrap())
}

const PROMPT: [TokenId; 5] = [0, 1, 0, 1, 1];

fn run(model: &TableModel, drafter: impl Drafter<TableModel>, sampler: &Sampler) -> Generation {
    let config = GenerationConfig {
        max_new_tokens: 200,
        stop_tokens: vec![],
    };
    let rule = MatchPicks::new(*sampler, PositionUniforms::new(3));
    generate(model, drafter, rule, &PROMPT.to_vec(), config, &mut ()).unwrap()
}

/// A draft that adds up its modelled time.
struct Metered<'a> {
    draft: TableDraft,
    costs: Arc<CostTable>,
    unread: usize,
    seconds: &'a Cell<f64>,
}

impl Metered<'_> {
    fn pay(&self, seconds: f64) {
        self.seconds.set(self.seconds.get() + seconds);
    }
}

impl DraftModel<TableModel> for Metered<'_> {
    type Hidden = <TableDraft as DraftModel<TableModel>>::Hidden;

    fn name(&self) -> &'static str {
        "metered"
    }

    fn begin(
        &mut self,
        prompt: &Vec<TokenId>,
        features: <TableModel as TargetModel>::Features,
        next: TokenId,
        ask: Ask,
    ) -> Result<Expansion<Self::Hidden>, BoxError> {
        self.pay(self.costs.read(prompt.len()) + self.costs.commit());
        self.draft.begin(prompt, features, next, ask)
    }

    fn commit(
        &mut self,
        accepted: &[TokenId],
        features: <TableModel as TargetModel>::Features,
        next: TokenId,
        ask: Ask,
    ) -> Result<Expansion<Self::Hidden>, BoxError> {
        self.pay(self.costs.read(self.unread) + self.costs.commit());
        self.unread = 0;
        self.draft.commit(accepted, features, next, ask)
    }

    fn postpone_prompt(
        &mut self,
        prompt: &Vec<TokenId>,
        features: <TableModel as TargetModel>::Features,
        next: TokenId,
    ) -> Result<(), BoxError> {
        self.unread = prompt.len();
        self.draft
            .begin(prompt, features, next, Ask::best(1))
            .map(drop)
    }

    fn postpone(
        &mut self,
        accepted: &[TokenId],
        features: <TableModel as TargetModel>::Features,
        next: TokenId,
    ) -> Result<(), BoxError> {
        self.unread += accepted.len() + 1;
        self.draft
            .commit(accepted, features, next, Ask::best(1))
            .map(drop)
    }

    fn expand(
        &mut self,
        beam: &Beam,
        parents: &Self::Hidden,
        ask: Ask,
    ) -> Result<Expansion<Self::Hidden>, BoxError> {
        self.pay(self.costs.expand(beam.tokens.len()));
        self.draft.expand(beam, parents, ask)
    }
}

/// Returns the maximum time of a run with these statistics.
fn most_seconds(costs: &CostTable, max_loss: f64, stats: &GenerationStats) -> f64 {
    // The first token comes from the prefill; tokens that were cut off count as accepted.
    let emitted = stats.accepted_per_cycle().iter().map(|&n| n as usize + 1);
    let plain = emitted.sum::<usize>() as f64 * costs.verify(1);
    let at_least = AutoTree::ADVANCE as f64 * costs.verify(1);
    plain + max_loss * (plain.max(at_least) + costs.prefill(PROMPT.len())) + 1e-9
}

/// Returns the seconds of all verify passes by the cost table.
fn verify_time(stats: &GenerationStats, costs: &CostTable) -> f64 {
    let nodes = stats.nodes_per_cycle().iter();
    nodes.map(|&nodes| costs.verify(nodes as usize)).sum()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn tokens_are_those_of_plain_decoding(
        vocab in 2..9_usize,
        order in 0..3_usize,
        seed: u64,
        other in 0..2_u64,
        (free, slope, draft) in (1..9_usize, 0.0..0.5_f64, 0.01..0.5_f64),
        greedy: bool,
        max_loss in prop_oneof![Just(0.0), Just(0.025), Just(1.0)],
        joined: bool,
    ) {
        let model = TableModel::random(vocab, order, seed);
        let sampler = if greedy { Sampler::Greedy } else { Sampler::new(1.0, None, None).unwrap() };
        let expected = model.decode_plainly(&PROMPT, 200, &sampler, PositionUniforms::new(3));

        let costs = machine(free, slope, Some(draft));
        let auto = AutoTree { max_loss, ..AutoTree::new(costs.clone()) };
        let law = TableModel::random(vocab, order, seed + other);
        let seconds = Cell::new(0.0);
        let metered = Metered {
            draft: TableDraft::new(law),
            costs: costs.clone(),
            unread: 0,
            seconds: &seconds,
        };
        let drafter = DynamicTreeDrafter::new(metered, auto);
        let drafter = if joined { drafter.with_lookup() } else { drafter };
        let neural = run(&model, drafter, &sampler);
        prop_assert_eq!(&neural.tokens, &expected);
        let found = seconds.get() + verify_time(&neural.stats, &costs);
        let most = most_seconds(&costs, max_loss, &neural.stats);
        prop_assert!(found <= most, "{found} s, at most {most}");

        let costs = machine(free, slope, None);
        let auto = AutoTree { max_loss, ..AutoTree::new(costs.clone()) };
        let lookup = run(&model, PromptLookupDrafter::auto(auto), &sampler);
        prop_assert_eq!(&lookup.tokens, &expected);
        let found = verify_time(&lookup.stats, &costs);
        let most = most_seconds(&costs, max_loss, &lookup.stats);
        prop_assert!(found <= most, "{found} s, at most {most}");
    }
}

#[test]
fn a_perfect_draft_on_a_wide_machine_is_followed_far() {
    let model = TableModel::random(16, 2, 5);
    let auto = AutoTree::new(machine(64, 0.0, Some(0.05)));
    let draft = TableDraft::new(TableModel::random(16, 2, 5));
    let stats = run(
        &model,
        DynamicTreeDrafter::new(draft, auto),
        &Sampler::Greedy,
    )
    .stats;
    assert!(stats.tau() > 2.0, "tau {}", stats.tau());
}

#[test]
fn a_useless_draft_is_paused_and_the_reason_counted() {
    let model = TableModel::random(64, 2, 1);
    // With a small allowance, drafting would be tried too rarely to be paused.
    let auto = AutoTree {
        max_loss: 1.0,
        ..AutoTree::new(machine(1, 0.3, Some(0.3)))
    };
    let draft = TableDraft::new(TableModel::random(64, 2, 2));
    let stats = run(
        &model,
        DynamicTreeDrafter::new(draft, auto),
        &Sampler::Greedy,
    )
    .stats;
    let paused = stats.idle_cycles(Idle::Paused);
    let idle: u64 = Idle::ALL
        .map(|reason| stats.idle_cycles(reason))
        .iter()
        .sum();
    let alone = stats.nodes_per_cycle().iter().filter(|&&n| n == 1).count();
    assert_eq!(idle, alone as u64);
    assert!(paused > 120, "{paused} of {}", stats.n_cycles());
}

#[test]
fn a_repeating_answer_is_looked_up() {
    let target = TableModel::from_fn(10, |context| {
        let next = context.last().map_or(0, |&last| (last as usize + 1) % 10);
        (0..10)
            .map(|token| if token == next { 5.0 } else { 0.0 })
            .collect()
    });
    let costs = machine(4, 0.1, None);
    let stats = run(
        &target,
        PromptLookupDrafter::auto(AutoTree::new(costs.clone())),
        &Sampler::Greedy,
    )
    .stats;
    assert!(verify_time(&stats, &costs) < 0.5 * 200.0 * costs.verify(1));
}

/// With both sources, repetitions are followed as far as without the network, which rests
/// meanwhile.
#[test]
fn what_is_looked_up_competes_with_the_network() {
    let counts = |context: &[TokenId]| {
        let next = context.last().map_or(0, |&last| (last as usize + 1) % 10);
        let logit = move |token| if token == next { 5.0 } else { 0.0 };
        (0..10).map(logit).collect()
    };
    let target = TableModel::from_fn(10, counts);
    let costs = machine(4, 0.1, Some(0.1));
    let seconds = |draft: TableModel, joined: bool| {
        let auto = AutoTree::new(costs.clone());
        let drafter = DynamicTreeDrafter::new(TableDraft::new(draft), auto);
        let mut drafter = if joined {
            drafter.with_lookup()
        } else {
            drafter
        };
        let stats = run(&target, &mut drafter, &Sampler::Greedy).stats;
        let drafted = drafter.model().n_expansions() as f64 * costs.expand(1);
        verify_time(&stats, &costs) + drafted
    };
    let useless = || TableModel::random(10, 1, 7);
    assert!(seconds(useless(), true) < 0.6 * seconds(useless(), false));
    // Lookup does not displace a network that predicts the target perfectly.
    let perfect = || TableModel::from_fn(10, counts);
    assert!(seconds(perfect(), true) <= 1.02 * seconds(perfect(), false));
}

#[test]
fn costs_can_be_measured() {
    let model = TableModel::random(100, 1, 1);
    let prompt = vec![1, 2, 3];
    let target = measure_target_costs(&model, &prompt).unwrap();
    let mut draft = TableDraft::new(TableModel::random(100, 1, 1));
    let draft = measure_draft_costs(&model, &mut draft, &prompt).unwrap();
    let table = CostTable::new(target, Some(draft)).unwrap();
    assert!(table.verify(1) > 0.0 && table.commit() > 0.0 && table.expand(3) > 0.0);
}
