//! Selecting the sampled texts that are useful questions for training a draft.

use std::collections::HashSet;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Minimum number of letters and digits of a question.
const MIN_LETTERS: usize = 8;
/// Length in characters of the n-grams that measure repetition.
const PIECE: usize = 4;
/// Minimum share of distinct n-grams. English questions have 0.8 and more.
const MIN_DIFFERENT: f64 = 0.5;

/// The verdict on a sampled text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    /// It becomes a question.
    Kept,
    /// It did not end.
    TooLong,
    /// It has too few letters.
    TooShort,
    /// It repeats itself.
    Repetitive,
    /// It contains special tokens or invalid characters.
    Unreadable,
    /// It equals an earlier text except for case and punctuation.
    Duplicate,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kept => "kept",
            Self::TooLong => "too long",
            Self::TooShort => "too short",
            Self::Repetitive => "repetitive",
            Self::Unreadable => "unreadable",
            Self::Duplicate => "duplicate",
        })
    }
}

/// A sampled text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Drawn {
    pub(super) text: String,
    pub(super) form: Form,
}

/// Properties of a text that only its tokens show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// The target did not end its turn.
    Unended,
    /// The text contains special tokens.
    Special,
    /// The text ended and contains no special tokens.
    Plain,
}

/// Judges texts and remembers the kept ones.
#[derive(Debug, Default)]
pub(super) struct Judge {
    kept: HashSet<String>,
}

impl Judge {
    /// Judges the next text; of two equal texts, the first is kept.
    pub(super) fn judge(&mut self, drawn: &Drawn) -> Verdict {
        let letters = letters(&drawn.text);
        if drawn.form == Form::Unended {
            Verdict::TooLong
        } else if letters.chars().count() < MIN_LETTERS {
            Verdict::TooShort
        } else if drawn.form == Form::Special || drawn.text.contains(char::REPLACEMENT_CHARACTER) {
            Verdict::Unreadable
        } else if is_repetitive(&letters) {
            Verdict::Repetitive
        } else if self.kept.insert(letters) {
            Verdict::Kept
        } else {
            Verdict::Duplicate
        }
    }

    /// Remembers a text that an earlier run kept.
    pub(super) fn remember(&mut self, text: &str) {
        self.kept.insert(letters(text));
    }
}

fn letters(text: &str) -> String {
    let letters = text.chars().filter(|character| character.is_alphanumeric());
    letters.flat_map(char::to_lowercase).collect()
}

fn is_repetitive(letters: &str) -> bool {
    let letters: Vec<char> = letters.chars().collect();
    let pieces = letters.windows(PIECE);
    let n_pieces = pieces.len();
    let different: HashSet<&[char]> = pieces.collect();
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    let share = different.len() as f64 / n_pieces.max(1) as f64;
    share < MIN_DIFFERENT
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(text: &str) -> Drawn {
        Drawn {
            text: text.to_owned(),
            form: Form::Plain,
        }
    }

    #[test]
    fn questions_are_kept_once() {
        let mut judge = Judge::default();
        let question = "How do I bake bread without yeast, and how long does it take?";
        assert_eq!(judge.judge(&ended(question)), Verdict::Kept);
        let again = question.to_uppercase().replace(',', " –");
        assert_eq!(judge.judge(&ended(&again)), Verdict::Duplicate);
        assert_eq!(judge.judge(&ended("What is it made of?")), Verdict::Kept);
        let mut later = Judge::default();
        later.remember(question);
        assert_eq!(later.judge(&ended(&again)), Verdict::Duplicate);
    }

    #[test]
    fn what_teaches_nothing_is_named() {
        let judged = |drawn: &Drawn| Judge::default().judge(drawn);
        assert_eq!(judged(&ended("Hi!")), Verdict::TooShort);
        assert_eq!(judged(&ended(&"a red ".repeat(20))), Verdict::Repetitive);
        assert_eq!(judged(&ended(&"x".repeat(40))), Verdict::Repetitive);
        assert_eq!(
            judged(&ended("What is \u{fffd}\u{fffd} good for?")),
            Verdict::Unreadable
        );
        let question = "What are the colours of the rainbow?";
        let unended = Drawn {
            form: Form::Unended,
            ..ended(question)
        };
        assert_eq!(judged(&unended), Verdict::TooLong);
        let special = Drawn {
            form: Form::Special,
            ..ended(question)
        };
        assert_eq!(judged(&special), Verdict::Unreadable);
    }
}
