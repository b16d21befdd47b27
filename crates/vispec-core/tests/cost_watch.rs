//! Wrong cost tables are detected and corrected; noise does not trigger a correction.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use vispec_core::testing::TableModel;
use vispec_core::{
    ContextCost, Cost, CostDrift, CostTable, CostWatch, DraftCosts, GenerationConfig,
    GenerationObserver, MatchPicks, PromptLookupDrafter, TargetCosts, TimedPass, TokenTree,
    Verdict, WatchedPasses, generate,
};

const CONTEXT: usize = 256;

/// Passes of at least 10 ms; each token of the context adds 10 µs.
fn table() -> CostTable {
    let cost = |rows, seconds| Cost { rows, seconds };
    let target = TargetCosts {
        prefill: 0.002,
        verify: vec![cost(1, 0.010), cost(4, 0.012), cost(16, 0.030)],
        context: ContextCost {
            tokens: CONTEXT,
            per_token: 1e-5,
        },
    };
    let draft = DraftCosts {
        read: 0.0001,
        commit: 0.001,
        expand: vec![cost(8, 0.001)],
    };
    CostTable::new(target, Some(draft)).unwrap()
}

/// A deterministic stream of numbers in [0, 1).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) as f64 / f64::from(1_u32 << 31)
    }

    /// Returns a noise factor: always small, and large with the probability `rarely`.
    fn factor(&mut self, rarely: f64) -> f64 {
        let small = 0.95 + 0.3 * self.next();
        if self.next() < rarely {
            3.0 * small
        } else {
            small
        }
    }
}

/// A machine on which a pass takes `truth` times the time of the initial table.
struct Machine {
    watch: CostWatch,
    said: CostTable,
    noise: Noise,
    clock: Duration,
    passes: usize,
}

impl Machine {
    fn new(seed: u64) -> Self {
        Self {
            watch: CostWatch::new(Arc::new(table())),
            said: table(),
            noise: Noise(seed),
            clock: Duration::ZERO,
            passes: 0,
        }
    }

    fn pass(&mut self, truth: f64, context: usize, rarely: f64) -> Option<CostDrift> {
        self.passes += 1;
        let rows = [1, 4, 5, 1, 3][self.passes % 5];
        let seconds = self.said.verify_at(rows, context) * truth * self.noise.factor(rarely);
        let time = Duration::from_secs_f64(seconds);
        self.clock += time;
        self.watch.note(TimedPass {
            rows,
            context,
            time,
        })
    }

    /// Runs passes until the table is corrected.
    fn until_corrected(&mut self, truth: f64) -> CostDrift {
        (0..100_000)
            .find_map(|_| self.pass(truth, CONTEXT, 0.2))
            .expect("it is noticed")
    }
}

#[test]
fn a_table_from_a_busy_machine_is_corrected_soon_and_once() {
    let mut machine = Machine::new(1);
    let drift = machine.until_corrected(0.5);
    assert!(machine.passes <= 96, "{}", machine.passes);
    assert!((0.45..0.65).contains(&drift.factor), "{drift}");
    assert!(drift.to_string().contains("busy"));
    let corrected = machine.watch.costs().clone();
    for rows in [1, 4, 16] {
        let share = corrected.verify(rows) / machine.said.verify(rows);
        assert!((0.45..0.65).contains(&share), "{rows}: {share}");
    }
    // The draft ran on the same machine, so its times are scaled as well.
    let share = corrected.commit() / machine.said.commit();
    assert!((share - drift.factor).abs() < 1e-9);
    for _ in 0..20_000 {
        assert_eq!(machine.pass(0.5, CONTEXT, 0.2), None);
    }
}

#[test]
fn a_machine_that_got_slower_is_believed_after_long() {
    let mut machine = Machine::new(2);
    let drift = machine.until_corrected(2.0);
    assert!(
        machine.clock >= Duration::from_secs(30),
        "{:?}",
        machine.clock
    );
    assert!(machine.passes >= 256, "{}", machine.passes);
    assert!((1.9..2.6).contains(&drift.factor), "{drift}");
    assert!(!drift.to_string().contains("busy"));
    for _ in 0..20_000 {
        assert_eq!(machine.pass(2.0, CONTEXT, 0.2), None);
    }
    // The return to the old speed is no noise either.
    let back = machine.until_corrected(1.0);
    assert!((0.4..0.6).contains(&back.factor), "{back}");
}

#[test]
fn proportions_are_corrected_where_they_were_seen() {
    let mut watch = CostWatch::new(Arc::new(table()));
    // Larger passes were measured during a burst: the root takes 0.7 of its table time, and four
    // rows take half of theirs.
    let corrected = (0..200).any(|pass| {
        let (rows, share) = if pass % 2 == 0 { (1, 0.7) } else { (4, 0.5) };
        let seconds = share * watch.costs().verify(rows);
        let time = Duration::from_secs_f64(seconds);
        let context = CONTEXT;
        let pass = TimedPass {
            rows,
            context,
            time,
        };
        watch.note(pass).is_some()
    });
    assert!(corrected);
    let close = |found: f64, expected: f64| assert!((found / expected - 1.0).abs() < 0.01);
    close(watch.costs().verify(1), 0.007);
    // Never less than the time of a smaller pass.
    close(watch.costs().verify(4), 0.007);
}

