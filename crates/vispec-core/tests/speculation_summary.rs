//! The one-line summary of speculation.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use serde_json::json;
use vispec_core::{
    ContextCost, Cost, CostTable, GenerationStats, Idle, SpeculationSummary, TargetCosts,
    plain_time,
};

/// One row takes 1 s, four rows take 1.5 s.
fn table() -> CostTable {
    let cost = |rows, seconds| Cost { rows, seconds };
    let target = TargetCosts {
        prefill: 0.1,
        verify: vec![cost(1, 1.0), cost(4, 1.5)],
        context: ContextCost::default(),
    };
    CostTable::new(target, None).unwrap()
}

/// Times of a synthetic generation, in seconds.
#[derive(Clone, Copy, Default)]
struct Times {
    draft: f64,
    verify: f64,
    /// The part of `verify` in passes over only the root.
    root: f64,
    other: f64,
}

fn stats(cycles: &[(u32, u32)], idle: &[(Idle, u64)], times: Times) -> GenerationStats {
    let duration = |seconds| Duration::from_secs_f64(seconds);
    let mut idle_cycles = [0; Idle::ALL.len()];
    for &(reason, count) in idle {
        idle_cycles[reason as usize] = count;
    }
    let column = |get: fn(&(u32, u32)) -> u32| Vec::from_iter(cycles.iter().map(get));
    serde_json::from_value(json!({
        "prompt_tokens": 10,
        "new_tokens": 1,
        "accepted_per_cycle": column(|cycle| cycle.0),
        "nodes_per_cycle": column(|cycle| cycle.1),
        "idle_cycles": idle_cycles,
        "prefill_time": duration(1.0),
        "draft_time": duration(times.draft),
        "verify_time": duration(times.verify),
        "root_time": duration(times.root),
        "decode_time": duration(times.draft + times.verify + times.other),
    }))
    .unwrap()
}

fn summary(stats: &GenerationStats) -> SpeculationSummary {
    SpeculationSummary::new(stats, Some(&table())).unwrap()
}

#[test]
fn what_it_gained_is_told_whatever_the_pace_of_the_machine() {
    for pace in [1.0, 0.5, 3.0] {
        // Ten cycles of four nodes and two accepted tokens, with a draft of 0.25 s.
        let times = Times {
            draft: 2.5 * pace,
            verify: 15.0 * pace,
            other: 0.5 * pace,
            root: 0.0,
        };
        let summary = summary(&stats(&[(2, 4); 10], &[], times));
        // 30 tokens of 1.05 s each, in 18 s.
        assert!((summary.gain.unwrap() - 31.5 / 18.0).abs() < 1e-9);
        assert_eq!(
            summary.to_string(),
            "speculation: about 1.75x plain decoding, tau 2.00, trees of 4 nodes"
        );
    }
}

#[test]
fn passes_over_the_root_alone_say_what_one_takes() {
    // By the table, a pass of four rows takes 1.5 times as long; here it took twice as long.
    let mut cycles = vec![(0, 1); 20];
    cycles.extend([(1, 4); 20]);
    let times = Times {
        verify: 20.0 + 40.0,
        root: 20.0,
        ..Times::default()
    };
    let idle = [(Idle::Paused, 20)];
    let many = stats(&cycles, &idle, times);
    // 60 tokens of one second, in 60 s: nothing was gained.
    assert_eq!(
        plain_time(&many, Some(&table())),
        Some(Duration::from_secs(60))
    );
    assert_eq!(plain_time(&many, None), Some(Duration::from_secs(60)));
    // With few such passes the table decides, and without a table the time is unknown.
    let few = stats(
        &cycles[15..],
        &[(Idle::Paused, 5)],
        Times {
            verify: 45.0,
            root: 5.0,
            ..Times::default()
        },
    );
    let expected = 45.0 * 45.0 / 35.0;
    let found = plain_time(&few, Some(&table())).unwrap().as_secs_f64();
    assert!((found - expected).abs() < 1e-6, "{found} {expected}");
    assert_eq!(plain_time(&few, None), None);
}

#[test]
fn plain_decoding_gains_nothing() {
    for cycles in [3, 100] {
        let times = Times {
            verify: 1.5 * f64::from(cycles),
            root: 1.5 * f64::from(cycles),
            other: 1.0,
            draft: 0.0,
        };
        let cycles = vec![(0, 1); cycles as usize];
        let idle = [(Idle::TooRisky, cycles.len() as u64)];
        let gain = summary(&stats(&cycles, &idle, times)).gain.unwrap();
        assert!((gain - 1.0).abs() < 1e-9, "{gain}");
    }
}

#[test]
fn the_reason_is_told_where_most_cycles_had_no_draft() {
    let line = |reason: Idle| {
        let mut cycles = vec![(0, 1); 18];
        cycles.push((1, 3));
        let times = Times {
            verify: 19.0,
            root: 18.0,
            draft: 1.0,
            other: 0.0,
        };
        let idle = [(reason, 17), (Idle::LastToken, 1)];
        let summary = summary(&stats(&cycles, &idle, times));
        assert_eq!(summary.off, Some(reason));
        summary.to_string()
    };
    assert_eq!(
        line(Idle::Paused),
        "speculation paused: the draft is rarely right here, plain decoding is faster; about \
         1.00x plain decoding, tau 0.05, trees of 3 nodes"
    );
    assert!(line(Idle::TooRisky).starts_with("speculation held back: "));
    assert!(line(Idle::NotWorthwhile).starts_with("speculation off: no guess"));
    assert!(line(Idle::NothingProposed).starts_with("speculation off: there was nothing"));
    // The last token, which has no draft by design, is not a reason.
    let one = [(1, 3), (0, 1)];
    let times = Times {
        verify: 2.5,
        root: 1.0,
        ..Times::default()
    };
    let summary = summary(&stats(&one, &[(Idle::LastToken, 1)], times));
    assert_eq!(summary.off, None);
}

#[test]
fn trees_are_told_without_the_odd_one() {
    let mut cycles = vec![(1, 2); 10];
    cycles.extend([(1, 5); 30]);
    cycles.push((3, 40));
    let times = Times {
        verify: 60.0,
        ..Times::default()
    };
    assert_eq!(summary(&stats(&cycles, &[], times)).nodes, Some((2, 5)));
    assert_eq!(
        SpeculationSummary::new(&GenerationStats::default(), Some(&table())),
        None
    );
}
