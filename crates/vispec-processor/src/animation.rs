//! Animated GIF and WebP files as videos.

mod gif;
mod webp;

use std::time::Duration;

use ::image::{ImageFormat, guess_format};

use self::gif::GifFrames;
use self::webp::WebPFrames;
use crate::decoded_image::DecodedImage;
use crate::error::{ProcessorError, Result};
use crate::image_options::ImageOptions;
use crate::image_size::ImageSize;
use crate::video::{Video, check_pixels};

/// Maximum number of frames of an animation, whether sampled or not.
const MAX_FRAMES: usize = 10_000;
/// Maximum number of pixels of all frames of an animation, whether sampled or not. Each frame is
/// drawn because the next may need it.
const MAX_DRAWN: usize = 1 << 29;
/// How long a frame without a duration is shown, as in browsers.
const SHORTEST: Duration = Duration::from_millis(100);
/// Name of an animation in errors.
const NAME: &str = "animation in memory";

impl Video {
    /// Reads two frames per second of an animated GIF or WebP, as selected by
    /// [`sampled`](Self::sampled).
    ///
    /// The frame rate is the number of frames divided by the total duration. Pixels on which
    /// nothing was drawn are black.
    ///
    /// # Arguments
    /// * `max_pixels` - maximum number of pixels of all sampled frames.
    ///
    /// # Errors
    /// [`ProcessorError::NotAnImage`] for other files; [`ProcessorError::DamagedImage`],
    /// [`ProcessorError::EmptyImage`] and [`ProcessorError::ImageTooLarge`];
    /// [`ProcessorError::VideoFrames`] with more than 10 000 frames;
    /// [`ProcessorError::VideoTooLarge`] if the sampled frames have more than `max_pixels` pixels,
    /// or all frames more than 2^29.
    pub fn from_animation(bytes: &[u8], options: &ImageOptions, max_pixels: usize) -> Result<Self> {
        match guess_format(bytes) {
            Ok(ImageFormat::Gif) => read(GifFrames::open(bytes)?, options, max_pixels),
            Ok(ImageFormat::WebP) => read(WebPFrames::open(bytes)?, options, max_pixels),
            Ok(_) | Err(_) => Err(ProcessorError::NotAnImage {
                image: NAME.to_owned(),
                supported: "animated gif, animated webp",
            }),
        }
    }
}

/// A file whose frames are drawn one after the other. No memory for pixels is allocated before the
/// first of them.
trait Frames {
    /// Returns the width and height in pixels.
    fn dimensions(&self) -> (u32, u32);

    /// Returns the number of frames; if there are more than [`MAX_FRAMES`], any number above it.
    fn count(&self) -> usize;

    /// Returns the total duration of the frames.
    fn duration(&self) -> Duration;

    /// Draws the next frame.
    fn draw(&mut self) -> Result<()>;

    /// Returns the canvas, `[height, width, 3]`.
    fn rgb(&self) -> Vec<u8>;
}

fn read(mut file: impl Frames, options: &ImageOptions, max_pixels: usize) -> Result<Video> {
    let (width, height) = file.dimensions();
    options.check(NAME, (width, height), options.max_pixels)?;
    let size = ImageSize::new(height as usize, width as usize);
    let total = file.count();
    if total > MAX_FRAMES {
        return Err(ProcessorError::VideoFrames {
            found: total,
            min: 1,
            max: Some(MAX_FRAMES),
        });
    }
    check_pixels(size, total, MAX_DRAWN)?;
    let fps = total as f64 / file.duration().as_secs_f64();
    let mut drawn = 0;
    Video::sampled((total, fps), max_pixels, |place| {
        while drawn <= place {
            file.draw()?;
            drawn += 1;
        }
        DecodedImage::from_rgb8(size, file.rgb())
    })
}

fn damaged(error: impl ToString) -> ProcessorError {
    ProcessorError::DamagedImage {
        image: NAME.to_owned(),
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests;
