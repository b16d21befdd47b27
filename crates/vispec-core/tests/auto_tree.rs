//! Trees sized by cost: the tokens are those of plain decoding, and modelled time never exceeds it
//! by much.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;

use proptest::prelude::*;
use vispec_core::testing::{TableDraft, TableModel};
use vispec_core::{
    AutoTree, Cost, CostTable, DraftCosts, Drafter, DynamicTreeDrafter, Generation,
    GenerationConfig, GenerationStats, Idle, MatchPicks, PositionUniforms, PromptLookupDrafter,
    Sampler, generate, measure_draft_costs, measure_verify_costs,
};

/// A machine on which `free` rows cost as much as one, and each further one `slope` more.
fn machine(free: usize, slope: f64, draft: Option<f64>) -> Arc<CostTable> {
    let at = |rows: usize| Cost {
        rows,
        seconds: 1.0 + slope * rows.saturating_sub(free) as f64,
    };
    let draft = draft.map(|seconds| DraftCosts {
        commit: seconds,
        expand: vec![Cost { rows: 8, seconds }],
    });
    let mut rows = vec![1, free.max(2), 64];
    rows.dedup();
    Arc::new(CostTable::new(rows.into_iter().map(at).collect(), draft).unwrap())
}

fn run(model: &TableModel, drafter: impl Drafter<TableModel>, sampler: &Sampler) -> Generation {
    let config = GenerationConfig {
        max_new_tokens: 200,
        stop_tokens: vec![],
    };
    let rule = MatchPicks::new(*sampler, PositionUniforms::new(3));
    generate(model, drafter, rule, &vec![0, 1, 0, 1, 1], config, &mut ()).unwrap()
}

/// Seconds of all verify passes on such a machine, and of the draft at its cheapest.
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
    ) {
        let model = TableModel::random(vocab, order, seed);
        let sampler = if greedy { Sampler::Greedy } else { Sampler::new(1.0, None, None).unwrap() };
        let expected = model.decode_plainly(&[0, 1, 0, 1, 1], 200, &sampler, PositionUniforms::new(3));

        let auto = AutoTree::new(machine(free, slope, Some(draft)));
        let law = TableModel::random(vocab, order, seed + other);
        let neural = run(&model, DynamicTreeDrafter::new(TableDraft::new(law), auto), &sampler);
        prop_assert_eq!(&neural.tokens, &expected);

        let costs = machine(free, slope, None);
        let lookup = run(&model, PromptLookupDrafter::auto(AutoTree::new(costs.clone())), &sampler);
        prop_assert_eq!(&lookup.tokens, &expected);
        // Guesses are priced: at worst a few bad ones before the rates are known.
        let plain = 200.0 * costs.verify(1);
        let share = verify_time(&lookup.stats, &costs) / plain;
        prop_assert!(share <= 1.03, "{}", share);
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
    let auto = AutoTree::new(machine(1, 0.3, Some(0.3)));
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

#[test]
fn costs_can_be_measured() {
    let model = TableModel::random(100, 1, 1);
    let prompt = vec![1, 2, 3];
    let verify = measure_verify_costs(&model, &prompt).unwrap();
    let mut draft = TableDraft::new(TableModel::random(100, 1, 1));
    let draft = measure_draft_costs(&model, &mut draft, &prompt).unwrap();
    let table = CostTable::new(verify, Some(draft)).unwrap();
    assert!(table.verify(1) > 0.0 && table.commit() > 0.0 && table.expand(3) > 0.0);
}
