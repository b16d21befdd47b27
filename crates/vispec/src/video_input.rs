//! Videos as callers have them, and what is read of them.

use std::borrow::Cow;

use vispec_processor::{DecodedImage, ImageOptions, ProcessorError, Video};

/// A video as the caller has it.
#[derive(Debug, Clone, PartialEq)]
pub enum VideoInput {
    /// The contents of image files, decoded when their turn has come; two a second are looked at.
    Frames {
        /// The files, in order.
        files: Vec<Vec<u8>>,
        /// How many of them make a second.
        fps: f64,
    },
    /// The content of an animated GIF or WebP, read when its turn has come.
    Animation(Vec<u8>),
    /// Frames to look at.
    Decoded(Video),
}

/// What is wrong with a video.
pub(crate) struct VideoError {
    /// Its number, from 0.
    pub(crate) index: usize,
    /// The frame at fault, if it is one.
    pub(crate) frame: Option<usize>,
    pub(crate) error: ProcessorError,
}

/// Decodes the videos of a request, which together take as much memory as one may.
pub(crate) fn read_all<'a>(
    videos: &'a [VideoInput],
    options: &ImageOptions,
) -> Result<Vec<Cow<'a, Video>>, VideoError> {
    let mut left = Video::MAX_PIXELS;
    let mut read = Vec::with_capacity(videos.len());
    for (index, video) in videos.iter().enumerate() {
        let mut frame = None;
        let video = match video {
            VideoInput::Decoded(video) => Ok(Cow::Borrowed(video)),
            VideoInput::Animation(file) => {
                Video::from_animation(file, options, left).map(Cow::Owned)
            }
            VideoInput::Frames { files, fps } => {
                let sampled = Video::sampled((files.len(), *fps), left, |place| {
                    let decoded = DecodedImage::from_bytes(&files[place], options);
                    if decoded.is_err() {
                        frame = Some(place);
                    }
                    decoded
                });
                sampled.map(Cow::Owned)
            }
        };
        let video = video.map_err(|error| VideoError {
            index,
            frame,
            error,
        })?;
        let pixels = video.frame_size().area() * video.frames().len();
        left = left.saturating_sub(pixels);
        read.push(video);
    }
    Ok(read)
}
