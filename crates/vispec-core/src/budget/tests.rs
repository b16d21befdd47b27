//! Budgets of nodes for made-up costs.

use super::*;

fn costs(verify: &[(usize, f64)], draft: Option<(f64, f64)>) -> Arc<CostTable> {
    let cost = |&(rows, seconds): &(usize, f64)| Cost { rows, seconds };
    let draft = draft.map(|(commit, expand)| DraftCosts {
        commit,
        expand: vec![Cost {
            rows: 8,
            seconds: expand,
        }],
    });
    Arc::new(CostTable::new(verify.iter().map(cost).collect(), draft).unwrap())
}

#[test]
fn free_nodes_are_taken_and_dear_ones_only_if_likely() {
    let budget = Budget::new(costs(&[(1, 1.0), (4, 1.0), (8, 3.0)], None));
    assert_eq!(budget.worth_verifying([0.1; 3].into_iter()), 3);
    // The fifth node costs half a pass.
    assert_eq!(budget.worth_verifying([0.4; 7].into_iter()), 3);
    assert_eq!(budget.worth_verifying([0.9; 7].into_iter()), 7);
    assert_eq!(budget.worth_verifying(std::iter::empty()), 0);
}

#[test]
fn a_level_must_yield_more_than_it_costs() {
    let budget = Budget::new(costs(&[(1, 1.0), (64, 1.0)], Some((0.1, 0.3))));
    assert_eq!(budget.worth_expanding(1, [0.2].into_iter()), 0);
    assert_eq!(budget.worth_expanding(1, [0.2, 0.2].into_iter()), 2);
    assert_eq!(budget.worth_expanding(1, [0.5, 0.0].into_iter()), 1);
}

#[test]
fn the_faster_the_run_the_dearer_is_time() {
    let mut budget = Budget::new(costs(&[(1, 1.0), (2, 1.5)], None));
    assert_eq!(budget.worth_verifying([0.6].into_iter()), 1);
    for _ in 0..100 {
        budget.plan(2, 0.9);
        budget.settle(3);
    }
    assert_eq!(budget.worth_verifying([0.6].into_iter()), 0);
}

#[test]
fn drafting_that_never_pays_is_paused_for_longer_and_longer() {
    let mut budget = Budget::new(costs(&[(1, 1.0), (2, 1.1)], Some((0.4, 0.2))));
    let mut drafted = 0;
    for _ in 0..1_000 {
        if budget.may_draft() {
            drafted += 1;
            budget.pay_commit();
            budget.plan(2, 0.1);
        }
        budget.settle(0);
    }
    assert!((10..40).contains(&drafted), "{drafted}");
}

#[test]
fn drafting_that_pays_goes_on() {
    let mut budget = Budget::new(costs(&[(1, 1.0), (2, 1.1)], Some((0.2, 0.2))));
    for _ in 0..1_000 {
        assert!(budget.may_draft());
        budget.pay_commit();
        budget.plan(2, 0.8);
        budget.settle(1);
    }
}
