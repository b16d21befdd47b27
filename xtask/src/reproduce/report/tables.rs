//! The tables of the page.

use anyhow::{Context, Result};
use vispec_report::statistics::{Estimate, tau_difference};
use vispec_report::tables::Table;

use super::results::Results;
use super::{Report, table};
use crate::reproduce::experiment::{Experiment, TargetPlan};
use crate::steps::Done;

/// Name of the main table; plots follow it.
pub(super) const ACCEPTANCE: &str = "acceptance";

fn with_interval(estimate: Estimate) -> String {
    let Estimate { value, low, high } = estimate;
    format!("{value:.2} [{low:.2}, {high:.2}]")
}

/// Creates the table of accepted tokens.
pub(super) fn acceptance(results: &Results<'_>) -> Table {
    let mut table = table(
        (
            ACCEPTANCE,
            "Accepted tokens",
            "tau is the number of accepted draft tokens per cycle, the bonus token excluded, over \
             all cycles and trainings; tokens per cycle is tau + 1. In brackets: 95 % intervals, \
             bootstrap over prompts, each with all its trainings. Identical: share of answers \
             that are the plain ones, token for token.",
        ),
        &[
            "task",
            "tree",
            "T",
            "draft",
            "tau",
            "tokens per cycle",
            "tau of each training",
            "identical",
        ],
        4,
    );
    for condition in &results.conditions {
        for outcome in &condition.outcomes {
            let tau = outcome.estimates.tau;
            let by_seed = outcome.tau_by_seed.iter();
            let by_seed: Vec<String> = by_seed.map(|tau| format!("{tau:.2}")).collect();
            table.rows.push(vec![
                condition.title(),
                condition.tree.to_string(),
                condition.temperature.to_string(),
                outcome.draft.to_owned(),
                with_interval(tau),
                format!("{:.2}", tau.value + 1.0),
                by_seed.join(" / "),
                format!("{:.0} %", outcome.exact_share * 100.0),
            ]);
        }
    }
    table
}

/// Creates the table of comparisons between drafts.
pub(super) fn differences(results: &Results<'_>, experiment: &Experiment) -> Result<Table> {
    let mut table = table(
        (
            "differences",
            "Differences of tau",
            "The first draft's tau less the second's, on the same prompts, with the 95 % interval \
             of a bootstrap that draws all records of a prompt together. An interval without 0 \
             is a difference that is not chance of the prompts. The chance of training is not in \
             it; the last column has the difference of each pair of trainings.",
        ),
        &[
            "question",
            "draft",
            "against",
            "task",
            "tree",
            "T",
            "difference",
            "of each training",
        ],
        6,
    );
    for comparison in &experiment.comparisons {
        for condition in &results.conditions {
            let (first, second) = (&comparison.draft, &comparison.against);
            let pair = condition.outcome(first).zip(condition.outcome(second));
            let difference = pair.and_then(|(a, b)| {
                let seeds = a.tau_by_seed.iter().zip(&b.tau_by_seed);
                let by_seed: Vec<String> = seeds.map(|(a, b)| format!("{:+.2}", a - b)).collect();
                Some((tau_difference(&a.samples, &b.samples)?, by_seed.join(" / ")))
            });
            let (difference, by_seed) = difference.with_context(|| {
                let task = &condition.task;
                format!("{first} and {second} did not answer the same prompts of {task}")
            })?;
            table.rows.push(vec![
                comparison.question.clone(),
                comparison.draft.clone(),
                comparison.against.clone(),
                condition.title(),
                condition.tree.to_string(),
                condition.temperature.to_string(),
                with_interval(difference),
                by_seed,
            ]);
        }
    }
    Ok(table)
}

/// Creates the table of decoding speeds.
pub(super) fn speeds(results: &Results<'_>, target: &TargetPlan) -> Table {
    let size = match target {
        TargetPlan::Seeing(_) => "",
        TargetPlan::Carried(_) | TargetPlan::Made(_) => {
            " The target is so small that a pass over a tree costs many times a pass over one token, \
             and a draft as much as the target; so this table shows what drafting costs here, and \
             not what it gains with a model of useful size."
        }
    };
    let note = format!(
        "Tokens per second of the cycles, all prompts together, and their ratio with its 95 % \
         interval.{size}"
    );
    let mut table = table(
        ("speed", "Speed", &note),
        &[
            "task",
            "tree",
            "T",
            "draft",
            "plain tokens/s",
            "speculative tokens/s",
            "speed-up",
        ],
        4,
    );
    for condition in &results.conditions {
        for outcome in &condition.outcomes {
            let estimates = &outcome.estimates;
            table.rows.push(vec![
                condition.title(),
                condition.tree.to_string(),
                condition.temperature.to_string(),
                outcome.draft.to_owned(),
                format!("{:.0}", estimates.plain_tokens_per_second.value),
                format!("{:.0}", estimates.speculative_tokens_per_second.value),
                with_interval(estimates.decode.pooled),
            ]);
        }
    }
    table
}

/// Creates the table of drafts and their trainings.
pub(super) fn drafts(report: &Report<'_>) -> Table {
    let mut table = table(
        (
            "drafts",
            "Drafts",
            "Steps are samples, since batches hold one. Drafts with the same first preset share \
             their first stage.",
        ),
        &[
            "draft",
            "method",
            "first stage",
            "second stage",
            "settings",
            "steps of both",
        ],
        5,
    );
    let scale = report.scale;
    let name = |path: &std::path::Path| {
        let stem = path.file_stem().unwrap_or_default();
        stem.to_string_lossy().into_owned()
    };
    for draft in &report.experiment.drafts {
        let (first, steps) = match &draft.text_preset {
            Some(preset) => (
                name(preset),
                scale.texts * scale.text_epochs + scale.scenes * scale.image_epochs,
            ),
            None => ("-".to_owned(), scale.scenes * scale.image_only_epochs),
        };
        table.rows.push(vec![
            draft.name.clone(),
            draft.method.title().to_owned(),
            first,
            name(&draft.image_preset),
            draft.image_settings.join(", "),
            // Held-out samples do not count as steps.
            format!("at most {steps}"),
        ]);
    }
    table
}

/// Creates the table of the duration of the steps.
pub(super) fn steps(steps: &[Done]) -> Table {
    let mut table = table(
        (
            "steps",
            "Times of the steps",
            "Of steps that were interrupted and gone on with, only the time of the last part is \
             known.",
        ),
        &["step", "in one go", "seconds"],
        2,
    );
    for step in steps {
        table.rows.push(vec![
            step.name.clone(),
            if step.marker.resumed { "no" } else { "yes" }.to_owned(),
            format!("{:.1}", step.seconds),
        ]);
    }
    table
}
