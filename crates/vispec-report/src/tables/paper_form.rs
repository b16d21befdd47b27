//! Tables in the format of the paper's main table.

use std::collections::BTreeSet;

use super::{Table, row_start, two};
use crate::paper::{self, PaperFigure};
use crate::series::Series;
use crate::statistics::{Estimate, Estimates};

/// The speed-up shown beside tau.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speed {
    /// Speed-up of the cycles, pooled over prompts.
    Cycles,
    /// Speed-up of whole answers, computed as in the paper.
    EndToEnd,
}

impl Speed {
    fn of(self, estimates: &Estimates) -> Estimate {
        match self {
            Self::Cycles => estimates.decode.pooled,
            Self::EndToEnd => estimates.ratio_of_mean_speeds,
        }
    }

    fn texts(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Cycles => (
                "main",
                "Acceptance and speed-up by task",
                "Each cell is tau / speed-up: accepted draft tokens per cycle (bonus token excluded), \
                 and tokens per second of the cycles over those of plain decoding, both pooled over \
                 prompts. The average weights all tasks equally. Rows marked (paper) are the \
                 authors' figures, measured on other hardware and end to end.",
            ),
            Self::EndToEnd => (
                "end-to-end",
                "Acceptance and speed-up of whole answers by task",
                "As above, but with the speed-up of whole answers computed as in the paper: the mean \
                 of the prompts' tokens per second, including preprocessing, vision tower and prefill, \
                 over that of plain decoding. Rows marked (paper) are the authors' figures, \
                 measured on other hardware.",
            ),
        }
    }
}

/// Returns the names of all tasks: the paper's tasks in the paper's order, then the others by name.
pub(crate) fn tasks_in_order(series: &[&Series]) -> Vec<String> {
    let mut tasks: BTreeSet<&str> = series
        .iter()
        .flat_map(|series| series.tasks.keys().map(String::as_str))
        .collect();
    let of_paper = paper::tasks().filter(|task| tasks.remove(task));
    let mut ordered: Vec<&str> = of_paper.collect();
    ordered.extend(tasks);
    ordered.into_iter().map(str::to_owned).collect()
}

/// Builds a table with a row per series and a column per task. The paper's row follows the series
/// that it covers.
pub(super) fn paper_form(series: &[Series], speed: Speed) -> Table {
    let tasks = tasks_in_order(&series.iter().collect::<Vec<_>>());
    let mut columns = vec!["target", "T", "method"];
    columns.extend(tasks.iter().map(String::as_str));
    columns.extend(["average", "average tokens per cycle"]);
    let (name, title, note) = speed.texts();
    let mut table = Table::new(name, title, note, &columns);
    for (idx, series_here) in series.iter().enumerate() {
        let mut row = row_start(series_here);
        row.extend(tasks.iter().map(|task| {
            series_here.tasks.get(task).map_or_else(
                || "-".to_owned(),
                |result| {
                    let estimates = &result.estimates;
                    tau_and_speed(estimates.tau.value, speed.of(estimates).value)
                },
            )
        }));
        let tau = series_here.task_mean(|estimates| estimates.tau.value);
        let speed_up = series_here.task_mean(|estimates| speed.of(estimates).value);
        row.extend([tau_and_speed(tau, speed_up), two(tau + 1.0)]);
        table.rows.push(row);
        // The paper's row follows the last of the series that it covers.
        let is_like = |other: &Series| {
            let (own, other) = (&series_here.key, &other.key);
            (&own.target, own.milli_temperature, own.method)
                == (&other.target, other.milli_temperature, other.method)
        };
        if !series.get(idx + 1).is_some_and(is_like) {
            table.rows.extend(paper_row(series_here, &tasks));
        }
    }
    table
}

fn tau_and_speed(tau: f64, speed_up: f64) -> String {
    format!("{} / {}", two(tau), two(speed_up))
}

fn paper_row(series: &Series, tasks: &[String]) -> Option<Vec<String>> {
    let target = paper::target_of(series.key.target_name())?;
    let figures: Vec<PaperFigure> = paper::figures()
        .filter(|figure| {
            figure.target == target
                && figure.method == series.key.method
                && (figure.temperature - series.key.temperature()).abs() < 1e-9
        })
        .collect();
    let find = |task: &str| figures.iter().find(|figure| figure.task == task);
    let average = find(paper::AVERAGE)?;
    let cell = |figure: &PaperFigure| tau_and_speed(figure.tau, figure.speed_up);
    let mut row = row_start(series);
    row[2] = format!("{} (paper)", series.key.method.title());
    row.extend(
        tasks
            .iter()
            .map(|task| find(task).map_or_else(|| "-".to_owned(), cell)),
    );
    row.extend([cell(average), two(average.tau + 1.0)]);
    Some(row)
}

/// Builds a copy of the paper's main table.
pub(crate) fn paper_reference() -> Table {
    let figures: Vec<PaperFigure> = paper::figures().collect();
    let tasks: Vec<&str> = paper::tasks().chain([paper::AVERAGE]).collect();
    let mut columns = vec!["target", "T", "method"];
    columns.extend(&tasks);
    columns.push("average tokens per cycle");
    let mut table = Table::new(
        "paper",
        "The paper's figures, for reference",
        "tau / speed-up from the README of KangJialiang/ViSpec at d0240c8: GPU, end to end. Not \
         measured here.",
        &columns,
    );
    for row in figures.chunks(tasks.len()) {
        let Some((first, last)) = row.first().zip(row.last()) else {
            continue;
        };
        let mut cells = vec![
            first.target.to_owned(),
            first.temperature.to_string(),
            first.method.title().to_owned(),
        ];
        cells.extend(row.iter().map(|f| tau_and_speed(f.tau, f.speed_up)));
        cells.push(two(last.tau + 1.0));
        table.rows.push(cells);
    }
    table
}
