//! The tables of a report.

use super::paper_form::{Speed, paper_form};
use super::{Table, percent, row_start, two};
use crate::series::{Series, TaskResult};
use crate::statistics::{Acceptance, Estimate, Estimates, Measurements, PhaseShares, quantile};

/// Returns all tables of measured figures.
pub(crate) fn all(series: &[Series]) -> Vec<Table> {
    vec![
        paper_form(series, Speed::Cycles),
        paper_form(series, Speed::EndToEnd),
        speeds(series),
        settings(series),
        latencies(series),
        phases(series),
        histogram(series),
        depths(series),
        image_tokens(series),
        exactness(series),
    ]
}

fn with_interval(estimate: Estimate) -> String {
    format!(
        "{} [{}, {}]",
        two(estimate.value),
        two(estimate.low),
        two(estimate.high)
    )
}

/// Builds a table with a row per series and task.
fn by_task(
    mut table: Table,
    series: &[Series],
    cells: impl Fn(&TaskResult) -> Vec<String>,
) -> Table {
    table.text_columns = 4;
    for series in series {
        for (task, result) in &series.tasks {
            let mut row = row_start(series);
            row.push(task.clone());
            row.extend(cells(result));
            table.rows.push(row);
        }
    }
    table
}

fn speeds(series: &[Series]) -> Table {
    let table = Table::new(
        "speeds",
        "Speeds and their intervals",
        "Tokens per second (tok/s) of the cycles in both arms, and speed-ups with 95 % intervals \
         of a paired bootstrap over prompts. End to end includes preprocessing, vision tower and \
         prefill.",
        &[
            "target",
            "T",
            "method",
            "task",
            "prompts",
            "tau",
            "tau, mean of prompts",
            "tokens per cycle",
            "plain tok/s",
            "tok/s",
            "end-to-end tok/s",
            "speed-up",
            "speed-up, mean of prompts",
            "end-to-end speed-up",
            "end-to-end, mean of prompts",
            "end-to-end, ratio of mean speeds",
        ],
    );
    by_task(table, series, |result| {
        let figures = &result.estimates;
        vec![
            figures.records.to_string(),
            with_interval(figures.tau),
            with_interval(figures.tau_sample_mean),
            two(figures.tau.value + 1.0),
            two(figures.plain_tokens_per_second.value),
            two(figures.speculative_tokens_per_second.value),
            two(figures.end_to_end_tokens_per_second.value),
            with_interval(figures.decode.pooled),
            with_interval(figures.decode.sample_mean),
            with_interval(figures.end_to_end.pooled),
            with_interval(figures.end_to_end.sample_mean),
            with_interval(figures.ratio_of_mean_speeds),
        ]
    })
}

fn settings(series: &[Series]) -> Table {
    let mut table = Table::new(
        "settings",
        "Settings",
        "Means over tasks with equal weights. Trees are depth/top-k/total-token; nodes per cycle \
         include the root.",
        &[
            "target",
            "T",
            "method",
            "draft",
            "num_q",
            "tree",
            "draft vocabulary",
            "dtype",
            "device",
            "tau",
            "tokens per cycle",
            "nodes per cycle",
            "plain tok/s",
            "tok/s",
            "speed-up",
            "end-to-end speed-up",
        ],
    );
    table.text_columns = 9;
    for series in series {
        let mean = |figure: fn(&Estimates) -> f64| series.task_mean(figure);
        let key = &series.key;
        let tau = mean(|figures| figures.tau.value);
        let mut row = row_start(series);
        row.extend([
            key.draft.clone().unwrap_or_else(|| "-".to_owned()),
            key.num_q.map_or_else(|| "-".to_owned(), |n| n.to_string()),
            key.tree.map_or_else(|| "-".to_owned(), |t| t.to_string()),
            key.draft_vocab.clone().unwrap_or_else(|| "all".to_owned()),
            key.dtype.clone(),
            key.device.clone(),
            two(tau),
            two(tau + 1.0),
            two(series.pooled.mean_nodes().unwrap_or(f64::NAN)),
            two(mean(|figures| figures.plain_tokens_per_second.value)),
            two(mean(|figures| figures.speculative_tokens_per_second.value)),
            two(mean(|figures| figures.decode.pooled.value)),
            two(mean(|figures| figures.end_to_end.pooled.value)),
        ]);
        table.rows.push(row);
    }
    table
}

fn latencies(series: &[Series]) -> Table {
    let table = Table::new(
        "latencies",
        "Time of whole answers",
        "Milliseconds from preprocessing to the last token: median, 90 % and 99 % quantile over \
         prompts, plain and speculative.",
        &[
            "target",
            "T",
            "method",
            "task",
            "plain p50",
            "plain p90",
            "plain p99",
            "p50",
            "p90",
            "p99",
        ],
    );
    by_task(table, series, |result| {
        let plain = result.measurements.plain_total_ms.sorted();
        let speculative = result.measurements.speculative_total_ms.sorted();
        [plain, speculative]
            .iter()
            .flat_map(|sorted| [0.5, 0.9, 0.99].map(|q| quantile(sorted, q)))
            .map(|value| value.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}")))
            .collect()
    })
}

