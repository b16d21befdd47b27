//! Plots as SVG, and the same drawings as PNG.
//!
//! The crate has its own small SVG writer, because a report needs the same drawing in three forms:
//! as a file for a README, as pixels, and inline in a page whose colours follow the reader's colour
//! scheme. resvg renders the PNG files from the SVG with embedded fonts, so they look the same on
//! every machine.

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
pub use figures::{Chart, Figure, depth_chart};
pub use lines::{Horizontal, Line, LineChart, LineUnit, Point, Stroke, XScale};
pub use raster::to_png;
pub use shares::{ShareRow, StackedShares};
pub use theme::Theme;
