//! Grouped bars with intervals.

use super::axis::{tick_label, ticks_from_zero};
use super::canvas::{Anchor, Strength, TextStyle, text_width};
use super::frame::{
    LegendEntry, Texts, begin_with_axes, horizontal_label, percent_label, times_label,
    vertical_axis,
};
use super::theme::{Role, Theme};

/// One bar.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bar {
    /// Height of the bar.
    pub value: f64,
    /// Interval of the height, if any.
    pub interval: Option<(f64, f64)>,
}

/// Bars at the same place on the horizontal axis.
#[derive(Debug, Clone, PartialEq)]
pub struct BarGroup {
    /// Label below the bars.
    pub label: String,
    /// One bar per series; `None` where a series has no value.
    pub bars: Vec<Option<Bar>>,
}

/// Unit of the heights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BarUnit {
    /// Speed-ups; a line marks 1.
    Times,
    /// Shares of a whole.
    Share,
    /// Plain numbers.
    Number,
}

/// A chart of grouped bars.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupedBars {
    /// Heading.
    pub title: String,
    /// Subtitle: what was measured.
    pub subtitle: String,
    /// Label of the horizontal axis.
    pub x_label: String,
    /// Label of the vertical axis.
    pub y_label: String,
    /// Unit of the heights.
    pub unit: BarUnit,
    /// Label and palette colour of each series.
    pub series: Vec<(String, usize)>,
    /// Groups, left to right.
    pub groups: Vec<BarGroup>,
}

impl GroupedBars {
    /// Draws the chart.
    pub(crate) fn to_svg(&self, theme: Theme) -> String {
        let legend = LegendEntry::squares(&self.series);
        let texts = Texts {
            title: &self.title,
            subtitle: &self.subtitle,
        };
        let (mut canvas, area) = begin_with_axes(theme, texts, &legend);
        let format = match self.unit {
            BarUnit::Times => times_label,
            BarUnit::Share => percent_label,
            BarUnit::Number => tick_label,
        };
        let room = match self.unit {
            BarUnit::Times | BarUnit::Number => 1.06,
            BarUnit::Share => 1.0,
        };
        let ticks = ticks_from_zero(self.largest() * room, 5);
        let axis = vertical_axis(&mut canvas, area, (&ticks, &self.y_label), format);
        if self.unit == BarUnit::Times {
            let y = axis.place(1.0);
            canvas.dashed((area.left, y), (area.right, y), Role::Muted);
        }
        let step = (area.right - area.left) / self.groups.len().max(1) as f64;
        let width = (step * 0.78 / self.series.len().max(1) as f64).min(54.0);
        let value_size = (width / 2.6).min(11.0);
        for (idx, group) in self.groups.iter().enumerate() {
            let middle = area.left + (idx as f64 + 0.5) * step;
            let left = middle - width * self.series.len() as f64 / 2.0;
            for (place, (bar, (_, color))) in group.bars.iter().zip(&self.series).enumerate() {
                let Some(bar) = bar else { continue };
                let x = left + place as f64 * width;
                let y = axis.place(bar.value);
                let size = (width - 2.0, (area.bottom - y).max(0.5));
                canvas.rect((x + 1.0, y), size, Role::Series(*color));
                let mut top = y;
                if let Some((low, high)) = bar.interval {
                    let ends = (axis.place(low), axis.place(high));
                    canvas.whisker(x + width / 2.0, ends, Role::Ink);
                    top = top.min(ends.1);
                }
                // Numbers that would be too small to read are only in the tables.
                if value_size >= 8.5 {
                    let style = TextStyle {
                        size: value_size,
                        ..TextStyle::label(Anchor::Middle).ink()
                    };
                    let at = (x + width / 2.0, top - 5.0);
                    canvas.rimmed_text(at, &self.value_label(bar.value), style);
                }
            }
            let style = TextStyle {
                strong: if group.label == AVERAGE_GROUP {
                    Strength::Strong
                } else {
                    Strength::Regular
                },
                ..TextStyle::label(Anchor::Middle).ink()
            };
            let label = shorten(&group.label, step - 6.0, style.size);
            canvas.text((middle, area.bottom + 20.0), &label, style);
        }
        horizontal_label(&mut canvas, area, &self.x_label);
        canvas.finish(&format!("{}. {}", self.title, self.subtitle))
    }

    fn largest(&self) -> f64 {
        let bars = self
            .groups
            .iter()
            .flat_map(|group| group.bars.iter().flatten());
        bars.map(|bar| {
            bar.interval
                .map_or(bar.value, |(_, high)| high.max(bar.value))
        })
        .filter(|value| value.is_finite())
        .fold(0.0, f64::max)
    }

    fn value_label(&self, value: f64) -> String {
        match self.unit {
            BarUnit::Times | BarUnit::Number => format!("{value:.2}"),
            BarUnit::Share => format!("{:.0}%", value * 100.0),
        }
    }
}

/// The group whose label is bold.
pub(super) const AVERAGE_GROUP: &str = "average";

/// Shortens a label to a width.
fn shorten(label: &str, width: f64, size: f64) -> String {
    if text_width(label, size) <= width {
        return label.to_owned();
    }
    let letters = (width / text_width("m", size)).floor().max(2.0) as usize;
    let kept: String = label.chars().take(letters - 1).collect();
    format!("{kept}\u{2026}")
}
