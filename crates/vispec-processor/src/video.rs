//! Videos as frames with times, and the sampling of frames from longer videos.

use crate::decoded_image::DecodedImage;
use crate::error::{ProcessorError, Result};
use crate::image_size::ImageSize;

/// Maximum number of frames in a video.
const MAX_FRAMES: usize = 768;
/// Minimum number of frames sampled from a video that has that many, however short it is.
const MIN_SAMPLED: usize = 4;
/// Frames per second to sample, as in the published processors.
pub const SAMPLE_FPS: f64 = 2.0;

/// Frames sampled from a video, all of one size, with their times.
#[derive(Debug, Clone, PartialEq)]
pub struct Video {
    frames: Vec<DecodedImage>,
    /// Index of each frame in the source video.
    places: Vec<usize>,
    /// Frames per second of the source video.
    fps: f64,
    /// Frames per second after sampling.
    rate: f64,
}

impl Video {
    /// Maximum number of pixels of all frames together; they take 384 MiB.
    pub const MAX_PIXELS: usize = 128 << 20;

    /// Creates a video from all of its frames.
    ///
    /// # Errors
    /// [`ProcessorError::VideoRate`] if `fps` is not positive and finite,
    /// [`ProcessorError::VideoFrames`] without frames or with more than 768,
    /// [`ProcessorError::VideoFrameSize`] if frames differ in size,
    /// [`ProcessorError::VideoTooLarge`] if all frames together have more than 2^27 pixels.
    pub fn new(frames: Vec<DecodedImage>, fps: f64) -> Result<Self> {
        let places = (0..frames.len()).collect();
        let total = frames.len();
        Self::of_places(frames, places, (total, fps))
    }

    /// Samples two frames per second from a video, as selected by [`sampled_frames`].
    ///
    /// # Arguments
    /// * `total`, `fps` - number of frames of the video, and frames per second.
    /// * `max_pixels` - maximum number of pixels of all sampled frames, checked once the size of
    ///   the first frame is known.
    /// * `frame` - decodes the frame with an index; called only for sampled frames, in ascending
    ///   order.
    ///
    /// # Errors
    /// Same as [`new`](Self::new), and those of `frame`.
    pub fn sampled(
        (total, fps): (usize, f64),
        max_pixels: usize,
        frame: impl FnMut(usize) -> Result<DecodedImage>,
    ) -> Result<Self> {
        let places = sampled_frames(total, fps, SAMPLE_FPS)?;
        Self::chosen(places, (total, fps), max_pixels, frame)
    }

    /// Reads the frames of a video at chosen indices.
    ///
    /// # Arguments
    /// * `places` - indices of the frames, ascending.
    /// * `total`, `fps`, `max_pixels`, `frame` - same as for [`sampled`](Self::sampled).
    ///
    /// # Errors
    /// Same as [`sampled`](Self::sampled).
    pub fn chosen(
        places: Vec<usize>,
        (total, fps): (usize, f64),
        max_pixels: usize,
        mut frame: impl FnMut(usize) -> Result<DecodedImage>,
    ) -> Result<Self> {
        check_number(places.len())?;
        let mut frames: Vec<DecodedImage> = Vec::with_capacity(places.len());
        for &place in &places {
            let decoded = frame(place)?;
            if frames.is_empty() {
                check_pixels(decoded.size(), places.len(), max_pixels)?;
            }
            frames.push(decoded);
        }
        Self::of_places(frames, places, (total, fps))
    }

    /// Creates a video from frames sampled from a source video of `total` frames.
    ///
    /// # Arguments
    /// * `places` - indices of the frames in the source video, ascending, as returned by
    ///   [`sampled_frames`].
    /// * `fps` - frames per second of the source video.
    ///
    /// # Errors
    /// Same as [`new`](Self::new).
    ///
    /// # Panics
    /// If the numbers of places and frames differ.
    pub fn of_places(
        frames: Vec<DecodedImage>,
        places: Vec<usize>,
        (total, fps): (usize, f64),
    ) -> Result<Self> {
        assert_eq!(frames.len(), places.len(), "one place per frame");
        check_rate(fps)?;
        check_number(frames.len())?;
        let size = frames[0].size();
        for (index, frame) in frames.iter().enumerate() {
            if frame.size() != size {
                return Err(ProcessorError::VideoFrameSize {
                    index,
                    found: frame.size(),
                    expected: size,
                });
            }
        }
        check_pixels(size, frames.len(), Self::MAX_PIXELS)?;
        let rate = fps * frames.len() as f64 / total.max(frames.len()) as f64;
        Ok(Self {
            frames,
            places,
            fps,
            rate,
        })
    }

    /// Returns the frames, at least one.
    #[must_use]
    pub fn frames(&self) -> &[DecodedImage] {
        &self.frames
    }

