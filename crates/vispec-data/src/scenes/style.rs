//! Settings that scenes share.

use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::Deserialize;

/// Minimum size of a cell in pixels, so that shapes can be distinguished.
const MIN_CELL: u32 = 10;
/// Maximum side of a picture in pixels.
const MAX_SIDE: u32 = 8192;
/// Maximum number of cells per side.
const MAX_CELLS: u32 = 9;

/// The available colours and forms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Palette {
    /// Eight colours and six forms on light backgrounds.
    #[default]
    Standard,
    /// The five colours, four forms and four backgrounds on which the tiny models in `fixtures`
    /// were trained; they know no others.
    Carried,
}

impl Palette {
    /// Names of all palettes in definitions.
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

/// The fields of a style before validation.
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
    /// Returns a style of square pictures of `side` pixels, with a grid of `cells` × `cells` cells
    /// and a number of shapes in the range `shapes`. Returns `None` if a cell would have fewer than
    /// 10 pixels, the side more than 8192 pixels or more than 9 cells, or if `shapes` is empty,
    /// starts at 0 or exceeds the number of cells.
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

    /// Returns the same style with another palette.
    #[must_use]
    pub fn with_palette(self, palette: Palette) -> Self {
        Self { palette, ..self }
    }

    /// Returns the available colours and forms.
    pub(crate) fn palette(&self) -> Palette {
        self.palette
    }

    /// Returns the width and height of the pictures in pixels.
    #[must_use]
    pub fn side(&self) -> u32 {
        self.side
    }

    /// Returns the number of rows and of columns of the grid.
    pub(crate) fn cells(&self) -> u32 {
        self.cells
    }

    /// Returns the minimum and maximum number of shapes.
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
