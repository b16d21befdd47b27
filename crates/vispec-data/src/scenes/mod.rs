//! Drawn scenes: pictures of coloured shapes, with descriptions, questions and right answers.
//!
//! A [`Scene`] is a function of a [`SceneStyle`], a seed and an index, the same on every machine.
//! What it looks like and what can be said about it are computed from its list of shapes, so the
//! answers are right by construction. Neither depends on tasks: training data can be made of the
//! same scenes.

mod draw;
mod scene;
mod style;
mod telling;
mod words;

pub use scene::{Colour, PlacedShape, Scene, ShapeKind, ShapeSize};
pub use style::{Palette, SceneStyle};
pub use telling::{Telling, Wording};
pub use words::{Question, QuestionKind};
