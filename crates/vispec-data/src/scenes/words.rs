//! Texts about a scene: a description, questions, and their answers.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

use super::scene::{Background, Colour, PlacedShape, Scene, ShapeKind, ShapeSize, purpose};
use crate::random::KeyedRandom;

/// Wordings of the request for a description.
const REQUESTS: [&str; 3] = [
    "Describe the image.",
    "Please provide a detailed description of the given image.",
    "Describe all shapes in the image, row by row.",
];

/// Length of the answer to a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QuestionKind {
    /// A number, a word, yes or no.
    Short,
    /// A description of all shapes.
    Long,
}

/// A question and its correct answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The question.
    pub text: String,
    /// The answer.
    pub answer: String,
}

impl Scene {
    /// Returns a description of all shapes, row by row, and the number of shapes of each form.
    #[must_use]
    pub fn description(&self) -> String {
        let cells = self.style().cells();
        let mut text = format!(
            "The image shows {} on a {} background, arranged on a grid of {} and {}.",
            counted(self.shapes().len(), "shape"),
            self.background(),
            counted(cells as usize, "row"),
            counted(cells as usize, "column"),
        );
        for row in 0..cells {
            let shapes = self.shapes().iter().filter(|shape| shape.row == row);
            let shapes: Vec<String> = shapes
                .map(|shape| format!("{} in column {}", with_article(shape), shape.column + 1))
                .collect();
            if !shapes.is_empty() {
                text += &format!(" In row {} there is {}.", row + 1, enumerated(&shapes));
            }
        }
        let kinds: Vec<String> = ShapeKind::ALL
            .into_iter()
            .map(|kind| (kind, self.count(|shape| shape.kind == kind)))
            .filter(|(_, count)| *count > 0)
            .map(|(kind, count)| counted(count, &kind.to_string()))
            .collect();
        text + &format!(" In total: {}.", enumerated(&kinds))
    }

    /// Returns all questions of a kind that have a single correct answer.
    #[must_use]
    pub fn questions(&self, kind: QuestionKind) -> Vec<Question> {
        match kind {
            QuestionKind::Short => self.short_questions(),
            QuestionKind::Long => REQUESTS
                .iter()
                .map(|request| Question {
                    text: (*request).to_owned(),
                    answer: self.description(),
                })
                .collect(),
        }
    }

    /// Returns one of [`Self::questions`], always the same for this scene.
    #[must_use]
    pub fn question(&self, kind: QuestionKind) -> Question {
        let (seed, index) = self.question_key;
        let mut random = KeyedRandom::new(seed, index, purpose::QUESTION);
        let mut questions = self.questions(kind);
        let place = random.below(questions.len());
        questions.swap_remove(place)
    }

    fn short_questions(&self) -> Vec<Question> {
        let question = |text: String, answer: String| Question { text, answer };
        let mut questions = vec![question(
            "How many shapes are there?".to_owned(),
            self.shapes().len().to_string(),
        )];
        let mut groups: BTreeMap<String, usize> = BTreeMap::new();
        for shape in self.shapes() {
            let place = format!("row {}, column {}", shape.row + 1, shape.column + 1);
            questions.push(question(
                format!("What colour is the shape in {place}?"),
                shape.colour.to_string(),
            ));
            questions.push(question(
                format!("Which shape is in {place}?"),
                shape.kind.to_string(),
            ));
            *groups
                .entry(format!("{} {}", shape.colour, shape.kind))
                .or_default() += 1;
        }
        for (group, count) in groups {
            let plural = plural(&group);
            questions.push(question(
                format!("How many {plural} are there?"),
                count.to_string(),
            ));
        }
        for colour in Colour::ALL {
            let count = self.count(|shape| shape.colour == colour);
            let answer = if count > 0 { "Yes" } else { "No" };
            questions.push(question(
                format!("Is there a shape in {colour}?"),
                answer.to_owned(),
            ));
        }
        questions
    }

    fn count(&self, condition: impl Fn(&PlacedShape) -> bool) -> usize {
        self.shapes()
            .iter()
            .filter(|shape| condition(shape))
            .count()
    }
}

/// `a small red circle`.
fn with_article(shape: &PlacedShape) -> String {
    format!("a {} {} {}", shape.size, shape.colour, shape.kind)
}

/// `1 ring`, `2 rings`.
fn counted(count: usize, noun: &str) -> String {
    if count == 1 {
        format!("1 {noun}")
    } else {
        format!("{count} {}", plural(noun))
    }
}

fn plural(noun: &str) -> String {
    if noun.ends_with('s') {
        format!("{noun}es")
    } else {
        format!("{noun}s")
    }
}

/// `a`, `a and b`, `a, b and c`.
pub(super) fn enumerated(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

impl fmt::Display for ShapeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Circle => "circle",
            Self::Square => "square",
            Self::Triangle => "triangle",
            Self::Diamond => "diamond",
            Self::Cross => "cross",
            Self::Ring => "ring",
        })
    }
}

impl fmt::Display for Colour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Red => "red",
            Self::Orange => "orange",
            Self::Yellow => "yellow",
            Self::Green => "green",
            Self::Blue => "blue",
            Self::Purple => "purple",
            Self::Brown => "brown",
            Self::Black => "black",
        })
    }
}

impl fmt::Display for Background {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::White => "white",
            Self::Grey => "grey",
            Self::Beige => "beige",
            Self::Black => "black",
            Self::Pink => "pink",
        })
    }
}

impl fmt::Display for ShapeSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Small => "small",
            Self::Large => "large",
        })
    }
}
