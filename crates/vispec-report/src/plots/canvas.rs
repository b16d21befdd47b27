//! An SVG writer.

use std::fmt::Write;

use super::theme::{Role, Theme};
use crate::tables::escape_html;

/// Average width of a letter relative to the font size, rather too large. Labels are placed without
/// measuring a font, because readers of the SVG may have another one.
const LETTER_WIDTH: f64 = 0.57;

const FONTS: &str = "Inter, system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif";

/// Alignment of a text relative to its point.
#[derive(Debug, Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// Style of a text.
#[derive(Debug, Clone, Copy)]
pub(super) struct TextStyle {
    pub(super) size: f64,
    pub(super) role: Role,
    pub(super) anchor: Anchor,
    pub(super) strong: Strength,
}

/// Font weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strength {
    Regular,
    Strong,
}

impl TextStyle {
    pub(super) fn label(anchor: Anchor) -> Self {
        Self {
            size: 12.0,
            role: Role::Muted,
            anchor,
            strong: Strength::Regular,
        }
    }

    pub(super) fn ink(self) -> Self {
        Self {
            role: Role::Ink,
            ..self
        }
    }
}

/// A drawing under construction.
#[derive(Debug)]
pub(super) struct Canvas {
    body: String,
    theme: Theme,
    width: f64,
    height: f64,
}

/// Estimates the width of a text, for placement.
pub(super) fn text_width(text: &str, size: f64) -> f64 {
    text.chars().count() as f64 * size * LETTER_WIDTH
}

impl Canvas {
    pub(super) fn new(theme: Theme, width: f64, height: f64) -> Self {
        Self {
            body: String::new(),
            theme,
            width,
            height,
        }
    }

    pub(super) fn rect(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), role: Role) {
        let color = self.theme.color(role);
        self.element(&format!(
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" fill="{color}"/>"#
        ));
    }

    pub(super) fn line(&mut self, from: (f64, f64), to: (f64, f64), role: Role, width: f64) {
        self.path(&[from, to], role, width, "");
    }

    pub(super) fn dashed(&mut self, from: (f64, f64), to: (f64, f64), role: Role) {
        self.path(&[from, to], role, 1.6, r#" stroke-dasharray="6 4""#);
    }

    pub(super) fn dotted(&mut self, from: (f64, f64), to: (f64, f64), role: Role) {
        self.path(&[from, to], role, 1.6, r#" stroke-dasharray="1.6 4""#);
    }

    pub(super) fn polyline(&mut self, points: &[(f64, f64)], role: Role, width: f64) {
        self.path(points, role, width, r#" stroke-linejoin="round""#);
    }

    fn path(&mut self, points: &[(f64, f64)], role: Role, width: f64, extra: &str) {
        let color = self.theme.color(role);
        let mut places = String::new();
        for (x, y) in points {
            let _ = write!(places, "{x:.1},{y:.1} ");
        }
        self.element(&format!(
            r#"<polyline points="{}" fill="none" stroke="{color}" stroke-width="{width}"{extra}/>"#,
            places.trim_end()
        ));
    }

    /// Draws a point with a rim in the background colour, so that touching points can be told
    /// apart.
    pub(super) fn dot(&mut self, (x, y): (f64, f64), role: Role) {
        let (fill, rim) = (self.theme.color(role), self.theme.color(Role::Background));
        self.element(&format!(
            r#"<circle cx="{x:.1}" cy="{y:.1}" r="4.2" fill="{fill}" stroke="{rim}" stroke-width="1.4"/>"#
        ));
    }

    /// Draws a hollow point.
    pub(super) fn ring(&mut self, (x, y): (f64, f64), role: Role) {
        let (fill, rim) = (self.theme.color(Role::Background), self.theme.color(role));
        self.element(&format!(
            r#"<circle cx="{x:.1}" cy="{y:.1}" r="3.6" fill="{fill}" stroke="{rim}" stroke-width="1.8"/>"#
        ));
    }

    /// Draws a vertical interval with caps.
    pub(super) fn whisker(&mut self, x: f64, (from, to): (f64, f64), role: Role) {
        self.line((x, from), (x, to), role, 1.3);
        self.line((x - 3.5, from), (x + 3.5, from), role, 1.3);
        self.line((x - 3.5, to), (x + 3.5, to), role, 1.3);
    }

    pub(super) fn text(&mut self, at: (f64, f64), text: &str, style: TextStyle) {
        self.text_with(at, text, style, "");
    }

    /// Draws a text with a rim in the background colour, so that it is legible where lines cross
    /// it.
    pub(super) fn rimmed_text(&mut self, at: (f64, f64), text: &str, style: TextStyle) {
        let rim = self.theme.color(Role::Background);
        let extra = format!(
            r#" stroke="{rim}" stroke-width="3" stroke-linejoin="round" paint-order="stroke""#
        );
        self.text_with(at, text, style, &extra);
    }

    /// Draws a text that reads upwards.
    pub(super) fn upward_text(&mut self, (x, y): (f64, f64), text: &str, style: TextStyle) {
        let turn = format!(r#" transform="rotate(-90 {x:.1} {y:.1})""#);
        self.text_with((x, y), text, style, &turn);
    }

    fn text_with(&mut self, (x, y): (f64, f64), text: &str, style: TextStyle, extra: &str) {
        let anchor = match style.anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let weight = match style.strong {
            Strength::Regular => "400",
            Strength::Strong => "600",
        };
        let (color, size) = (self.theme.color(style.role), style.size);
        self.element(&format!(
            r#"<text x="{x:.1}" y="{y:.1}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" fill="{color}"{extra}>{}</text>"#,
            escape_html(text)
        ));
    }

    fn element(&mut self, element: &str) {
        self.body.push_str(element);
        self.body.push('\n');
    }

    /// Returns the drawing as SVG. `name` is its accessible name.
    pub(super) fn finish(self, name: &str) -> String {
        let Self {
            body,
            theme,
            width,
            height,
        } = self;
        let (name, ground) = (escape_html(name), theme.color(Role::Background));
        format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-label="{name}" font-family="{FONTS}">
<rect width="{width}" height="{height}" fill="{ground}"/>
{body}</svg>
"#
        )
    }
}
