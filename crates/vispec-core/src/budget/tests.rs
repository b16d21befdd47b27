//! Decisions about verifying and drafting on synthetic machines.

use super::*;

fn costs(verify: &[(usize, f64)], draft: Option<(f64, f64)>) -> Arc<CostTable> {
    let cost = |&(rows, seconds): &(usize, f64)| Cost { rows, seconds };
    let draft = draft.map(|(commit, expand)| DraftCosts {
        read: 0.01,
        commit,
        expand: vec![Cost {
            rows: 8,
            seconds: expand,
        }],
    });
    let target = TargetCosts {
        prefill: 0.1,
        verify: verify.iter().map(cost).collect(),
        context: ContextCost::default(),
    };
    Arc::new(CostTable::new(target, draft).unwrap())
}

fn planned(extra: f64, expected: f64) -> Planned {
    Planned { extra, expected }
}

/// Accounts without a limit on losses.
fn bold(costs: Arc<CostTable>) -> Budget {
    Budget::new(costs, 1e6, 1)
}

#[test]
fn free_nodes_are_taken_and_dear_ones_only_if_likely() {
    let budget = bold(costs(&[(1, 1.0), (4, 1.0), (8, 3.0)], None));
    assert_eq!(budget.worth_verifying(&[0.1; 3]), 3);
    // The fifth node costs half a pass.
    assert_eq!(budget.worth_verifying(&[0.4; 7]), 3);
    assert_eq!(budget.worth_verifying(&[0.9; 7]), 7);
    assert_eq!(budget.worth_verifying(&[]), 0);
}

#[test]
fn a_level_must_yield_more_than_it_costs() {
    let budget = bold(costs(&[(1, 1.0), (64, 1.0)], Some((0.1, 0.3))));
    assert_eq!(budget.worth_expanding(1, [0.2].into_iter()), 0);
    assert_eq!(budget.worth_expanding(1, [0.2, 0.2].into_iter()), 2);
    assert_eq!(budget.worth_expanding(1, [0.5, 0.0].into_iter()), 1);
}

#[test]
fn the_faster_the_run_the_dearer_is_time() {
    let mut budget = bold(costs(&[(1, 1.0), (2, 1.5)], None));
    assert_eq!(budget.worth_verifying(&[0.6]), 1);
    for _ in 0..100 {
        budget.plan(0.5, planned(0.5, 0.9));
        budget.settle(3, 3);
    }
    assert_eq!(budget.worth_verifying(&[0.6]), 0);
}

#[test]
fn drafting_that_never_pays_is_paused_for_longer_and_longer() {
    let mut budget = bold(costs(&[(1, 1.0), (2, 1.1)], Some((0.4, 0.2))));
    let mut drafted = 0;
    for _ in 0..1_000 {
        if budget.may_draft(8).is_ok() {
            drafted += 1;
            budget.pay_commit();
            budget.plan(0.1, planned(0.1, 0.1));
        }
        budget.settle(0, 0);
    }
    assert!((10..40).contains(&drafted), "{drafted}");
}

#[test]
fn drafting_that_pays_goes_on() {
    let mut budget = bold(costs(&[(1, 1.0), (2, 1.1)], Some((0.2, 0.2))));
    for _ in 0..1_000 {
        assert!(budget.may_draft(8).is_ok());
        budget.pay_commit();
        budget.plan(0.1, planned(0.1, 0.8));
        budget.settle(1, 1);
    }
}

#[test]
fn a_draft_that_costs_as_much_as_the_target_cannot_pay() {
    let budget = |commit| bold(costs(&[(1, 1.0), (8, 2.0)], Some((commit, commit))));
    assert!(budget(0.2).could_pay(4));
    assert!(!budget(1.0).could_pay(4));
    assert!(bold(costs(&[(1, 1.0), (8, 2.0)], None)).could_pay(4));
    assert!(!bold(costs(&[(1, 1.0), (8, 8.0)], None)).could_pay(4));
}

#[test]
fn what_can_be_lost_is_saved_up_first() {
    let table = costs(&[(1, 1.0), (2, 1.1)], Some((0.4, 0.2)));
    let mut budget = Budget::new(table.clone(), 0.0125, 10);
    budget.leave_unread(10);
    // The prefill takes 1, and it and each of the first 32 tokens add 0.0125 to the allowance.
    // Reading takes 0.1 and grows with each cycle.
    let mut cycles = 0;
    while budget.may_draft(8) == Err(Idle::TooRisky) {
        budget.leave_unread(1);
        budget.settle(0, 0);
        cycles += 1;
    }
    // Cycle n has added n - 32 more shares, and its certain token adds another one.
    let enough = |n: f64| 0.0125 * (33.0 + n + 1.0 - 32.0) >= 0.1 + 0.01 * n + 0.4 + 0.1;
    assert!(enough(f64::from(cycles)) && !enough(f64::from(cycles - 1)));
    // A loss uses up the allowance; a gain can be risked immediately.
    budget.pay_commit();
    assert_eq!(budget.worth_verifying(&[0.9]), 1);
    assert_eq!(budget.worth_expanding(1, [0.9].into_iter()), 0);
    budget.plan(0.1, planned(0.1, 0.9));
    let mut lucky = budget.clone();
    budget.settle(0, 0);
    assert!(budget.may_draft(8).is_err());
    lucky.settle(1, 1);
    assert_eq!(lucky.may_draft(8), Ok(()));
}

