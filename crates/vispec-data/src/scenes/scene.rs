//! A scene: shapes and their places.

use super::style::{Palette, SceneStyle};
use crate::random::KeyedRandom;

/// Keys of a scene's random number streams.
pub(super) mod purpose {
    pub(crate) const SHAPES: u64 = 0;
    pub(crate) const QUESTION: u64 = 1;
}

/// Form of a shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ShapeKind {
    /// A disc.
    Circle,
    /// With sides parallel to those of the picture.
    Square,
    /// Pointing up.
    Triangle,
    /// A square standing on a corner.
    Diamond,
    /// Two bars that form an upright cross.
    Cross,
    /// A circle with a hole.
    Ring,
}

/// Colour of a shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "colours are their names")]
pub enum Colour {
    Red,
    Orange,
    Yellow,
    Green,
    Blue,
    Purple,
    Brown,
    Black,
}

/// Colour behind the shapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Background {
    White,
    Grey,
    Beige,
    Black,
    Pink,
}

/// Size of a shape relative to its cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ShapeSize {
    /// Half of the cell's width.
    Small,
    /// Nearly the whole width.
    Large,
}

impl ShapeKind {
    pub(super) const ALL: [Self; 6] = [
        Self::Circle,
        Self::Square,
        Self::Triangle,
        Self::Diamond,
        Self::Cross,
        Self::Ring,
    ];
}

impl Colour {
    pub(super) const ALL: [Self; 8] = [
        Self::Red,
        Self::Orange,
        Self::Yellow,
        Self::Green,
        Self::Blue,
        Self::Purple,
        Self::Brown,
        Self::Black,
    ];
}

impl Palette {
    /// Returns the backgrounds of scenes.
    fn backgrounds(self) -> &'static [Background] {
        match self {
            Self::Standard => &[Background::White, Background::Grey, Background::Beige],
            Self::Carried => &[
                Background::White,
                Background::Grey,
                Background::Black,
                Background::Pink,
            ],
        }
    }

    /// Returns the colours of shapes.
    fn colours(self) -> &'static [Colour] {
        match self {
            Self::Standard => &Colour::ALL,
            Self::Carried => &[
                Colour::Red,
                Colour::Yellow,
                Colour::Green,
                Colour::Blue,
                Colour::Purple,
            ],
        }
    }

    /// Returns the forms of shapes.
    fn kinds(self) -> &'static [ShapeKind] {
        match self {
            Self::Standard => &ShapeKind::ALL,
            Self::Carried => &[
                ShapeKind::Circle,
                ShapeKind::Square,
                ShapeKind::Triangle,
                ShapeKind::Cross,
            ],
        }
    }
}

/// A shape and its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlacedShape {
    /// Form.
    pub kind: ShapeKind,
    /// Colour.
    pub colour: Colour,
    /// Size.
    pub size: ShapeSize,
    /// Row of the grid, from 0 at the top.
    pub row: u32,
    /// Column of the grid, from 0 at the left.
    pub column: u32,
}

/// Shapes on a background, at most one per cell of a grid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scene {
    pub(super) style: SceneStyle,
    pub(super) background: Background,
    /// Ordered by row, then from left to right.
    pub(super) shapes: Vec<PlacedShape>,
    /// Key of the question about this scene.
    pub(super) question_key: (u64, u64),
}

impl Scene {
    /// Generates the scene with this seed and index.
    ///
    /// A scene uses few colours and forms, so that counting questions have answers above 1.
    #[must_use]
    pub fn generate(style: &SceneStyle, seed: u64, index: u64) -> Self {
        let mut random = KeyedRandom::new(seed, index, purpose::SHAPES);
        let palette = style.palette();
        let background = random.pick(palette.backgrounds());
        let colours: [Colour; 3] = std::array::from_fn(|_| random.pick(palette.colours()));
        let kinds: [ShapeKind; 3] = std::array::from_fn(|_| random.pick(palette.kinds()));
        let (min_shapes, max_shapes) = style.shapes().into_inner();
        let n_shapes = min_shapes as usize + random.below((max_shapes - min_shapes + 1) as usize);
        let mut cells: Vec<u32> = (0..style.cells() * style.cells()).collect();
        for place in 0..n_shapes {
            let other = place + random.below(cells.len() - place);
            cells.swap(place, other);
        }
        cells.truncate(n_shapes);
        cells.sort_unstable();
        let shapes = cells.into_iter().map(|cell| PlacedShape {
            kind: random.pick(&kinds),
            colour: random.pick(&colours),
            size: random.pick(&[ShapeSize::Small, ShapeSize::Large]),
            row: cell / style.cells(),
            column: cell % style.cells(),
        });
        Self {
            shapes: shapes.collect(),
            style: *style,
            background,
            question_key: (seed, index),
        }
    }

    /// Returns the scene after `steps` steps. In each step all shapes move by one cell, either
    /// along the rows or down the columns depending on the scene; shapes that leave on one side
    /// reappear on the other.
    #[must_use]
    pub fn moved(&self, steps: u32) -> Self {
        let cells = self.style.cells();
        let along = |place: u32| (place + steps % cells) % cells;
        let sideways = self.question_key.1.is_multiple_of(2);
        let shapes = self.shapes.iter().map(|&shape| {
            if sideways {
                PlacedShape {
                    column: along(shape.column),
                    ..shape
                }
            } else {
                PlacedShape {
                    row: along(shape.row),
                    ..shape
                }
            }
        });
        let mut shapes = Vec::from_iter(shapes);
        shapes.sort_unstable_by_key(|shape| (shape.row, shape.column));
        Self {
            shapes,
            ..self.clone()
        }
    }

    /// Returns the size of the picture and of the grid.
    pub(crate) fn style(&self) -> &SceneStyle {
        &self.style
    }

    /// Returns the background behind the shapes.
    pub(crate) fn background(&self) -> Background {
        self.background
    }

    /// Returns the shapes, row by row from left to right; never empty.
    #[must_use]
    pub fn shapes(&self) -> &[PlacedShape] {
        &self.shapes
    }
}
