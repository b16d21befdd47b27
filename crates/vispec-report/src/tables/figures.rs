//! All figures as plain numbers, for other programs.

use super::Table;
use crate::record::TotalToken;
use crate::series::Series;
use crate::statistics::{Estimate, Estimates};

const SETTINGS: [&str; 13] = [
    "target",
    "temperature",
    "method",
    "draft",
    "num_q",
    "depth",
    "top_k",
    "total_token",
    "draft_vocab",
    "dtype",
    "device",
    "max_new_tokens",
    "task",
];

type Find = fn(&Estimates) -> Estimate;

/// Names of the figures that have an interval, and their accessors.
const FIGURES: [(&str, Find); 10] = [
    ("tau", |figures| figures.tau),
    ("tau_prompt_mean", |figures| figures.tau_sample_mean),
    ("plain_tok_s", |figures| figures.plain_tokens_per_second),
    ("tok_s", |figures| figures.speculative_tokens_per_second),
    ("end_to_end_tok_s", |figures| {
        figures.end_to_end_tokens_per_second
    }),
    ("speed_up", |figures| figures.decode.pooled),
    ("speed_up_prompt_mean", |figures| figures.decode.sample_mean),
    ("end_to_end_speed_up", |figures| figures.end_to_end.pooled),
    ("end_to_end_speed_up_prompt_mean", |figures| {
        figures.end_to_end.sample_mean
    }),
    ("ratio_of_mean_speeds", |figures| {
        figures.ratio_of_mean_speeds
    }),
];

/// Builds a table with a row per series and task: settings, then each figure with both ends of its
/// interval. Fields that do not apply are empty.
pub(crate) fn figures(series: &[Series]) -> Table {
    let mut columns: Vec<String> = SETTINGS.map(str::to_owned).to_vec();
    columns.extend(["prompts", "divergent"].map(str::to_owned));
    for (name, _) in FIGURES {
        columns.extend([
            name.to_owned(),
            format!("{name}_low"),
            format!("{name}_high"),
        ]);
    }
    let rows = series.iter().flat_map(|series| {
        series.tasks.iter().map(|(task, result)| {
            let mut row = settings(series);
            row.push(task.clone());
            row.push(result.estimates.records.to_string());
            row.push(result.measurements.divergences.count().to_string());
            for (_, figure) in FIGURES {
                let Estimate { value, low, high } = figure(&result.estimates);
                row.extend([value, low, high].map(number));
            }
            row
        })
    });
    Table {
        name: "figures".to_owned(),
        title: "All figures".to_owned(),
        note: String::new(),
        rows: rows.collect(),
        columns,
        text_columns: SETTINGS.len(),
    }
}

fn settings(series: &Series) -> Vec<String> {
    let key = &series.key;
    let or_empty = |value: Option<u32>| value.map_or_else(String::new, |n| n.to_string());
    let total_token = key.tree.map(|tree| tree.total_token);
    vec![
        key.target.clone(),
        key.temperature().to_string(),
        key.method.to_string(),
        key.draft.clone().unwrap_or_default(),
        or_empty(key.num_q),
        or_empty(key.tree.map(|tree| tree.depth)),
        or_empty(key.tree.map(|tree| tree.top_k)),
        total_token.map_or_else(String::new, |total: TotalToken| total.to_string()),
        key.draft_vocab.clone().unwrap_or_else(|| "all".to_owned()),
        key.dtype.clone(),
        key.device.clone(),
        key.max_new_tokens.to_string(),
    ]
}

fn number(value: f64) -> String {
    if value.is_finite() {
        value.to_string()
    } else {
        String::new()
    }
}
