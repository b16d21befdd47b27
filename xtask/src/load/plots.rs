//! Plots of tokens per second and time to the first token against the number of clients.

use std::fs;
use std::path::Path;

use anyhow::Result;
use vispec_report::plots::{Line, LineChart, LineUnit, Point, Stroke, Theme, XScale, to_png};

use super::summary::Summary;

/// Writes both plots as SVG and PNG.
pub(super) fn write(out: &Path, name: &str, summaries: &[Summary]) -> Result<()> {
    let chart = |title: &str, unit: &str, value: &dyn Fn(&Summary) -> f64| LineChart {
        title: title.to_owned(),
        subtitle: "the same questions for each number of clients".to_owned(),
        x_axis: ("clients".to_owned(), XScale::Sizes),
        y_axis: (unit.to_owned(), LineUnit::Number),
        lines: vec![Line {
            label: name.to_owned(),
            color: 0,
            stroke: Stroke::Full,
            points: summaries
                .iter()
                .map(|summary| Point {
                    x: summary.clients as f64,
                    y: value(summary),
                    interval: None,
                })
                .collect(),
        }],
        horizontals: Vec::new(),
    };
    let tokens = chart("Tokens per second of all clients", "tokens/s", &|summary| {
        summary.tokens_per_second
    });
    let first = chart("Time to the first token, median", "ms", &|summary| {
        1e3 * summary.first_token[0]
    });
    for (file, chart) in [("tokens-per-second", tokens), ("first-token", first)] {
        let svg = chart.to_svg(Theme::File);
        fs::write(out.join(format!("{file}.png")), to_png(file, &svg)?)?;
        fs::write(out.join(format!("{file}.svg")), svg)?;
    }
    Ok(())
}
