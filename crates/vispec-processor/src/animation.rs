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

/// Frames of an animation at most, looked at or not.
const MAX_FRAMES: usize = 10_000;
/// Pixels of all frames of an animation at most, looked at or not: each is drawn, because the next
/// may need it.
const MAX_DRAWN: usize = 1 << 29;
/// How long a frame is shown that says it is shown for no time, as browsers have it.
const SHORTEST: Duration = Duration::from_millis(100);
/// What errors call an animation.
const NAME: &str = "animation in memory";

impl Video {
    /// The frames of an animated GIF or WebP, two of each second, as [`sampled`](Self::sampled)
    /// chooses them. Frames per second are their number over how long they are shown together. Where
    /// nothing was drawn is black.
    ///
    /// # Arguments
    /// * `max_pixels` - pixels of all frames that are looked at, at most.
    ///
    /// # Errors
    /// [`ProcessorError::NotAnImage`] for other files; [`ProcessorError::DamagedImage`],
    /// [`ProcessorError::EmptyImage`] and [`ProcessorError::ImageTooLarge`];
    /// [`ProcessorError::VideoFrames`] with more than 10 000 frames;
    /// [`ProcessorError::VideoTooLarge`] if those that are looked at have more pixels than may be, or
    /// all frames more than 2^29.
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

/// A file whose frames are drawn one after the other. Nothing is allocated for pixels before the
/// first of them.
trait Frames {
    /// Width and height in pixels.
    fn dimensions(&self) -> (u32, u32);

    /// Number of frames; of very many, more than [`MAX_FRAMES`].
    fn count(&self) -> usize;

    /// How long they are shown together.
    fn duration(&self) -> Duration;

    /// Draws the next frame.
    fn draw(&mut self) -> Result<()>;

    /// What is drawn, `[height, width, 3]`.
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
