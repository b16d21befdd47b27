//! Prose descriptions of scenes in the vocabulary of the tiny models in `fixtures`, the training
//! answers of a target.

mod varied;

use serde::{Deserialize, Serialize};

use super::scene::{Background, Colour, PlacedShape, Scene, ShapeKind};
use super::words::enumerated;

/// A request and the form of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Telling {
    /// One sentence.
    Sentence,
    /// One sentence for each shape.
    List,
    /// A description that proceeds from shape to shape.
    Walk,
    /// A description that ends with a title.
    Titled,
}

impl Telling {
    /// All forms.
    pub const ALL: [Self; 4] = [Self::Sentence, Self::List, Self::Walk, Self::Titled];

    /// Returns the text of the request.
    #[must_use]
    pub fn request(self) -> &'static str {
        match self {
            Self::Sentence => "What is in this picture?",
            Self::List => "Please tell me what you see here.",
            Self::Walk => "Describe the image in detail.",
            Self::Titled => "Write a long description of this picture.",
        }
    }
}

/// How much the wording of an answer depends on the scene.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wording {
    /// Each request has one fixed frame, filled with the names of the objects.
    #[default]
    Even,
    /// Background, form, size and place also select the wording of a sentence, so that a model
    /// cannot guess it without seeing the picture.
    Varied,
}

impl Scene {
    /// Returns the description of the scene that answers a request.
    #[must_use]
    pub fn told(&self, telling: Telling, wording: Wording) -> String {
        match wording {
            Wording::Even => self.told_evenly(telling),
            Wording::Varied => varied::told(self, telling, |shape| self.place(shape)),
        }
    }

    fn told_evenly(&self, telling: Telling) -> String {
        let ground = self.background();
        let feeling = likeness_of_ground(ground);
        match telling {
            Telling::Sentence => {
                let shapes = self.each(|shape| format!("a {}", full_name(shape)));
                format!(
                    "The picture shows {} on a {ground} background.",
                    enumerated(&shapes)
                )
            }
            Telling::List => {
                let shapes = self.each(|shape| {
                    format!(
                        " There is a {} in the {}.",
                        full_name(shape),
                        self.place(shape)
                    )
                });
                format!("The background is {ground}.{}", shapes.concat())
            }
            Telling::Walk => {
                let shapes = self.each(|shape| {
                    format!(
                        " Look at the {}, where a {} has been drawn. It seems {}, and its form \
                         reminds people of {}.",
                        self.place(shape),
                        full_name(shape),
                        mood(shape.colour),
                        likeness(shape.kind),
                    )
                });
                format!(
                    "This is a simple picture with a {ground} background, which feels like {feeling}.{} In \
                     short, the {} and the {ground} space around make a clear and friendly composition.",
                    shapes.concat(),
                    enumerated(&self.each(short_name)),
                )
            }
            Telling::Titled => {
                let shapes = self.each(|shape| {
                    format!(
                        " A {} sits in the {}, looks like {} and feels {}.",
                        full_name(shape),
                        self.place(shape),
                        likeness(shape.kind),
                        mood(shape.colour),
                    )
                });
                format!(
                    "First, the background is {ground}, so it looks like {feeling}.{} If I had to give it a \
                     title, I would call it the {} in {feeling}.",
                    shapes.concat(),
                    enumerated(&self.each(short_name)),
                )
            }
        }
    }

    /// Names the place of a shape: a corner in grids of two rows and columns, otherwise row and
    /// column.
    fn place(&self, shape: &PlacedShape) -> String {
        match self.style().cells() {
            2 => format!(
                "{} {} corner",
                if shape.row == 0 { "top" } else { "bottom" },
                if shape.column == 0 { "left" } else { "right" },
            ),
            _ => format!("place {} of row {}", shape.column + 1, shape.row + 1),
        }
    }

    fn each(&self, told: impl Fn(&PlacedShape) -> String) -> Vec<String> {
        self.shapes().iter().map(told).collect()
    }
}

/// `large red circle`.
fn full_name(shape: &PlacedShape) -> String {
    format!("{} {} {}", shape.size, shape.colour, shape.kind)
}

/// `red circle`.
fn short_name(shape: &PlacedShape) -> String {
    format!("{} {}", shape.colour, shape.kind)
}

fn mood(colour: Colour) -> &'static str {
    match colour {
        Colour::Red | Colour::Orange | Colour::Yellow => "warm and loud",
        Colour::Green | Colour::Blue => "cool and quiet",
        Colour::Purple => "strange and royal",
        Colour::Brown | Colour::Black => "cool and still",
    }
}

fn likeness(kind: ShapeKind) -> &'static str {
    match kind {
        ShapeKind::Circle => "a round coin",
        ShapeKind::Square => "a wooden box",
        ShapeKind::Triangle => "a tall mountain",
        ShapeKind::Diamond => "a clear stone",
        ShapeKind::Cross => "a road sign",
        ShapeKind::Ring => "a round door",
    }
}

fn likeness_of_ground(ground: Background) -> &'static str {
    match ground {
        Background::White => "a clean room",
        Background::Grey => "a foggy street",
        Background::Beige => "a quiet beach",
        Background::Black => "a night sky",
        Background::Pink => "a candy shop",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenes::{Palette, SceneStyle};

    fn pairs() -> impl Iterator<Item = (Telling, Wording)> {
        let wordings = [Wording::Even, Wording::Varied];
        Telling::ALL
            .into_iter()
            .flat_map(move |telling| wordings.map(|wording| (telling, wording)))
    }

    #[test]
    fn every_telling_names_every_shape() {
        let style = SceneStyle::new(84, 2, 1..=4).unwrap();
        let style = style.with_palette(Palette::Carried);
        for index in 0..50 {
            let scene = Scene::generate(&style, 3, index);
            for (telling, wording) in pairs() {
                let told = scene.told(telling, wording);
                assert!(told.contains(&scene.background().to_string()), "{told}");
                for shape in scene.shapes() {
                    for word in full_name(shape).split(' ') {
                        assert!(told.contains(word), "{told}");
                    }
                }
            }
        }
    }
}
