//! The plots of a report.

use std::collections::BTreeMap;

use super::bars::{AVERAGE_GROUP, Bar, BarGroup, BarUnit, GroupedBars};
use super::lines::{Horizontal, Line, LineChart, LineUnit, Point, Stroke, XScale};
use super::shares::{ShareRow, StackedShares};
use super::theme::{Theme, assign};
use crate::record::{Method, TotalToken, TreeSettings};
use crate::series::Series;
use crate::statistics::{Acceptance, Estimate, PhaseShares};
use crate::tables::tasks_in_order;

/// A chart of any kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Chart {
    /// Bars in groups.
    Bars(GroupedBars),
    /// Lines over a numeric axis.
    Lines(LineChart),
    /// Stacked bars.
    Shares(StackedShares),
}

/// A chart with a file name.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// File name without extension.
    pub name: String,
    /// The chart.
    pub chart: Chart,
}

impl Figure {
    /// Draws the figure.
    #[must_use]
    pub fn to_svg(&self, theme: Theme) -> String {
        match &self.chart {
            Chart::Bars(chart) => chart.to_svg(theme),
            Chart::Lines(chart) => chart.to_svg(theme),
            Chart::Shares(chart) => chart.to_svg(theme),
        }
    }
}

/// The tree of the reference implementation, which represents a method that was run with several
/// trees.
const USUAL_TREE: TreeSettings = TreeSettings {
    depth: 3,
    top_k: 8,
    total_token: TotalToken::Nodes(30),
};

/// Number of learned queries of the published drafts, used in the same way.
const USUAL_NUM_Q: u32 = 2;

/// Returns all plots. For each target and temperature: speed-ups, accepted tokens, acceptance by
/// depth and time shares. For each target: acceptance by image tokens, and speed-up by tree size.
pub(crate) fn all(series: &[Series]) -> Vec<Figure> {
    let mut figures = Vec::new();
    for ((target, temperature), series) in groups(series, |series| {
        let temperature = series.key.temperature();
        (
            series.key.target_name().to_owned(),
            format!("{temperature}"),
        )
    }) {
        let shown = representatives(&series);
        let what = format!("{target}, temperature {temperature}");
        let name = |kind: &str| format!("{kind}-{}-t{temperature}", file_name(&target));
        let add = |kind: &str, chart| Figure {
            name: name(kind),
            chart,
        };
        figures.extend([
            add("speed-up", Chart::Bars(speed_ups(&shown, &what))),
            add("accepted", Chart::Bars(accepted(&shown, &what))),
            add("depth", Chart::Lines(depths(&shown, &what))),
            add("time", Chart::Shares(time_shares(&shown, &what))),
        ]);
    }
    for (target, series) in groups(series, |series| series.key.target_name().to_owned()) {
        let charts = [
            ("image-tokens", image_tokens(&series, &target)),
            ("total-token", total_tokens(&series, &target)),
        ];
        for (kind, chart) in charts {
            if chart.lines.iter().any(|line| line.points.len() > 1) {
                let name = format!("{kind}-{}", file_name(&target));
                let chart = Chart::Lines(chart);
                figures.push(Figure { name, chart });
            }
        }
    }
    figures
}

fn groups<K: Ord>(series: &[Series], key: impl Fn(&Series) -> K) -> BTreeMap<K, Vec<&Series>> {
    let mut groups: BTreeMap<K, Vec<&Series>> = BTreeMap::new();
    for series in series {
        groups.entry(key(series)).or_default().push(series);
    }
    groups
}

fn file_name(text: &str) -> String {
    let safe = |letter: char| {
        if letter.is_ascii_alphanumeric() || "-._".contains(letter) {
            letter
        } else {
            '-'
        }
    };
    text.chars().map(safe).collect()
}

/// Returns one series per method: the one with the usual tree and queries, or else the one with the
/// most records.
fn representatives<'a>(series: &[&'a Series]) -> Vec<&'a Series> {
    Method::ALL
        .into_iter()
        .filter_map(|method| {
            series
                .iter()
                .filter(|series| series.key.method == method)
                .max_by_key(|series| {
                    let usual = series.key.tree == Some(USUAL_TREE);
                    let usual_queries = series.key.num_q == Some(USUAL_NUM_Q);
                    (usual, usual_queries, series.pooled.records())
                })
                .copied()
        })
        .collect()
}

fn with_colors(series: &[&Series]) -> Vec<(String, usize)> {
    let methods: Vec<Method> = series.iter().map(|series| series.key.method).collect();
    let labels = series.iter().map(|series| series.label.clone());
    labels.zip(assign(&methods)).collect()
}

