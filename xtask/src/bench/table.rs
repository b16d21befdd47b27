//! Tables in Markdown that also read well in a terminal.

use std::fmt;

/// Rows of text under a header. The first column is left-aligned, the others right-aligned.
pub(super) struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// Placeholder for a missing figure.
pub(super) const NONE: &str = "-";

impl Table {
    pub(super) fn new(head: &[&str]) -> Self {
        Self {
            head: head.iter().map(|&cell| cell.to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row. Bars are escaped because they would end a cell.
    pub(super) fn push<const N: usize>(&mut self, cells: [String; N]) {
        let escaped = cells.iter().map(|cell| cell.replace('|', "\\|"));
        self.rows.push(escaped.collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| {
            let cells = std::iter::once(&self.head).chain(&self.rows);
            let widths = cells.filter_map(|row| row.get(column).map(|cell| cell.chars().count()));
            widths.max().unwrap_or(0).max(3)
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let line = |f: &mut fmt::Formatter<'_>, cells: &[String]| {
            for (column, (cell, &width)) in cells.iter().zip(&widths).enumerate() {
                match column {
                    0 => write!(f, "| {cell:<width$} |")?,
                    _ => write!(f, " {cell:>width$} |")?,
                }
            }
            writeln!(f)
        };
        line(f, &self.head)?;
        for (column, &width) in widths.iter().enumerate() {
            match column {
                0 => write!(f, "|:{} |", "-".repeat(width))?,
                _ => write!(f, " {}:|", "-".repeat(width))?,
            }
        }
        writeln!(f)?;
        self.rows.iter().try_for_each(|row| line(f, row))
    }
}

/// Formats a duration with three significant digits.
pub(super) fn time(duration: std::time::Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds >= 1.0 {
        format!("{} s", digits(seconds))
    } else if seconds >= 1e-3 {
        format!("{} ms", digits(seconds * 1e3))
    } else {
        format!("{} us", digits(seconds * 1e6))
    }
}

/// Formats a number with three significant digits, or more before the decimal point if needed.
pub(super) fn digits(value: f64) -> String {
    match value.abs() {
        large if large >= 99.95 => format!("{value:.0}"),
        large if large >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Formats a fraction as a percentage.
pub(super) fn percent(fraction: f64) -> String {
    format!("{:.0} %", fraction * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn tables_are_aligned_markdown() {
        let mut table = Table::new(&["what", "n"]);
        table.push(["a|b".to_owned(), "1".to_owned()]);
        table.push(["longer".to_owned(), "12345".to_owned()]);
        let expected = "| what   |     n |\n\
                        |:------ | -----:|\n\
                        | a\\|b   |     1 |\n\
                        | longer | 12345 |\n";
        assert_eq!(table.to_string(), expected);
    }

    #[test]
    fn figures_have_three_digits() {
        assert_eq!(digits(1234.5), "1234");
        assert_eq!(digits(99.96), "100");
        assert_eq!(digits(9.996), "10.0");
        assert_eq!(digits(0.126), "0.13");
        assert_eq!(time(Duration::from_micros(1_234)), "1.23 ms");
        assert_eq!(time(Duration::from_nanos(45_600)), "45.6 us");
        assert_eq!(time(Duration::from_secs(90)), "90.0 s");
        assert_eq!(percent(0.876), "88 %");
    }
}