#[test]
fn short_work_of_others_is_no_drift() {
    let mut machine = Machine::new(3);
    for round in 0..60 {
        // Bursts of up to 25 seconds.
        for _ in 0..500 {
            let truth = if round % 2 == 0 { 1.0 } else { 2.5 };
            assert_eq!(machine.pass(truth, CONTEXT, 0.2), None, "round {round}");
        }
    }
}

#[test]
fn a_long_context_is_no_drift() {
    let mut machine = Machine::new(4);
    for context in (0..60_000).step_by(2) {
        assert_eq!(machine.pass(1.0, context, 0.2), None, "{context}");
    }
    // Contexts far beyond the measured one do not count as slow passes.
    let mut machine = Machine::new(5);
    for _ in 0..30_000 {
        assert_eq!(machine.pass(3.0, 20_000, 0.2), None);
    }
}

#[test]
fn a_machine_that_never_keeps_still_is_followed_less_and_less() {
    let mut machine = Machine::new(6);
    let mut corrections = 0;
    let mut truth = 0.4;
    for _ in 0..200_000 {
        if machine.pass(truth, CONTEXT, 0.2).is_some() {
            corrections += 1;
            truth = if truth < 1.0 { 2.5 } else { 0.4 };
        }
    }
    assert!((2..=16).contains(&corrections), "{corrections}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn noise_is_no_drift(seed: u64, rarely in 0.0..0.35_f64, truth in 0.85..1.25_f64) {
        let mut machine = Machine::new(seed);
        for pass in 0..5_000 {
            prop_assert_eq!(machine.pass(truth, CONTEXT + pass % 500, rarely), None);
        }
        prop_assert_eq!(&**machine.watch.costs(), &table());
    }

    /// The table stays valid whatever times are measured.
    #[test]
    fn any_times_give_a_table(
        times in proptest::collection::vec((1..100_usize, 0..5_000_usize, 0..u64::MAX), 1..600),
    ) {
        let mut watch = CostWatch::new(Arc::new(table()));
        for (rows, context, nanos) in times {
            let time = Duration::from_nanos(nanos >> (nanos % 60));
            watch.note(TimedPass { rows, context, time });
            let again = CostTable::new(
                watch.costs().target_costs().clone(),
                watch.costs().draft_costs().cloned(),
            );
            prop_assert_eq!(again.as_ref(), Ok(&**watch.costs()));
        }
    }
}

/// Counts the events.
#[derive(Default)]
struct Counter {
    prefills: usize,
    drafts: usize,
    verified: usize,
    tokens: usize,
    ends: usize,
}

impl GenerationObserver for Counter {
    fn on_prefill(&mut self, _: usize, _: Duration) {
        self.prefills += 1;
    }

    fn on_draft(&mut self, _: &TokenTree, _: Duration) {
        self.drafts += 1;
    }

    fn on_verify(&mut self, _: &TokenTree, _: &Verdict, _: Duration) {
        self.verified += 1;
    }

    fn on_tokens(&mut self, tokens: &[u32]) -> std::ops::ControlFlow<()> {
        self.tokens += tokens.len();
        std::ops::ControlFlow::Continue(())
    }

    fn on_finish(&mut self, _: vispec_core::FinishReason, _: &vispec_core::GenerationStats) {
        self.ends += 1;
    }
}

#[test]
fn a_generation_is_watched_without_a_change() {
    let model = TableModel::random(64, 3, 1);
    let config = GenerationConfig {
        max_new_tokens: 300,
        stop_tokens: vec![],
    };
    let run = |observer: &mut dyn GenerationObserver| {
        let drafter = PromptLookupDrafter::default();
        let rule = MatchPicks::greedy();
        generate(
            &model,
            drafter,
            rule,
            &vec![1, 2, 3],
            config.clone(),
            observer,
        )
        .unwrap()
    };
    let (mut alone, mut inner) = (Counter::default(), Counter::default());
    let expected = run(&mut alone);
    // The toy's passes take microseconds, so the times of the table are far too long.
    let mut watch = CostWatch::new(Arc::new(table()));
    let mut watched = WatchedPasses::new(&mut inner, Some(&mut watch));
    let found = run(&mut watched);
    let drift = watched.drift();
    assert_eq!(found.tokens, expected.tokens);
    let counts = |counter: &Counter| {
        let Counter {
            prefills,
            drafts,
            verified,
            tokens,
            ends,
        } = counter;
        [*prefills, *drafts, *verified, *tokens, *ends]
    };
    assert_eq!(counts(&inner), counts(&alone));
    assert_eq!(inner.tokens, 300);
    assert!(drift.is_some_and(|drift| drift.factor < 0.5), "{drift:?}");
    assert!(watch.costs().verify(1) < 0.005);
}