    /// Returns the size of every frame.
    #[must_use]
    pub fn frame_size(&self) -> ImageSize {
        self.frames[0].size()
    }

    /// Returns the frames per second after sampling.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// Returns for each group of `len` frames the mean of the times of its first and last frame in
    /// seconds. A last group with fewer frames repeats its last frame.
    pub(crate) fn group_times(&self, len: usize) -> Vec<f64> {
        let groups = self.places.chunks(len);
        let time = |place: usize| place as f64 / self.fps;
        groups
            .map(|group| f64::midpoint(time(group[0]), time(group[group.len() - 1])))
            .collect()
    }
}

fn check_rate(fps: f64) -> Result<()> {
    if fps > 0.0 && fps.is_finite() {
        return Ok(());
    }
    Err(ProcessorError::VideoRate { found: fps })
}

fn check_number(found: usize) -> Result<()> {
    if (1..=MAX_FRAMES).contains(&found) {
        return Ok(());
    }
    Err(ProcessorError::VideoFrames {
        found,
        min: 1,
        max: Some(MAX_FRAMES),
    })
}

/// Fails if `frames` frames of this size have more than `limit` pixels together.
pub(crate) fn check_pixels(size: ImageSize, frames: usize, limit: usize) -> Result<()> {
    match size.area().checked_mul(frames) {
        Some(found) if found <= limit => Ok(()),
        found => Err(ProcessorError::VideoTooLarge {
            found: found.unwrap_or(usize::MAX),
            limit,
        }),
    }
}

/// Returns the indices of the frames to sample from a video of `total` frames.
///
/// `sample_fps` frames per second are spread evenly from the first frame to the last: at least four
/// if the video has that many, at most 768.
///
/// This is the rule of the published processor of Qwen3-VL. The processor of Qwen2.5-VL samples an
/// even number of frames.
///
/// # Errors
/// [`ProcessorError::VideoRate`] if a rate is not positive and finite,
/// [`ProcessorError::VideoFrames`] if `total` is 0.
pub fn sampled_frames(total: usize, fps: f64, sample_fps: f64) -> Result<Vec<usize>> {
    check_rate(fps)?;
    check_rate(sample_fps)?;
    if total == 0 {
        return check_number(total).map(|()| Vec::new());
    }
    let wanted = (total as f64 / fps * sample_fps) as usize;
    let count = wanted.clamp(MIN_SAMPLED, MAX_FRAMES).min(total);
    let last = total - 1;
    let step = last as f64 / (count - 1).max(1) as f64;
    let place = |index: usize| (index as f64 * step).round_ties_even() as usize;
    Ok((0..count).map(|index| place(index).min(last)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(height: usize, width: usize) -> DecodedImage {
        DecodedImage::from_rgb8(ImageSize::new(height, width), vec![0; height * width * 3]).unwrap()
    }

    #[test]
    fn rates_and_frames_that_make_no_sense_are_refused() {
        for fps in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let error = Video::new(vec![frame(2, 2)], fps).unwrap_err();
            assert!(matches!(error, ProcessorError::VideoRate { .. }), "{error}");
            assert!(sampled_frames(4, fps, 2.0).is_err());
            assert!(sampled_frames(4, 2.0, fps).is_err());
        }
        let error = Video::new(Vec::new(), 2.0).unwrap_err();
        assert!(matches!(
            error,
            ProcessorError::VideoFrames { found: 0, .. }
        ));
        let error = Video::new(vec![frame(1, 1); 769], 2.0).unwrap_err();
        assert!(matches!(
            error,
            ProcessorError::VideoFrames { found: 769, .. }
        ));
        let error = Video::new(vec![frame(2, 2), frame(2, 3)], 2.0).unwrap_err();
        assert!(matches!(
            error,
            ProcessorError::VideoFrameSize { index: 1, .. }
        ));
        let error = check_pixels(ImageSize::new(4000, 4000), 9, Video::MAX_PIXELS).unwrap_err();
        assert!(matches!(error, ProcessorError::VideoTooLarge { .. }));
        assert!(check_pixels(ImageSize::new(usize::MAX, 1), 2, usize::MAX).is_err());
    }

    #[test]
    fn what_is_left_has_a_rate_of_its_own() {
        let frames = vec![frame(1, 1); 4];
        let video = Video::of_places(frames, vec![0, 6, 13, 19], (20, 10.0)).unwrap();
        assert!((video.rate() - 2.0).abs() < 1e-12);
        let times = video.group_times(2);
        assert!((times[0] - 0.3).abs() < 1e-12 && (times[1] - 1.6).abs() < 1e-12);
        // An odd frame counts twice.
        let video = Video::new(vec![frame(1, 1); 3], 2.0).unwrap();
        assert_eq!(video.group_times(2), [0.25, 1.0]);
    }
}
