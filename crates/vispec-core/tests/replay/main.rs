//! Replays the acceptance of several drafts on several machines, to show the gains and losses of
//! cost-sized trees with the default settings and with others.
//!
//! All times come from a cost table, so that results are the same everywhere. With `--nocapture`
//! the tests print the numbers that docs/speed.md compares.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    unreachable_pub,
    reason = "a test may panic, its output is for readers, and nothing is used from outside"
)]

mod answers;
mod machines;
mod replayed;

use std::sync::Arc;

use vispec_core::AutoTree;

use crate::answers::{Answer, recorded, synthetic, useless};
use crate::machines::{Machine, machines};
use crate::replayed::replay;

/// Allowances to compare; the default is among them.
const MAX_LOSSES: [f64; 7] = [0.0, 0.01, 0.025, 0.05, 0.1, 0.2, 1.0];
/// Minimum speed of every answer, relative to plain decoding.
const SLOWEST: f64 = 0.95;
/// Length from which the minimum also holds for decoding without prefill. (In a shorter answer, the
/// allowance from the prefill of a long prompt may be noticeable.)
const LONG: usize = 128;

/// Speed-ups of some answers over plain decoding.
#[derive(Clone, Debug, Default)]
struct Outcome {
    /// Speed-up of each answer, without prefill.
    decoding: Vec<f64>,
    /// Smallest speed-up of long answers, without prefill.
    least: f64,
    /// Smallest speed-up of all answers, prefill included.
    least_whole: f64,
}

fn outcome(machine: &Machine, answers: &[Answer], max_loss: f64) -> Outcome {
    let limits = AutoTree {
        max_loss,
        ..AutoTree::new(Arc::clone(&machine.costs))
    };
    let mut outcome = Outcome {
        decoding: Vec::new(),
        least: f64::INFINITY,
        least_whole: f64::INFINITY,
    };
    for answer in answers {
        let replayed = replay(answer, &limits);
        outcome.decoding.push(replayed.speedup());
        if answer.guesses.len() >= LONG {
            outcome.least = outcome.least.min(replayed.speedup());
        }
        outcome.least_whole = outcome.least_whole.min(replayed.whole_speedup());
    }
    outcome
}

fn geometric_mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let logs = Vec::from_iter(values.into_iter().map(f64::ln));
    (logs.iter().sum::<f64>() / logs.len() as f64).exp()
}

/// Speed-up over all groups and machines with equal weights, and the smallest one.
#[derive(Clone, Debug)]
struct Total {
    means: Vec<f64>,
    least: f64,
}

#[test]
fn the_default_allowance_is_the_best_that_keeps_its_promise() {
    let mut groups = recorded();
    groups.extend(synthetic());
    let mut totals = MAX_LOSSES.map(|_| Total {
        means: Vec::new(),
        least: f64::INFINITY,
    });
    for machine in machines() {
        println!("\n{}: speed-up (least of long answers)", machine.name);
        print!("{:>22}", "max_loss");
        for max_loss in MAX_LOSSES {
            print!("{max_loss:>14}");
        }
        println!();
        let useless = [("useless", useless())];
        for (name, answers) in groups.iter().chain(&useless) {
            print!("{name:>22}");
            for (max_loss, total) in MAX_LOSSES.into_iter().zip(&mut totals) {
                let outcome = outcome(&machine, answers, max_loss);
                let mean = geometric_mean(outcome.decoding);
                match outcome.least {
                    least if least.is_finite() => print!("   {mean:.2} ({least:.2})"),
                    _ => print!("     {mean:.2} (-)"),
                }
                total.least = total.least.min(outcome.least).min(outcome.least_whole);
                if *name != "useless" {
                    total.means.push(mean);
                }
            }
            println!();
        }
    }
    println!();
    let kept = MAX_LOSSES
        .into_iter()
        .zip(totals)
        .filter_map(|(max_loss, total)| {
            let mean = geometric_mean(total.means);
            println!("{max_loss:>22}   {mean:.3} (least {:.3})", total.least);
            (total.least >= SLOWEST).then_some((max_loss, mean))
        });
    let kept = Vec::from_iter(kept);
    let best = kept.iter().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    assert!(
        (best.0 - AutoTree::DEFAULT_MAX_LOSS).abs() < 1e-12,
        "{kept:?}"
    );
}

#[test]
fn a_useless_draft_costs_next_to_nothing() {
    for machine in machines() {
        let outcome = outcome(&machine, &useless(), AutoTree::DEFAULT_MAX_LOSS);
        let Outcome {
            least, least_whole, ..
        } = outcome;
        assert!(least >= SLOWEST, "{}: {least}", machine.name);
        assert!(least_whole >= SLOWEST, "{}: {least_whole}", machine.name);
    }
}

#[test]
fn a_good_draft_pays_where_rows_are_cheap() {
    let machines = machines();
    let small = machines
        .iter()
        .find(|machine| machine.name.contains("8192"))
        .unwrap();
    let mean = |character: &str| {
        let mut groups = synthetic().into_iter();
        let (_, answers) = groups.find(|(name, _)| *name == character).unwrap();
        geometric_mean(outcome(small, &answers, AutoTree::DEFAULT_MAX_LOSS).decoding)
    };
    let [strong, middling, weak] = ["strong", "middling", "weak"].map(mean);
    assert!(strong > 1.8, "{strong}");
    assert!(strong > middling && middling > weak && weak > 1.1);
}
