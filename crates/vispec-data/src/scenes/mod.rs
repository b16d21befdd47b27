//! Drawn scenes: pictures of coloured shapes, with descriptions, questions and correct answers.
//!
//! A [`Scene`] is a function of a [`SceneStyle`], a seed and an index, the same on every machine.
//! Its picture, descriptions and answers are all computed from its list of shapes, so the answers
//! are correct by construction. Scenes do not depend on tasks: training data can use the same
//! scenes.

mod draw;
mod scene;
mod style;
mod telling;
mod words;

pub use scene::{Colour, PlacedShape, Scene, ShapeKind, ShapeSize};
pub use style::{Palette, SceneStyle};
pub use telling::{Telling, Wording};
pub use words::{Question, QuestionKind};
