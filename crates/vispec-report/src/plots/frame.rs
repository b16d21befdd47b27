//! Elements common to all charts: title, legend, space for the axes.

use super::axis::{Axis, tick_label};
use super::canvas::{Anchor, Canvas, Strength, TextStyle, text_width};
use super::theme::{Role, Theme};

pub(super) const WIDTH: f64 = 860.0;
const MARGIN: f64 = 24.0;
const LEFT: f64 = 78.0;
/// Horizontal position of the label of the vertical axis, left of the numbers.
const AXIS_LABEL: f64 = 22.0;
const PLOT_HEIGHT: f64 = 300.0;
const LEGEND_SIZE: f64 = 12.5;
const LEGEND_ROW: f64 = 22.0;

/// How a series is shown in the legend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    Square,
    Line,
    HollowLine,
    Dashes,
    Dots,
}

/// An entry of the legend.
#[derive(Debug, Clone)]
pub(super) struct LegendEntry {
    pub(super) label: String,
    pub(super) color: usize,
    pub(super) mark: Mark,
}

impl LegendEntry {
    /// Returns a filled square for each label and colour.
    pub(super) fn squares(labels: &[(String, usize)]) -> Vec<Self> {
        let square = |(label, color): &(String, usize)| Self {
            label: label.clone(),
            color: *color,
            mark: Mark::Square,
        };
        labels.iter().map(square).collect()
    }
}

/// Title and subtitle of a chart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Texts<'a> {
    pub(super) title: &'a str,
    pub(super) subtitle: &'a str,
}

/// The rectangle left for the values of a chart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Area {
    pub(super) left: f64,
    pub(super) right: f64,
    pub(super) top: f64,
    pub(super) bottom: f64,
}

/// Draws title, subtitle and legend, and returns the remaining area. `below` is the space under the
/// area.
pub(super) fn begin(
    theme: Theme,
    texts: Texts<'_>,
    legend: &[LegendEntry],
    (left, plot_height, below): (f64, f64, f64),
) -> (Canvas, Area) {
    let rows = legend_rows(legend);
    let n_rows = rows.last().map_or(0, |&(_, row)| row + 1);
    let top = 72.0 + n_rows as f64 * LEGEND_ROW + 24.0;
    let mut canvas = Canvas::new(theme, WIDTH, top + plot_height + below);
    let title = TextStyle {
        size: 18.0,
        role: Role::Ink,
        anchor: Anchor::Start,
        strong: Strength::Strong,
    };
    canvas.text((MARGIN, 36.0), texts.title, title);
    let subtitle = TextStyle {
        size: 13.0,
        ..TextStyle::label(Anchor::Start)
    };
    canvas.text((MARGIN, 57.0), texts.subtitle, subtitle);
    for (entry, (x, row)) in legend.iter().zip(rows) {
        let y = 82.0 + row as f64 * LEGEND_ROW;
        draw_entry(&mut canvas, entry, (x, y));
    }
    let area = Area {
        left,
        right: WIDTH - MARGIN,
        top,
        bottom: top + plot_height,
    };
    (canvas, area)
}

/// Same as [`begin`], with the usual space for two axes.
pub(super) fn begin_with_axes(
    theme: Theme,
    texts: Texts<'_>,
    legend: &[LegendEntry],
) -> (Canvas, Area) {
    begin(theme, texts, legend, (LEFT, PLOT_HEIGHT, 58.0))
}

/// Returns the horizontal position and the row of each entry.
fn legend_rows(legend: &[LegendEntry]) -> Vec<(f64, usize)> {
    let (mut x, mut row) = (MARGIN, 0);
    legend
        .iter()
        .map(|entry| {
            let width = 28.0 + text_width(&entry.label, LEGEND_SIZE) + 18.0;
            if x + width > WIDTH - MARGIN && x > MARGIN {
                x = MARGIN;
                row += 1;
            }
            let place = (x, row);
            x += width;
            place
        })
        .collect()
}

fn draw_entry(canvas: &mut Canvas, entry: &LegendEntry, (x, y): (f64, f64)) {
    let role = Role::Series(entry.color);
    match entry.mark {
        Mark::Square => canvas.rect((x + 6.0, y - 6.0), (12.0, 12.0), role),
        Mark::Line => {
            canvas.line((x, y), (x + 22.0, y), role, 2.2);
            canvas.dot((x + 11.0, y), role);
        }
        Mark::HollowLine => {
            canvas.line((x, y), (x + 22.0, y), role, 1.3);
            canvas.ring((x + 11.0, y), role);
        }
        Mark::Dashes => canvas.dashed((x, y), (x + 22.0, y), role),
        Mark::Dots => canvas.dotted((x, y), (x + 22.0, y), role),
    }
    let style = TextStyle {
        size: LEGEND_SIZE,
        ..TextStyle::label(Anchor::Start).ink()
    };
    canvas.text((x + 28.0, y + 4.5), &entry.label, style);
}

/// Draws the grid lines, numbers and label of the vertical axis.
pub(super) fn vertical_axis(
    canvas: &mut Canvas,
    area: Area,
    (ticks, label): (&[f64], &str),
    format: impl Fn(f64) -> String,
) -> Axis {
    let axis = Axis {
        scale: super::axis::Scale::Linear,
        values: (0.0, ticks.last().copied().unwrap_or(1.0)),
        places: (area.bottom, area.top),
    };
    for &tick in ticks {
        let y = axis.place(tick);
        let role = if tick > 0.0 { Role::Grid } else { Role::Muted };
        canvas.line((area.left, y), (area.right, y), role, 1.0);
        let at = (area.left - 10.0, y + 4.0);
        canvas.text(at, &format(tick), TextStyle::label(Anchor::End));
    }
    let middle = f64::midpoint(area.top, area.bottom);
    canvas.upward_text(
        (AXIS_LABEL, middle),
        label,
        TextStyle::label(Anchor::Middle),
    );
    axis
}

/// Draws the label of the horizontal axis.
pub(super) fn horizontal_label(canvas: &mut Canvas, area: Area, label: &str) {
    let at = (f64::midpoint(area.left, area.right), area.bottom + 46.0);
    canvas.text(at, label, TextStyle::label(Anchor::Middle));
}

/// Formats a speed-up, such as `2.5x`.
pub(super) fn times_label(value: f64) -> String {
    format!("{}\u{d7}", tick_label(value))
}

/// Formats a share as a percentage.
pub(super) fn percent_label(value: f64) -> String {
    format!("{}%", tick_label(value * 100.0))
}
