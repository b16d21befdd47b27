//! Answers that the language model writes about words, and learns to write about pictures.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use vispec_data::icons::Thing;

use super::config::PictureQuestion;
use crate::error::TrainError;
use crate::files::at;

/// Maximum number of keywords that the language model is told.
const KEYWORDS: usize = 6;

/// A line of `answers.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WordAnswer {
    /// Index of the thing.
    pub thing: usize,
    /// Index of the question.
    pub question: usize,
    /// Tokens of the answer, including the end token if the answer is complete.
    pub tokens: Vec<u32>,
}

impl PictureQuestion {
    /// Returns the prompt that describes `thing` in words instead of showing it.
    #[must_use]
    pub fn about(&self, thing: &Thing) -> String {
        let keywords: Vec<&str> = thing
            .keywords
            .iter()
            .take(KEYWORDS)
            .map(String::as_str)
            .collect();
        let words = match keywords.is_empty() {
            true => thing.name.clone(),
            false => format!("{} ({})", thing.name, keywords.join(", ")),
        };
        self.told.replace("{words}", &words)
    }
}

/// Answers by thing and question.
pub type Answers = BTreeMap<(usize, usize), Vec<u32>>;

/// Reads `answers.jsonl`. An incomplete last line is ignored, and a missing file has no answers.
///
/// # Errors
/// [`TrainError::Io`], or [`TrainError::Checkpoint`] for a line that is not an answer.
pub fn read_answers(path: &Path) -> Result<Answers, TrainError> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        text => text.map_err(at(path))?,
    };
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let mut answers = Answers::new();
    for (number, line) in whole.lines().enumerate() {
        let answer: WordAnswer =
            serde_json::from_str(line).map_err(|error| TrainError::Checkpoint {
                path: path.to_owned(),
                reason: format!("line {}: {error}", number + 1),
            })?;
        answers.insert((answer.thing, answer.question), answer.tokens);
    }
    Ok(answers)
}
