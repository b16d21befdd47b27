//! The tables of the page.

use anyhow::{Context, Result};
use vispec_report::statistics::{Estimate, tau_difference};
use vispec_report::tables::{DEPTHS_NOTE, Table, depth_cells};

use super::results::Results;
use super::{Report, table};
use crate::reproduce::experiment::{Experiment, TargetPlan};
use crate::steps::Done;

/// Name of the main table; most plots follow it.
pub(super) const ACCEPTANCE: &str = "acceptance";
/// Name of the table of acceptance by depth; its plots follow it.
pub(super) const DEPTHS: &str = "depths";

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
            "tau is the number of accepted draft tokens per cycle without the bonus token, over \
             all cycles and trainings; tokens per cycle is tau + 1. In brackets: 95 % intervals \
             of a bootstrap over prompts, each with all its trainings. Identical: share of \
             answers with exactly the tokens of plain decoding.",
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

/// Creates the table of acceptance by depth, for trees of a fixed size.
pub(super) fn depths(results: &Results<'_>) -> Table {
    let fixed = || {
        let conditions = results.conditions.iter();
        conditions.filter(|condition| condition.has_fixed_trees())
    };
    let outcomes = fixed().flat_map(|condition| &condition.outcomes);
    let deepest = outcomes.map(|outcome| outcome.acceptance.reached.len());
    let deepest = deepest.max().unwrap_or(0);
    let levels: Vec<String> = (1..=deepest).map(|level| level.to_string()).collect();
    let mut columns = vec!["task", "tree", "T", "draft"];
    columns.extend(levels.iter().map(String::as_str));
    let note = format!("{DEPTHS_NOTE} Trees of a fixed size only.");
    let mut table = table((DEPTHS, "Acceptance by depth", &note), &columns, 4);
    for condition in fixed() {
        for outcome in &condition.outcomes {
            let mut row = vec![
                condition.title(),
                condition.tree.to_string(),
                condition.temperature.to_string(),
                outcome.draft.to_owned(),
            ];
            row.extend(depth_cells(&outcome.acceptance));
            row.resize(columns.len(), "-".to_owned());
            table.rows.push(row);
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
            "The first draft's tau minus the second's, on the same prompts, with the 95 % interval \
             of a bootstrap that draws all records of a prompt together. If the interval excludes \
             0, the choice of prompts does not explain the difference. Variation between \
             trainings is not included; the last column has the difference for each pair of \
             trainings.",
        ),
        &[
            "question",
            "draft",
            "against",
            "task",
            "tree",
            "T",
            "difference",
            "by training",
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
             and a draft costs as much as the target. So this table shows the cost of drafting \
             here, not its gain with a model of useful size."
        }
    };
    let note = format!(
        "Tokens per second of the cycles, pooled over all prompts, and their ratio with its 95 % \
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
            "Steps are counted in samples: a batch contains one. Drafts with the same first preset \
             share their first stage.",
        ),
        &[
            "draft",
            "method",
            "first stage",
            "second stage",
            "settings",
            "steps of both stages",
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
            "Duration of the steps",
            "For steps that were interrupted and resumed, only the time of the last run is known.",
        ),
        &["step", "uninterrupted", "seconds"],
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
