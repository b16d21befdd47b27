//! Stacked bars of the parts of a whole.

use super::axis::{Axis, Scale};
use super::canvas::{Anchor, TextStyle, text_width};
use super::frame::{LegendEntry, Texts, WIDTH, begin, percent_label};
use super::theme::{Role, Theme};

const ROW: f64 = 34.0;
const BAR: f64 = 22.0;

/// One bar.
#[derive(Debug, Clone, PartialEq)]
pub struct ShareRow {
    /// Label left of the bar.
    pub label: String,
    /// Parts of the bar, left to right.
    pub shares: Vec<f64>,
    /// Text right of the bar.
    pub remark: String,
}

/// A chart of stacked bars.
#[derive(Debug, Clone, PartialEq)]
pub struct StackedShares {
    /// Heading.
    pub title: String,
    /// Subtitle: what was measured.
    pub subtitle: String,
    /// Names and palette colours of the parts.
    pub parts: Vec<(String, usize)>,
    /// Bars, top to bottom.
    pub rows: Vec<ShareRow>,
}

impl StackedShares {
    /// Draws the chart.
    pub(crate) fn to_svg(&self, theme: Theme) -> String {
        let legend = LegendEntry::squares(&self.parts);
        let texts = Texts {
            title: &self.title,
            subtitle: &self.subtitle,
        };
        let widest = |text: fn(&ShareRow) -> &str| {
            let widths = self.rows.iter().map(|row| text_width(text(row), 12.0));
            widths.fold(0.0, f64::max)
        };
        let left = (34.0 + widest(|row| &row.label)).min(WIDTH / 2.5);
        let height = self.rows.len() as f64 * ROW;
        let (mut canvas, area) = begin(theme, texts, &legend, (left, height, 44.0));
        let right = area.right - widest(|row| &row.remark) - 8.0;
        let axis = Axis {
            scale: Scale::Linear,
            values: (0.0, 1.0),
            places: (area.left, right),
        };
        for tick in [0.0, 0.25, 0.5, 0.75, 1.0] {
            let x = axis.place(tick);
            canvas.line((x, area.top), (x, area.bottom), Role::Grid, 1.0);
            let at = (x, area.bottom + 18.0);
            canvas.text(at, &percent_label(tick), TextStyle::label(Anchor::Middle));
        }
        for (idx, row) in self.rows.iter().enumerate() {
            let y = area.top + idx as f64 * ROW + (ROW - BAR) / 2.0;
            let baseline = y + BAR / 2.0 + 4.0;
            let label = TextStyle::label(Anchor::End).ink();
            canvas.text((area.left - 10.0, baseline), &row.label, label);
            let mut sum = 0.0;
            for (share, (_, color)) in row.shares.iter().zip(&self.parts) {
                let (from, to) = (axis.place(sum), axis.place(sum + share));
                let width = (to - from - 1.0).max(0.0);
                canvas.rect((from, y), (width, BAR), Role::Series(*color));
                sum += share;
            }
            let remark = TextStyle::label(Anchor::Start);
            canvas.text((right + 10.0, baseline), &row.remark, remark);
        }
        canvas.finish(&format!("{}. {}", self.title, self.subtitle))
    }
}