fn interval(estimate: Estimate) -> Option<(f64, f64)> {
    (estimate.low.is_finite() && estimate.high.is_finite()).then_some((estimate.low, estimate.high))
}

fn speed_ups(series: &[&Series], what: &str) -> GroupedBars {
    let mut groups: Vec<BarGroup> = tasks_in_order(series)
        .into_iter()
        .map(|task| BarGroup {
            bars: series
                .iter()
                .map(|series| {
                    let speed_up = series.tasks.get(&task)?.estimates.decode.pooled;
                    speed_up.value.is_finite().then(|| Bar {
                        value: speed_up.value,
                        interval: interval(speed_up),
                    })
                })
                .collect(),
            label: task,
        })
        .collect();
    if groups.len() > 1 {
        let bars = series.iter().map(|series| {
            let value = series.task_mean(|figures| figures.decode.pooled.value);
            value.is_finite().then_some(Bar {
                value,
                interval: None,
            })
        });
        groups.push(BarGroup {
            label: AVERAGE_GROUP.to_owned(),
            bars: bars.collect(),
        });
    }
    GroupedBars {
        title: "Speed-up over plain decoding".to_owned(),
        subtitle: format!("{what}; tokens per second of the cycles, 95% bootstrap intervals"),
        x_label: "task".to_owned(),
        y_label: "speed-up".to_owned(),
        unit: BarUnit::Times,
        series: with_colors(series),
        groups,
    }
}

fn accepted(series: &[&Series], what: &str) -> GroupedBars {
    let longest = series
        .iter()
        .map(|series| series.pooled.accepted_histogram.len())
        .max()
        .unwrap_or(0);
    let groups = (0..longest).map(|length| BarGroup {
        label: length.to_string(),
        bars: series
            .iter()
            .map(|series| {
                let count = *series.pooled.accepted_histogram.get(length)?;
                Some(Bar {
                    value: count as f64 / series.pooled.cycles() as f64,
                    interval: None,
                })
            })
            .collect(),
    });
    GroupedBars {
        title: "Accepted draft tokens".to_owned(),
        subtitle: format!("{what}; share of cycles, bonus token excluded"),
        x_label: "accepted draft tokens in a cycle".to_owned(),
        y_label: "share of cycles".to_owned(),
        unit: BarUnit::Share,
        series: with_colors(series),
        groups: groups.collect(),
    }
}

fn depths(series: &[&Series], what: &str) -> LineChart {
    let lines = series.iter().zip(with_colors(series));
    depth_chart(
        lines.map(|(series, name)| {
            let acceptance = Acceptance::from_histogram(&series.pooled.accepted_histogram);
            (name, acceptance)
        }),
        what,
    )
}

/// Creates the plot of acceptance by depth. Each line has a label, the index of its colour, and its
/// acceptance; `what` says what was measured.
#[must_use]
pub fn depth_chart(
    lines: impl Iterator<Item = ((String, usize), Acceptance)>,
    what: &str,
) -> LineChart {
    let lines = lines.filter_map(|((label, color), acceptance)| {
        let points = acceptance
            .reached
            .iter()
            .enumerate()
            .map(|(idx, &y)| Point {
                x: (idx + 1) as f64,
                y,
                interval: None,
            });
        let points: Vec<Point> = points.collect();
        (!points.is_empty()).then_some(Line {
            label,
            color,
            stroke: Stroke::Full,
            points,
        })
    });
    LineChart {
        title: "Acceptance by depth".to_owned(),
        subtitle: format!("{what}; share of cycles that accept at least this many draft tokens"),
        x_axis: ("depth in the tree".to_owned(), XScale::Levels),
        y_axis: ("share of cycles".to_owned(), LineUnit::Share),
        lines: lines.collect(),
        horizontals: Vec::new(),
    }
}

fn time_shares(series: &[&Series], what: &str) -> StackedShares {
    let mut rows = Vec::new();
    for series in series {
        let tokens = series.pooled.speculative_tokens;
        let times = &series.pooled.speculative_ms;
        rows.push(ShareRow {
            label: series.label.clone(),
            shares: PhaseShares::of(times).values().to_vec(),
            remark: format!("{:.2} ms per token", times.total() / tokens as f64),
        });
    }
    let parts = PhaseShares::NAMES.iter().zip([6, 3, 4, 1, 0, 7]);
    StackedShares {
        title: "Where the time goes".to_owned(),
        subtitle: format!("{what}; share of the time of whole answers, all tasks together"),
        parts: parts
            .map(|(name, color)| ((*name).to_owned(), color))
            .collect(),
        rows,
    }
}

