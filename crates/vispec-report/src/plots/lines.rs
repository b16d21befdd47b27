//! Lines over a numeric axis.

use super::axis::{Axis, Scale, tick_label, ticks_from_zero};
use super::canvas::{Anchor, Canvas, TextStyle, text_width};
use super::frame::{
    Area, LegendEntry, Mark, Texts, begin_with_axes, horizontal_label, percent_label, times_label,
    vertical_axis,
};
use super::theme::{Role, Theme};

/// A value with its interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Position on the horizontal axis.
    pub x: f64,
    /// Height.
    pub y: f64,
    /// Interval of the height, if any.
    pub interval: Option<(f64, f64)>,
}

/// Distinguishes lines of one colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stroke {
    /// Filled points and dashes.
    Full,
    /// Hollow points and dots.
    Hollow,
}

/// Connected points.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Name in the legend.
    pub label: String,
    /// Index of the colour in the palette.
    pub color: usize,
    /// Stroke of the line.
    pub stroke: Stroke,
    /// Points, left to right.
    pub points: Vec<Point>,
}

/// A value that does not depend on the horizontal axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Horizontal {
    /// Name in the legend.
    pub label: String,
    /// Index of the colour in the palette.
    pub color: usize,
    /// Stroke of the line.
    pub stroke: Stroke,
    /// Height of the line.
    pub y: f64,
}

/// What the horizontal axis counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XScale {
    /// Levels of a tree; every number is marked.
    Levels,
    /// Sizes: equal distances for doublings; only the sizes that occur are marked.
    Sizes,
}

/// Unit of the heights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineUnit {
    /// Plain numbers.
    Number,
    /// Speed-ups.
    Times,
    /// Shares of a whole.
    Share,
}

/// A chart of lines over a numeric axis.
#[derive(Debug, Clone, PartialEq)]
pub struct LineChart {
    /// Heading.
    pub title: String,
    /// Subtitle: what was measured.
    pub subtitle: String,
    /// Label and scale of the horizontal axis.
    pub x_axis: (String, XScale),
    /// Label and unit of the vertical axis.
    pub y_axis: (String, LineUnit),
    /// The lines.
    pub lines: Vec<Line>,
    /// Values that do not depend on the horizontal axis.
    pub horizontals: Vec<Horizontal>,
}

impl LineChart {
    /// Draws the chart.
    #[must_use]
    pub fn to_svg(&self, theme: Theme) -> String {
        let texts = Texts {
            title: &self.title,
            subtitle: &self.subtitle,
        };
        let (mut canvas, area) = begin_with_axes(theme, texts, &self.legend());
        let ticks = match self.y_axis.1 {
            LineUnit::Share => (0..=5).map(|fifth| f64::from(fifth) / 5.0).collect(),
            LineUnit::Number | LineUnit::Times => ticks_from_zero(self.largest() * 1.03, 5),
        };
        let format = match self.y_axis.1 {
            LineUnit::Number => tick_label,
            LineUnit::Times => times_label,
            LineUnit::Share => percent_label,
        };
        let y_axis = vertical_axis(&mut canvas, area, (&ticks, &self.y_axis.0), format);
        let x_axis = self.x_axis(&mut canvas, area);
        for horizontal in &self.horizontals {
            let y = y_axis.place(horizontal.y);
            let role = Role::Series(horizontal.color);
            let (from, to) = ((area.left, y), (area.right, y));
            match horizontal.stroke {
                Stroke::Full => canvas.dashed(from, to, role),
                Stroke::Hollow => canvas.dotted(from, to, role),
            }
        }
        // Lines that share a point are drawn slightly apart, so that each interval is visible.
        let spread = (self.lines.len().saturating_sub(1)) as f64 / 2.0;
        for (idx, line) in self.lines.iter().enumerate() {
            let shift = (idx as f64 - spread) * 5.0;
            let role = Role::Series(line.color);
            let place = |point: &Point| (x_axis.place(point.x) + shift, y_axis.place(point.y));
            let places: Vec<_> = line.points.iter().map(place).collect();
            let width = match line.stroke {
                Stroke::Full => 2.2,
                Stroke::Hollow => 1.3,
            };
            canvas.polyline(&places, role, width);
            for (point, &(x, y)) in line.points.iter().zip(&places) {
                if let Some((low, high)) = point.interval {
                    canvas.whisker(x, (y_axis.place(low), y_axis.place(high)), role);
                }
                match line.stroke {
                    Stroke::Full => canvas.dot((x, y), role),
                    Stroke::Hollow => canvas.ring((x, y), role),
                }
            }
        }
        horizontal_label(&mut canvas, area, &self.x_axis.0);
        canvas.finish(&format!("{}. {}", self.title, self.subtitle))
    }

    fn legend(&self) -> Vec<LegendEntry> {
        let lines = self.lines.iter().map(|line| LegendEntry {
            label: line.label.clone(),
            color: line.color,
            mark: match line.stroke {
                Stroke::Full => Mark::Line,
                Stroke::Hollow => Mark::HollowLine,
            },
        });
        let horizontals = self.horizontals.iter().map(|line| LegendEntry {
            label: line.label.clone(),
            color: line.color,
            mark: match line.stroke {
                Stroke::Full => Mark::Dashes,
                Stroke::Hollow => Mark::Dots,
            },
        });
        lines.chain(horizontals).collect()
    }

    /// Draws the marks of the horizontal axis.
    fn x_axis(&self, canvas: &mut Canvas, area: Area) -> Axis {
        let mut values: Vec<f64> = self
            .lines
            .iter()
            .flat_map(|line| line.points.iter().map(|point| point.x))
            .collect();
        values.sort_by(f64::total_cmp);
        values.dedup_by(|a, b| a.total_cmp(b).is_eq());
        let first = values.first().copied().unwrap_or(0.0);
        let last = values.last().copied().unwrap_or(1.0);
        let (scale, values_range) = match self.x_axis.1 {
            XScale::Levels => (Scale::Linear, (first - 0.3, last + 0.3)),
            XScale::Sizes => (Scale::Doubling, (first.max(1.0) / 1.2, last.max(1.0) * 1.2)),
        };
        let axis = Axis {
            scale,
            values: values_range,
            places: (area.left, area.right),
        };
        let mut free_from = f64::NEG_INFINITY;
        for value in values {
            let x = axis.place(value);
            canvas.line((x, area.bottom), (x, area.bottom + 5.0), Role::Muted, 1.0);
            let label = format!("{value:.0}");
            let half = text_width(&label, 12.0) / 2.0;
            if x - half > free_from {
                let style = TextStyle::label(Anchor::Middle);
                canvas.text((x, area.bottom + 20.0), &label, style);
                free_from = x + half + 8.0;
            }
        }
        axis
    }

    fn largest(&self) -> f64 {
        let points = self.lines.iter().flat_map(|line| &line.points);
        let heights = points.map(|p| p.interval.map_or(p.y, |(_, high)| high.max(p.y)));
        heights
            .chain(self.horizontals.iter().map(|line| line.y))
            .filter(|value| value.is_finite())
            .fold(0.0, f64::max)
    }
}
