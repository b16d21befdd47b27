//! Videos as callers provide them, and how they are decoded.

use std::borrow::Cow;

use vispec_processor::{DecodedImage, ImageOptions, ProcessorError, Video};

/// A video as the caller provides it.
#[derive(Debug, Clone, PartialEq)]
pub enum VideoInput {
    /// Contents of image files, decoded when the request's turn comes; two frames per second are
    /// sampled.
    Frames {
        /// The files, in order.
        files: Vec<Vec<u8>>,
        /// Frames per second.
        fps: f64,
    },
    /// Content of an animated GIF or WebP, decoded when the request's turn comes.
    Animation(Vec<u8>),
    /// Decoded frames.
    Decoded(Video),
}

/// An error in a video.
pub(crate) struct VideoError {
    /// Index of the video, from 0.
    pub(crate) index: usize,
    /// Index of the faulty frame, if the error is in one frame.
    pub(crate) frame: Option<usize>,
    pub(crate) error: ProcessorError,
}

/// Decodes the videos of a request. Together they may take as much memory as a single video.
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
