//! Rendering a scene in integer arithmetic, so that every machine draws the same pixels.

use image::{Rgb, RgbImage};

use super::scene::{Background, Colour, PlacedShape, Scene, ShapeKind, ShapeSize};
use super::style::Palette;

/// Length units per pixel.
const UNITS: i64 = 8;
/// Samples per pixel and direction; edges are antialiased by the share of samples inside a shape.
const SAMPLES: i64 = 4;

impl Scene {
    /// Draws the scene as a square picture with antialiased edges.
    #[must_use]
    pub fn draw(&self) -> RgbImage {
        let style = self.style();
        let ground = style.palette().background_rgb(self.background());
        let mut image = RgbImage::from_pixel(style.side(), style.side(), Rgb(ground));
        for shape in self.shapes() {
            let colour = style.palette().colour_rgb(shape.colour);
            draw_shape(&mut image, (shape, colour), style.cells());
        }
        image
    }
}

fn draw_shape(image: &mut RgbImage, (shape, colour): (&PlacedShape, [u8; 3]), cells: u32) {
    // Cells differ by one pixel if the side is not a multiple of the number of cells.
    let edge = |cell: u32| image.width() * cell / cells;
    let (left, right) = (edge(shape.column), edge(shape.column + 1));
    let (top, bottom) = (edge(shape.row), edge(shape.row + 1));
    let centre = |low: u32, high: u32| i64::from(low + high) * UNITS / 2;
    let (centre_x, centre_y) = (centre(left, right), centre(top, bottom));
    let cell = i64::from((right - left).min(bottom - top)) * UNITS;
    let radius = match shape.size {
        ShapeSize::Small => cell * 26 / 100,
        ShapeSize::Large => cell * 45 / 100,
    };
    // Centre of a sample within its pixel.
    let sample = |idx: i64| (2 * idx + 1) * UNITS / (2 * SAMPLES);
    for y in top..bottom {
        for x in left..right {
            let mut inside = 0;
            for row in 0..SAMPLES {
                for column in 0..SAMPLES {
                    let dx = i64::from(x) * UNITS + sample(column) - centre_x;
                    let dy = i64::from(y) * UNITS + sample(row) - centre_y;
                    inside += u16::from(is_inside(shape.kind, dx, dy, radius));
                }
            }
            let pixel = image.get_pixel_mut(x, y);
            for (channel, value) in pixel.0.iter_mut().zip(colour) {
                *channel = blended(*channel, value, inside);
            }
        }
    }
}

/// Blends `inside` sixteenths of the shape's value over the value behind it.
fn blended(behind: u8, shape: u8, inside: u16) -> u8 {
    const ALL: u16 = (SAMPLES * SAMPLES) as u16;
    let sum = u16::from(behind) * (ALL - inside) + u16::from(shape) * inside;
    // A mean of two bytes is at most 255.
    ((sum + ALL / 2) / ALL) as u8
}

/// Returns whether a point, relative to the centre, is inside the shape.
fn is_inside(kind: ShapeKind, dx: i64, dy: i64, radius: i64) -> bool {
    let (width, height) = (dx.abs(), dy.abs());
    let squared = dx * dx + dy * dy;
    match kind {
        ShapeKind::Circle => squared <= radius * radius,
        ShapeKind::Ring => {
            let hole = radius * 55 / 100;
            (hole * hole..=radius * radius).contains(&squared)
        }
        ShapeKind::Square => width.max(height) <= radius * 85 / 100,
        ShapeKind::Diamond => width + height <= radius,
        ShapeKind::Cross => {
            let bar = radius * 30 / 100;
            width.max(height) <= radius && width.min(height) <= bar
        }
        // From the apex at the top to a base twice as wide as the radius.
        ShapeKind::Triangle => dy <= radius * 8 / 10 && width * 18 <= (dy + radius) * 10,
    }
}

impl Palette {
    fn background_rgb(self, background: Background) -> [u8; 3] {
        match (self, background) {
            (Self::Standard, Background::White) => [255, 255, 255],
            (Self::Standard, Background::Grey) => [190, 190, 190],
            (Self::Carried, Background::White) => [244, 244, 240],
            (Self::Carried, Background::Grey) => [134, 134, 138],
            (_, Background::Beige) => [240, 228, 200],
            (_, Background::Black) => [22, 22, 26],
            (_, Background::Pink) => [244, 168, 190],
        }
    }

    fn colour_rgb(self, colour: Colour) -> [u8; 3] {
        match (self, colour) {
            (Self::Standard, Colour::Red) => [215, 25, 30],
            (Self::Standard, Colour::Yellow) => [245, 215, 0],
            (Self::Standard, Colour::Green) => [30, 140, 50],
            (Self::Standard, Colour::Blue) => [30, 70, 205],
            (Self::Standard, Colour::Purple) => [130, 40, 160],
            (Self::Carried, Colour::Red) => [214, 38, 40],
            (Self::Carried, Colour::Yellow) => [236, 208, 40],
            (Self::Carried, Colour::Green) => [38, 160, 52],
            (Self::Carried, Colour::Blue) => [34, 78, 210],
            (Self::Carried, Colour::Purple) => [128, 44, 160],
            (_, Colour::Orange) => [245, 130, 15],
            (_, Colour::Brown) => [115, 65, 25],
            (_, Colour::Black) => [10, 10, 10],
        }
    }
}
