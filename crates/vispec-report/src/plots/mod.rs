//! Plots as SVG, and the same drawings as PNG.
//!
//! Charts are drawn by a small writer of SVG, because a report needs the same drawing in three
//! forms: a file for a README, pixels, and inline in a page whose colours follow the reader's
//! scheme. Pixels are made from the SVG by resvg with embedded fonts, so they look alike on every
//! machine.

mod axis;
mod bars;
mod canvas;
mod figures;
mod frame;
mod lines;
mod raster;
mod shares;
mod theme;

pub use bars::{Bar, BarGroup, BarUnit, GroupedBars};
pub(crate) use figures::all;
pub use figures::{Chart, Figure};
pub use lines::{Horizontal, Line, LineChart, LineUnit, Point, Stroke, XScale};
pub use raster::to_png;
pub use shares::{ShareRow, StackedShares};
pub use theme::Theme;
