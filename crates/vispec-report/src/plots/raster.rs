//! Rendering of SVG to PNG.

use std::sync::{Arc, OnceLock};

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::fontdb::Database;
use resvg::usvg::{Options, Tree};

use crate::error::{ReportError, Result};

/// Pixels per unit of the drawing: enough for screens with a pixel ratio of 2.
pub(crate) const PIXELS_PER_UNIT: f32 = 2.0;

/// Renders a drawing with the embedded fonts. System fonts are ignored.
///
/// # Errors
/// Returns [`ReportError::Raster`] if the text is not SVG or the drawing is empty.
pub fn to_png(name: &str, svg: &str) -> Result<Vec<u8>> {
    let fault = |problem: String| ReportError::Raster {
        name: name.to_owned(),
        problem,
    };
    let options = Options {
        fontdb: fonts(),
        font_family: "Inter".to_owned(),
        ..Options::default()
    };
    let tree = Tree::from_str(svg, &options).map_err(|error| fault(error.to_string()))?;
    let size = tree.size().to_int_size();
    let scale = |length: u32| (f64::from(length) * f64::from(PIXELS_PER_UNIT)).ceil() as u32;
    let mut pixels = Pixmap::new(scale(size.width()), scale(size.height()))
        .ok_or_else(|| fault("it has no area".to_owned()))?;
    let transform = Transform::from_scale(PIXELS_PER_UNIT, PIXELS_PER_UNIT);
    resvg::render(&tree, transform, &mut pixels.as_mut());
    pixels
        .encode_png()
        .map_err(|error| fault(error.to_string()))
}

fn fonts() -> Arc<Database> {
    static FONTS: OnceLock<Arc<Database>> = OnceLock::new();
    Arc::clone(FONTS.get_or_init(|| {
        let mut fonts = Database::new();
        fonts.load_font_data(include_bytes!("../../assets/fonts/Inter-Regular.ttf").to_vec());
        fonts.load_font_data(include_bytes!("../../assets/fonts/Inter-SemiBold.ttf").to_vec());
        Arc::new(fonts)
    }))
}
