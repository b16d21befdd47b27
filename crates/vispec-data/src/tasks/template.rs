//! Text with field names in braces, as in `"images/{image}.jpg"`.

use serde::Deserialize;

use crate::error::Result;

/// A parsed template. A doubled brace stands for a literal brace.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Template {
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Field(String),
}

impl Template {
    /// Returns the names of the fields in braces.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Field(name) => Some(name.as_str()),
            Piece::Text(_) => None,
        })
    }

    /// Returns the text with the values that `value` returns for the names.
    pub(crate) fn fill(&self, value: impl Fn(&str) -> Result<String>) -> Result<String> {
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(piece) => text.push_str(piece),
                Piece::Field(name) => text.push_str(&value(name)?),
            }
        }
        Ok(text)
    }
}

impl TryFrom<String> for Template {
    type Error = String;

    fn try_from(source: String) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut text = String::new();
        let mut rest = source.as_str();
        while let Some(place) = rest.find(['{', '}']) {
            let (before, brace) = rest.split_at(place);
            text.push_str(before);
            if let Some(after) = brace.strip_prefix("{{") {
                text.push('{');
                rest = after;
            } else if let Some(after) = brace.strip_prefix("}}") {
                text.push('}');
                rest = after;
            } else if let Some((name, after)) = brace[1..].split_once('}')
                && brace.starts_with('{')
                && !name.is_empty()
                && !name.contains('{')
            {
                if !text.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut text)));
                }
                pieces.push(Piece::Field(name.to_owned()));
                rest = after;
            } else {
                return Err(format!("unmatched brace in {source:?}"));
            }
        }
        text.push_str(rest);
        if !text.is_empty() {
            pieces.push(Piece::Text(text));
        }
        Ok(Self { pieces })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(source: &str) -> Result<String, String> {
        let template = Template::try_from(source.to_owned())?;
        Ok(template.fill(|name| Ok(format!("<{name}>"))).unwrap())
    }

    #[test]
    fn names_are_filled_in() {
        assert_eq!(filled("a {b} c{d}").unwrap(), "a <b> c<d>");
        assert_eq!(filled("").unwrap(), "");
        assert_eq!(filled("{{x}} {y}").unwrap(), "{x} <y>");
    }

    #[test]
    fn lone_braces_are_errors() {
        for source in ["{", "}", "{}", "a {b", "{a{b}"] {
            assert!(filled(source).is_err(), "{source}");
        }
    }
}
