//! What scenes have in common.

use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::Deserialize;

/// Pixels that a cell needs for its shapes to be told apart.
const MIN_CELL: u32 = 10;
/// Longest side of a picture.
const MAX_SIDE: u32 = 8192;
/// Most cells per side.
const MAX_CELLS: u32 = 9;

/// Which colours and forms there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Palette {
    /// Eight colours and six forms on light grounds.
    #[default]
    Standard,
    /// The five colours, four forms and four grounds of the pictures that the tiny models in
    /// `fixtures` were trained on; they know no others.
    Carried,
}

impl Palette {
    /// Names of all palettes, as they are written in definitions.
    pub(crate) const NAMES: [(&str, Self); 2] =
        [("standard", Self::Standard), ("carried", Self::Carried)];
}

impl FromStr for Palette {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::NAMES.into_iter().find(|(name, _)| *name == text);
        found.map(|(_, palette)| palette).ok_or_else(|| {
            let names = Self::NAMES.map(|(name, _)| name);
            format!("{text:?}, expected {}", names.join(" or "))
        })
    }
}

/// Size of the pictures and number of shapes in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "StyleFields")]
pub struct SceneStyle {
    side: u32,
    cells: u32,
    min_shapes: u32,
    max_shapes: u32,
    palette: Palette,
}

/// A style as it is written, before it is checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StyleFields {
    side: u32,
    cells: u32,
    min_shapes: u32,
    max_shapes: u32,
    #[serde(default)]
    palette: Palette,
}

impl SceneStyle {
    /// Square pictures of `side` pixels with `cells` times `cells` places, of which a number in
    /// `shapes` is taken. `None` if a cell would have fewer than 10 pixels, the side more than
    /// 8192, a side more than 9 cells, or if there are no shapes or more than places.
    #[must_use]
    pub fn new(side: u32, cells: u32, shapes: RangeInclusive<u32>) -> Option<Self> {
        let (min_shapes, max_shapes) = shapes.into_inner();
        let is_sound = (1..=MAX_CELLS).contains(&cells)
            && (MIN_CELL * cells..=MAX_SIDE).contains(&side)
            && (1..=max_shapes).contains(&min_shapes)
            && max_shapes <= cells * cells;
        is_sound.then_some(Self {
            side,
            cells,
            min_shapes,
            max_shapes,
            palette: Palette::Standard,
        })
    }

    /// The same with other colours and forms.
    #[must_use]
    pub fn with_palette(self, palette: Palette) -> Self {
        Self { palette, ..self }
    }

    /// Which colours and forms there are.
    #[must_use]
    pub(crate) fn palette(&self) -> Palette {
        self.palette
    }

    /// Width and height of the pictures in pixels.
    #[must_use]
    pub fn side(&self) -> u32 {
        self.side
    }

    /// Rows and columns of the grid.
    #[must_use]
    pub(crate) fn cells(&self) -> u32 {
        self.cells
    }

    /// Least and largest number of shapes.
    #[must_use]
    pub(crate) fn shapes(&self) -> RangeInclusive<u32> {
        self.min_shapes..=self.max_shapes
    }
}

impl TryFrom<StyleFields> for SceneStyle {
    type Error = String;

    fn try_from(fields: StyleFields) -> Result<Self, String> {
        let shapes = fields.min_shapes..=fields.max_shapes;
        let style = Self::new(fields.side, fields.cells, shapes);
        let style = style.map(|style| style.with_palette(fields.palette));
        style.ok_or_else(|| {
            format!(
                "the scenes need 1 to {MAX_CELLS} cells per side, a side of {MIN_CELL} pixels per \
                 cell to {MAX_SIDE} pixels, and 1 to cells x cells shapes"
            )
        })
    }
}
