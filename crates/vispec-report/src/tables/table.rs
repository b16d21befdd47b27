//! A table and its output formats.

use std::fmt::Write;

/// A table of strings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// File name without extension.
    pub name: String,
    /// Heading.
    pub title: String,
    /// Description of the figures, in one or two sentences.
    pub note: String,
    /// Column headings.
    pub columns: Vec<String>,
    /// Rows, each as long as `columns`.
    pub rows: Vec<Vec<String>>,
    /// Number of columns from the left that hold text; the others are aligned as numbers.
    pub text_columns: usize,
}

impl Table {
    /// Creates a table without rows, whose first three columns are text.
    #[must_use]
    pub fn new(name: &str, title: &str, note: &str, columns: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            title: title.to_owned(),
            note: note.to_owned(),
            columns: columns.iter().map(|&column| column.to_owned()).collect(),
            rows: Vec::new(),
            text_columns: 3,
        }
    }

    /// Formats the table as GitHub Markdown, with heading and note.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let mut text = format!("## {}\n\n{}\n\n", self.title, self.note);
        let escape = |cell: &String| cell.replace('|', "\\|");
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        text += &line(self.columns.iter().map(escape).collect());
        let rule = |idx| {
            if idx < self.text_columns {
                "---"
            } else {
                "---:"
            }
        };
        text += &line(
            (0..self.columns.len())
                .map(|idx| rule(idx).to_owned())
                .collect(),
        );
        for row in &self.rows {
            text += &line(row.iter().map(escape).collect());
        }
        text
    }

    /// Formats the table as comma-separated values with a header, quoted where needed (RFC 4180).
    #[must_use]
    pub fn to_csv(&self) -> String {
        let quote = |cell: &String| {
            if cell.contains([',', '"', '\n']) {
                format!("\"{}\"", cell.replace('"', "\"\""))
            } else {
                cell.clone()
            }
        };
        let line = |cells: &[String]| {
            let cells: Vec<String> = cells.iter().map(quote).collect();
            format!("{}\n", cells.join(","))
        };
        let mut text = line(&self.columns);
        for row in &self.rows {
            text += &line(row);
        }
        text
    }

    /// Formats the table as a LaTeX `table` that needs the package booktabs.
    pub(crate) fn to_latex(&self) -> String {
        let aligned: String = (0..self.columns.len())
            .map(|idx| if idx < self.text_columns { 'l' } else { 'r' })
            .collect();
        let line = |cells: &[String]| {
            let cells: Vec<String> = cells.iter().map(|cell| escape_latex(cell)).collect();
            format!("{} \\\\\n", cells.join(" & "))
        };
        let mut text = format!(
            "\\begin{{table}}\n\\caption{{{}. {}}}\n\\begin{{tabular}}{{{aligned}}}\n\\toprule\n",
            escape_latex(&self.title),
            escape_latex(&self.note)
        );
        text += &line(&self.columns);
        text += "\\midrule\n";
        for row in &self.rows {
            text += &line(row);
        }
        text += "\\bottomrule\n\\end{tabular}\n\\end{table}\n";
        text
    }

    /// Formats the table as HTML, without heading.
    pub(crate) fn to_html(&self) -> String {
        let mut text = "<div class=\"scroll\"><table><thead><tr>".to_owned();
        let class = |idx| {
            if idx < self.text_columns {
                ""
            } else {
                " class=\"n\""
            }
        };
        for (idx, cell) in self.columns.iter().enumerate() {
            let _ = write!(text, "<th{}>{}</th>", class(idx), escape_html(cell));
        }
        text += "</tr></thead><tbody>\n";
        for row in &self.rows {
            text += "<tr>";
            for (idx, cell) in row.iter().enumerate() {
                let _ = write!(text, "<td{}>{}</td>", class(idx), escape_html(cell));
            }
            text += "</tr>\n";
        }
        text += "</tbody></table></div>\n";
        text
    }
}

/// Escapes text for HTML and SVG.
pub(crate) fn escape_html(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

fn escape_latex(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => {
                escaped.push('\\');
                escaped.push(letter);
            }
            '\\' => escaped.push_str("\\textbackslash{}"),
            '~' => escaped.push_str("\\textasciitilde{}"),
            '^' => escaped.push_str("\\textasciicircum{}"),
            _ => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_letters_are_escaped() {
        let table = Table {
            name: "t".to_owned(),
            title: "A_b".to_owned(),
            note: "50 %".to_owned(),
            columns: vec!["a|b".to_owned(), "n".to_owned()],
            rows: vec![vec!["x, \"y\" <&>".to_owned(), "1".to_owned()]],
            text_columns: 1,
        };
        assert_eq!(
            table.to_markdown(),
            "## A_b\n\n50 %\n\n| a\\|b | n |\n| --- | ---: |\n| x, \"y\" <&> | 1 |\n"
        );
        assert_eq!(table.to_csv(), "a|b,n\n\"x, \"\"y\"\" <&>\",1\n");
        assert!(table.to_latex().contains("x, \"y\" <\\&> & 1 \\\\"));
        assert!(table.to_latex().contains("\\caption{A\\_b. 50 \\%}"));
        assert!(
            table
                .to_html()
                .contains("<td>x, &quot;y&quot; &lt;&amp;&gt;</td>")
        );
    }
}