fn phases(series: &[Series]) -> Table {
    let mut columns = vec!["target", "T", "method", "arm"];
    columns.extend(PhaseShares::NAMES);
    let mut table = Table::new(
        "phases",
        "Where the time goes",
        "Share of the summed time of whole answers, all tasks together.",
        &columns,
    );
    table.text_columns = 4;
    for series in series {
        let arms = [
            ("plain", &series.pooled.plain_ms),
            ("speculative", &series.pooled.speculative_ms),
        ];
        for (arm, times) in arms {
            let mut row = row_start(series);
            row.push(arm.to_owned());
            row.extend(PhaseShares::of(times).values().map(percent));
            table.rows.push(row);
        }
    }
    table
}

/// Builds a table with a row per series and a column per accepted length.
fn by_length(
    name: &str,
    titles: (&str, &str),
    series: &[Series],
    (first, cells): (usize, impl Fn(&Measurements) -> Vec<String>),
) -> Table {
    let rows: Vec<Vec<String>> = series.iter().map(|s| cells(&s.pooled)).collect();
    let longest = rows.iter().map(Vec::len).max().unwrap_or(0);
    let numbers: Vec<String> = (first..first + longest).map(|n| n.to_string()).collect();
    let mut columns = vec!["target", "T", "method"];
    columns.extend(numbers.iter().map(String::as_str));
    let mut table = Table::new(name, titles.0, titles.1, &columns);
    for (series, mut cells) in series.iter().zip(rows) {
        cells.resize(longest, "-".to_owned());
        let mut row = row_start(series);
        row.extend(cells);
        table.rows.push(row);
    }
    table
}

fn histogram(series: &[Series]) -> Table {
    let note = "Share of cycles by number of accepted draft tokens, all tasks together.";
    let cells = |measured: &Measurements| {
        let cycles = measured.cycles() as f64;
        let share = |&count: &u64| percent(count as f64 / cycles);
        measured.accepted_histogram.iter().map(share).collect()
    };
    by_length("histogram", ("Accepted tokens", note), series, (0, cells))
}

fn depths(series: &[Series]) -> Table {
    let cells = |measured: &Measurements| {
        depth_cells(&Acceptance::from_histogram(&measured.accepted_histogram))
    };
    by_length(
        "depths",
        ("Acceptance by depth", DEPTHS_NOTE),
        series,
        (1, cells),
    )
}

/// What the cells of [`depth_cells`] mean.
pub const DEPTHS_NOTE: &str = "Share of cycles that accept at least this many draft tokens, and \
                               in brackets the share among cycles that accept at least one fewer.";

/// Returns the cells of a row of acceptance by depth, from depth 1 on.
#[must_use]
pub fn depth_cells(acceptance: &Acceptance) -> Vec<String> {
    let pairs = acceptance.reached.iter().zip(&acceptance.conditional);
    pairs
        .map(|(&reached, &conditional)| format!("{} ({})", percent(reached), percent(conditional)))
        .collect()
}

fn image_tokens(series: &[Series]) -> Table {
    let mut table = Table::new(
        "image-tokens",
        "Acceptance by number of image tokens",
        "tau with its 95 % interval, all tasks together, by number of image tokens in the prompt.",
        &[
            "target",
            "T",
            "method",
            "image tokens",
            "prompts",
            "tau",
            "tokens per cycle",
        ],
    );
    table.text_columns = 4;
    for series in series {
        for bin in series.pooled.image_bins.figures() {
            let mut row = row_start(series);
            row.extend([
                format!("{} to {}", bin.from, bin.to),
                bin.records.to_string(),
                with_interval(bin.tau),
                two(bin.tau.value + 1.0),
            ]);
            table.rows.push(row);
        }
    }
    table
}

fn exactness(series: &[Series]) -> Table {
    let table = Table::new(
        "exactness",
        "Exactness",
        "Share of prompts whose speculative answer has the tokens of the plain one; for the \
         others, the position of the first difference and the gap between the plain logits there. \
         A gap near the rounding error of the element type is a tie.",
        &[
            "target",
            "T",
            "method",
            "task",
            "prompts",
            "exact",
            "divergent",
            "earliest place",
            "median place",
            "largest logit gap",
        ],
    );
    by_task(table, series, |result| {
        let measured = &result.measurements;
        let divergences = &measured.divergences;
        let places = divergences.places.sorted();
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        vec![
            measured.records().to_string(),
            percent(measured.exact_share().unwrap_or(f64::NAN)),
            divergences.count().to_string(),
            or_dash(divergences.earliest.map(|place| place.to_string())),
            or_dash(quantile(&places, 0.5).map(|place| place.to_string())),
            or_dash(divergences.largest_gap.map(|gap| format!("{gap:.2e}"))),
        ]
    })
}
