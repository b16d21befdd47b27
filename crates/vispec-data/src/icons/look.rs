//! Drawing an icon as a picture.

use resvg::tiny_skia::{Color, Pixmap, Transform};
use resvg::usvg::{Options, Tree};
use vispec_processor::{DecodedImage, ImageSize};

use crate::random::KeyedRandom;

/// Separates these random numbers from others with the same seed.
const PURPOSE: u64 = 0x6c6f_6f6b;

/// Placement and background of an icon.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Look {
    /// RGB colour of the background.
    pub background: [u8; 3],
    /// Side of the icon as a fraction of the picture's side.
    pub scale: f32,
    /// Centre of the icon, as fractions of the picture's sides.
    pub middle: [f32; 2],
    /// Rotation in degrees.
    pub turn: f32,
}

impl Look {
    /// Returns a centred icon on white.
    #[must_use]
    pub fn plain() -> Self {
        Self {
            background: [255; 3],
            scale: 0.9,
            middle: [0.5; 2],
            turn: 0.0,
        }
    }

    /// Returns a look that is a function of seed and number. The whole icon is inside the picture;
    /// the background is light, since drawings without colours are black.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "below 128")]
    pub fn random(seed: u64, number: u64) -> Self {
        let mut random = KeyedRandom::new(seed, number, PURPOSE);
        #[expect(clippy::cast_precision_loss, reason = "at most 1000")]
        let mut share =
            |from: f32, to: f32| from + (to - from) * random.below(1001) as f32 / 1000.0;
        let scale = share(0.6, 0.98);
        let turn = share(-12.0, 12.0);
        let room = (1.0 - scale) / 2.0;
        let middle = [0.5 + share(-room, room), 0.5 + share(-room, room)];
        let background = [(); 3].map(|()| 255 - random.below(100) as u8);
        Self {
            background,
            scale,
            middle,
            turn,
        }
    }
}

/// Draws an SVG; returns a message if that fails.
pub(super) fn draw(svg: &str, look: &Look, side: u32) -> Result<DecodedImage, String> {
    let tree = Tree::from_str(svg, &Options::default()).map_err(|error| error.to_string())?;
    let mut pixels = Pixmap::new(side, side).ok_or("a picture needs at least one pixel")?;
    let [red, green, blue] = look.background;
    let background = Color::from_rgba8(red, green, blue, 255);
    pixels.fill(background);
    #[expect(clippy::cast_precision_loss, reason = "sides are small")]
    let side_length = side as f32;
    let size = tree.size();
    let scale = look.scale * side_length / size.width().max(size.height());
    let [x, y] = look.middle.map(|share| share * side_length);
    let transform = Transform::from_translate(-size.width() / 2.0, -size.height() / 2.0)
        .post_scale(scale, scale)
        .post_rotate(look.turn)
        .post_translate(x, y);
    resvg::render(&tree, transform, &mut pixels.as_mut());
    let first = pixels.pixels()[0];
    if pixels.pixels().iter().all(|&pixel| pixel == first) {
        return Err("it shows nothing".to_owned());
    }
    let rgb = pixels.pixels().iter();
    let rgb = rgb.flat_map(|pixel| [pixel.red(), pixel.green(), pixel.blue()]);
    let size = ImageSize {
        height: side as usize,
        width: side as usize,
    };
    DecodedImage::from_rgb8(size, rgb.collect()).map_err(|error| error.to_string())
}