/// Returns the colour of a method, which does not depend on the temperature.
fn color_of(method: Method, among: &[&Series]) -> usize {
    let methods: Vec<Method> = Method::ALL
        .into_iter()
        .filter(|method| among.iter().any(|series| series.key.method == *method))
        .collect();
    let colors = assign(&methods);
    let place = methods.iter().position(|&other| other == method);
    place.map_or(0, |place| colors[place])
}

/// Returns the stroke of a series: full for greedy decoding, hollow for sampling.
fn stroke_of(series: &Series) -> Stroke {
    if series.key.milli_temperature == 0 {
        Stroke::Full
    } else {
        Stroke::Hollow
    }
}

fn label_with_temperature(series: &Series) -> String {
    format!(
        "{}, T={}",
        series.key.method.title(),
        series.key.temperature()
    )
}

/// Plots the representative series of each method, at each temperature.
fn image_tokens(series: &[&Series], target: &str) -> LineChart {
    let mut by_temperature: BTreeMap<u32, Vec<&Series>> = BTreeMap::new();
    for &series in series {
        let temperature = series.key.milli_temperature;
        by_temperature.entry(temperature).or_default().push(series);
    }
    let shown: Vec<&Series> = by_temperature
        .values()
        .flat_map(|series| representatives(series))
        .filter(|series| series.key.method != Method::None)
        .collect();
    let lines = shown.iter().map(|series| Line {
        label: label_with_temperature(series),
        color: color_of(series.key.method, &shown),
        stroke: stroke_of(series),
        points: series
            .pooled
            .image_bins
            .figures()
            .into_iter()
            .map(|bin| Point {
                x: bin.mean_image_tokens,
                y: bin.tau.value,
                interval: interval(bin.tau),
            })
            .collect(),
    });
    LineChart {
        title: "Acceptance by number of image tokens".to_owned(),
        subtitle: format!("{target}; prompts in bins that double, 95% bootstrap intervals"),
        x_axis: ("image tokens of the prompt".to_owned(), XScale::Sizes),
        y_axis: ("tau (bonus token excluded)".to_owned(), LineUnit::Number),
        lines: lines.collect(),
        horizontals: Vec::new(),
    }
}

/// Plots one line per method, temperature, depth and width. Trees that are sized during decoding
/// are horizontal lines.
fn total_tokens(series: &[&Series], target: &str) -> LineChart {
    let mut lines: BTreeMap<_, (Vec<&Series>, Vec<&Series>)> = BTreeMap::new();
    for &series in series {
        let Some(tree) = series.key.tree else {
            continue;
        };
        let key = (series.key.method, series.key.milli_temperature);
        let (fixed, auto) = lines.entry(key).or_default();
        match tree.total_token {
            TotalToken::Nodes(_) => fixed.push(series),
            TotalToken::Auto => auto.push(series),
        }
    }
    let mut chart = LineChart {
        title: "Speed-up by size of the tree".to_owned(),
        subtitle: format!("{target}; mean over tasks, the best series of each size"),
        x_axis: (
            "nodes that the target verifies (total-token)".to_owned(),
            XScale::Sizes,
        ),
        y_axis: ("speed-up".to_owned(), LineUnit::Times),
        lines: Vec::new(),
        horizontals: Vec::new(),
    };
    let speed_up = |series: &Series| series.task_mean(|figures| figures.decode.pooled.value);
    for ((method, _), (fixed, auto)) in lines {
        let color = color_of(method, series);
        let mut best: BTreeMap<u32, f64> = BTreeMap::new();
        for series in &fixed {
            if let Some(TotalToken::Nodes(nodes)) = series.key.tree.map(|t| t.total_token) {
                let value = best.entry(nodes).or_insert(f64::NEG_INFINITY);
                *value = value.max(speed_up(series));
            }
        }
        if let Some(first) = fixed.first() {
            let points = best.into_iter().map(|(nodes, y)| Point {
                x: f64::from(nodes),
                y,
                interval: None,
            });
            chart.lines.push(Line {
                label: label_with_temperature(first),
                color,
                stroke: stroke_of(first),
                points: points.collect(),
            });
        }
        if let Some(first) = auto.first() {
            chart.horizontals.push(Horizontal {
                label: format!("{}, auto", label_with_temperature(first)),
                color,
                stroke: stroke_of(first),
                y: auto.iter().map(|s| speed_up(s)).fold(0.0, f64::max),
            });
        }
    }
    chart
}
