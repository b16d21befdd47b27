//! Tool calls in the text of an answer, in the format of the Hermes and Qwen families.

use serde_json::Value;

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";

/// A tool call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) name: String,
    /// A JSON object.
    pub(crate) arguments: String,
}

/// A part of an answer, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    Text(String),
    Call(Call),
}

/// Finds calls in a text that arrives in pieces. Text is held back for as long as it may be white
/// space around a call, or the beginning of one.
///
/// Text between the markers that is not a call remains text.
#[derive(Debug, Clone, Default)]
pub(crate) struct CallScanner {
    held: String,
    found: Found,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Found {
    /// Nothing yet.
    #[default]
    Nothing,
    /// Text, so far.
    Text,
    /// The last part was a call.
    Call,
}

impl CallScanner {
    /// Takes the next piece.
    pub(crate) fn push(&mut self, piece: &str) -> Vec<Said> {
        self.held.push_str(piece);
        let mut said = Vec::new();
        loop {
            let Some(start) = self.held.find(OPEN) else {
                let end = self.certain();
                self.say(end, &mut said);
                return said;
            };
            let body = start + OPEN.len();
            let Some(len) = self.held[body..].find(CLOSE) else {
                let end = self.held[..start].trim_end().len();
                self.say(end, &mut said);
                return said;
            };
            match read(&self.held[body..body + len]) {
                Some(call) => {
                    let end = self.held[..start].trim_end().len();
                    self.say(end, &mut said);
                    let start = self.held.find(CLOSE).map_or(0, |close| close + CLOSE.len());
                    self.held.drain(..start);
                    said.push(Said::Call(call));
                    self.found = Found::Call;
                }
                None => self.say(body + len + CLOSE.len(), &mut said),
            }
        }
    }

    /// Returns the rest after the text has ended; a last call may lack its closing marker.
    pub(crate) fn finish(&mut self) -> Vec<Said> {
        let mut said = Vec::new();
        let start = self.held.find(OPEN);
        let call = start.and_then(|start| read(&self.held[start + OPEN.len()..]));
        match (start, call) {
            (Some(start), Some(call)) => {
                let end = self.held[..start].trim_end().len();
                self.say(end, &mut said);
                said.push(Said::Call(call));
            }
            _ => self.say(self.held.len(), &mut said),
        }
        self.held.clear();
        said
    }

    /// Emits the first `len` bytes that are held, without white space after a call.
    fn say(&mut self, len: usize, said: &mut Vec<Said>) {
        let mut text: String = self.held.drain(..len).collect();
        if self.found == Found::Call {
            text = text.trim_start().to_owned();
        }
        if !text.is_empty() {
            self.found = Found::Text;
            said.push(Said::Text(text));
        }
    }

    /// Length of the held text before trailing white space and before a possible start of a call.
    fn certain(&self) -> usize {
        let mut starts = self.held.char_indices().map(|(start, _)| start);
        let beginning = starts.find(|&start| OPEN.starts_with(&self.held[start..]));
        let end = beginning.unwrap_or(self.held.len());
        self.held[..end].trim_end().len()
    }
}

/// Splits a complete answer into its text and its calls.
pub(crate) fn split(text: &str) -> (String, Vec<Call>) {
    let mut scanner = CallScanner::default();
    let mut said = scanner.push(text);
    said.extend(scanner.finish());
    let (mut text, mut calls) = (String::new(), Vec::new());
    for said in said {
        match said {
            Said::Text(more) => text.push_str(&more),
            Said::Call(call) => calls.push(call),
        }
    }
    (text, calls)
}

/// Parses the call between the markers.
fn read(body: &str) -> Option<Call> {
    let Value::Object(mut fields) = serde_json::from_str(body.trim()).ok()? else {
        return None;
    };
    let Some(Value::String(name)) = fields.remove("name") else {
        return None;
    };
    let arguments = match fields.remove("arguments").unwrap_or(Value::Null) {
        Value::Null => "{}".to_owned(),
        Value::String(text) => text,
        arguments => arguments.to_string(),
    };
    Some(Call { name, arguments })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(pieces: &[&str]) -> (String, Vec<Call>) {
        let mut scanner = CallScanner::default();
        let mut said = Vec::from_iter(pieces.iter().flat_map(|piece| scanner.push(piece)));
        said.extend(scanner.finish());
        let (mut text, mut calls) = (String::new(), Vec::new());
        for said in said {
            match said {
                Said::Text(more) => text += &more,
                Said::Call(call) => calls.push(call),
            }
        }
        (text, calls)
    }

    fn call(name: &str, arguments: &str) -> Call {
        Call {
            name: name.to_owned(),
            arguments: arguments.to_owned(),
        }
    }

    const TWO: &str = "Let me see.\n<tool_call>\n{\"name\": \"look\", \"arguments\": {\"at\": 1}}\n\
        </tool_call>\n<tool_call>\n{\"name\": \"ask\", \"arguments\": {}}\n</tool_call>";

    #[test]
    fn calls_are_told_from_text() {
        let (text, calls) = split(TWO);
        assert_eq!(text, "Let me see.");
        assert_eq!(calls, [call("look", "{\"at\":1}"), call("ask", "{}")]);
        // The model may stop before the closing marker.
        let (text, calls) = split("<tool_call>{\"name\": \"look\"}");
        assert_eq!((text.as_str(), calls), ("", vec![call("look", "{}")]));
    }

    #[test]
    fn pieces_do_not_matter() {
        for text in [
            TWO,
            "a <tool b> \n c ",
            "<tool_call>no</tool_call> b <tool_call>{",
        ] {
            let whole = run(&[text]);
            for size in 1..9 {
                let chars = Vec::from_iter(text.chars());
                let pieces = chars
                    .chunks(size)
                    .map(|piece| piece.iter().collect::<String>());
                let pieces = Vec::from_iter(pieces);
                let pieces = Vec::from_iter(pieces.iter().map(String::as_str));
                assert_eq!(run(&pieces), whole, "{text:?} in pieces of {size}");
            }
        }
    }

    #[test]
    fn what_is_no_call_stays_text() {
        for text in [
            "<tool_call>no</tool_call>",
            "<tool_call>[1]</tool_call> and more",
            "a < b <tool",
            "<tool_call>{\"name\": 3}</tool_call>",
        ] {
            assert_eq!(split(text), (text.to_owned(), Vec::new()));
        }
    }
}