#[test]
fn a_prompt_that_took_long_earns_the_right_to_try() {
    let table = || costs(&[(1, 1.0), (2, 1.1)], Some((0.2, 0.2)));
    let new = |table: Arc<CostTable>, to_read: usize| {
        let mut budget = Budget::new(table, 0.01, 10);
        budget.leave_unread(to_read);
        budget
    };
    assert_eq!(new(table(), 10).may_draft(8), Err(Idle::TooRisky));
    let dear = |prefill: f64| {
        let target = TargetCosts {
            prefill,
            ..table().target_costs().clone()
        };
        Arc::new(CostTable::new(target, table().draft_costs().cloned()).unwrap())
    };
    assert_eq!(new(dear(2.0), 10).may_draft(8), Ok(()));
    // A draft that compresses most of the prompt needs a smaller allowance.
    assert_eq!(new(dear(0.6), 10).may_draft(8), Err(Idle::TooRisky));
    assert_eq!(new(dear(0.6), 2).may_draft(8), Ok(()));
}

/// Returns the accounts of one of `sequences` sequences that decode together.
fn loaded(costs: Arc<CostTable>, sequences: usize) -> Budget {
    let mut budget = bold(costs);
    budget.note_load(PassLoad {
        sequences,
        rows: sequences - 1,
        reading: 0,
    });
    budget
}

#[test]
fn trees_shrink_to_their_roots_as_the_pass_fills() {
    // Up to four rows are free, as on a machine that is bound by memory bandwidth.
    let table = costs(&[(1, 1.0), (4, 1.0), (16, 4.0)], Some((0.05, 0.05)));
    let chances = [0.9, 0.7, 0.5, 0.3, 0.2];
    let nodes = |sequences| loaded(table.clone(), sequences).worth_verifying(&chances);
    assert_eq!([1, 2, 4, 8].map(nodes), [4, 2, 0, 0]);
    let may_draft = |sequences| loaded(table.clone(), sequences).may_draft(8);
    assert_eq!(may_draft(1), Ok(()));
    assert_eq!(may_draft(8), Err(Idle::NotWorthwhile));
}

#[test]
fn candidates_of_all_sequences_compete() {
    let table = costs(&[(1, 1.0), (2, 1.0), (5, 1.0), (6, 9.0)], None);
    let (sure, doubtful) = (loaded(table.clone(), 2), loaded(table, 2));
    let bid = |chances: [&[f64]; 2]| {
        let bidders = [(&sure, chances[0]), (&doubtful, chances[1])];
        let bidders = bidders.map(|(budget, chances)| Bidder { budget, chances });
        let shares = share_nodes(&bidders);
        [shares[0].nodes, shares[1].nodes]
    };
    // Three nodes are free.
    assert_eq!(bid([&[0.9, 0.8, 0.7], &[0.6, 0.5]]), [3, 0]);
    assert_eq!(bid([&[0.9, 0.5, 0.4], &[0.6, 0.1]]), [2, 1]);
    assert_eq!(bid([&[], &[0.1]]), [0, 1]);
    assert!(share_nodes(&[]).is_empty());
}

#[test]
fn nobody_is_charged_more_than_it_has() {
    let table = costs(&[(1, 1.0), (64, 64.0)], None);
    let poor = {
        let mut budget = Budget::new(table.clone(), 0.0, 1);
        budget.note_load(PassLoad {
            sequences: 2,
            rows: 1,
            reading: 0,
        });
        budget
    };
    let rich = loaded(costs(&[(1, 1.0), (2, 2.0), (64, 10.0)], None), 2);
    let bidders = [&rich, &poor].map(|budget| Bidder {
        budget,
        chances: &[1.0, 1.0],
    });
    let shares = share_nodes(&bidders);
    assert_eq!((shares[0].nodes, shares[1].nodes), (2, 0));
    assert!((shares[0].extra - 2.0 * 8.0 / 62.0).abs() < 1e-9);
}

#[test]
fn time_is_dearer_while_somebody_waits_for_a_first_token() {
    let mut budget = bold(costs(&[(1, 1.0), (2, 1.4)], None));
    assert_eq!(budget.worth_verifying(&[0.6]), 1);
    budget.note_load(PassLoad {
        reading: 1,
        ..PassLoad::ALONE
    });
    assert_eq!(budget.worth_verifying(&[0.6]), 0);
    assert_eq!(budget.worth_verifying(&[0.9]), 1);
}
