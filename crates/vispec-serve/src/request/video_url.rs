//! Videos in data URLs: frames, or an animation.

use serde_json::Value;
use vispec::VideoInput;
use vispec_processor::decode_base64;

use super::RemotePolicy;
use super::fields::{Fields, missing, wrong};
use super::image_url::{self, ImageSource};
use crate::api_error::ApiError;

/// Frames per second if the request does not say.
const DEFAULT_FPS: f64 = 2.0;

/// The supported addresses, for messages.
const EXPECTED: &str = "expected data:video/jpeg;base64,<frame>,<frame>,..., \
                        data:image/gif;base64,... or data:image/webp;base64,...; \
                        convert other files to frames with ffmpeg -i FILE -vf fps=2 %05d.jpg";

/// Reads the video of a `video_url` part: an address, or an object with an address and optionally
/// `fps`.
///
/// # Errors
/// Names the field at fault, for example if there are more than `max_frames` frames.
pub(super) fn of_url(
    location: &str,
    value: Value,
    max_frames: usize,
) -> Result<VideoInput, ApiError> {
    let mut fields = match value {
        Value::String(url) => return read(location, &url, None, max_frames),
        value => Fields::of(location, value)?,
    };
    let (at, url) = (fields.location("url"), fields.required_string("url")?);
    let fps = fps(&mut fields)?;
    fields.end()?;
    read(&at, &url, fps, max_frames)
}

/// Reads the video of a `video` part, whose field `video` is an address or a list of addresses of
/// frames, and which may have a field `fps`.
///
/// # Errors
/// Same as [`of_url`].
pub(super) fn of_part(fields: &mut Fields, max_frames: usize) -> Result<VideoInput, ApiError> {
    let at = fields.location("video");
    let fps = fps(fields)?;
    let frames = match fields.value("video") {
        None => return Err(missing(&at)),
        Some(Value::String(url)) => return read(&at, &url, fps, max_frames),
        Some(Value::Array(frames)) => frames,
        Some(other) => return Err(wrong(&at, &other, "a string or a list of strings")),
    };
    check_number(&at, frames.len(), max_frames)?;
    let frames = frames.into_iter().enumerate();
    let files = frames.map(|(index, frame)| {
        let at = format!("{at}[{index}]");
        let Value::String(url) = frame else {
            return Err(wrong(&at, &frame, "a string"));
        };
        match image_url::read(&at, &url, RemotePolicy::Refuse)? {
            ImageSource::Here(file) => Ok(file),
            ImageSource::Remote(_) => Err(remote(&at)),
        }
    });
    Ok(VideoInput::Frames {
        files: files.collect::<Result<_, _>>()?,
        fps: fps.unwrap_or(DEFAULT_FPS),
    })
}

/// Reads the frames per second.
fn fps(fields: &mut Fields) -> Result<Option<f64>, ApiError> {
    let at = fields.location("fps");
    let found = fields.number("fps")?;
    match found.filter(|&fps| !(fps > 0.0 && fps.is_finite())) {
        None => Ok(found),
        Some(fps) => Err(ApiError::field(
            &at,
            "invalid_value",
            format!("{at} is {fps}, expected a number above 0"),
        )),
    }
}

fn read(
    location: &str,
    url: &str,
    fps: Option<f64>,
    max_frames: usize,
) -> Result<VideoInput, ApiError> {
    let invalid = |what: &str| {
        ApiError::field(
            location,
            "invalid_video",
            format!("{location} {what}, {EXPECTED}"),
        )
    };
    let scheme = url.split(':').next().unwrap_or_default();
    if !scheme.eq_ignore_ascii_case("data") {
        return Err(remote(location));
    }
    let split = url[scheme.len()..].split_once(',');
    let (header, data) = split.ok_or_else(|| invalid("has no comma"))?;
    let media_type = header.strip_suffix(";base64");
    let media_type = media_type.ok_or_else(|| invalid("is not in base64"))?;
    match media_type.trim_start_matches(':') {
        "video/jpeg" => {
            let found = 1 + data.bytes().filter(|&byte| byte == b',').count();
            check_number(location, found, max_frames)?;
            let frames = data.split(',').enumerate();
            let files = frames.map(|(index, frame)| {
                decode_base64(frame).map_err(|error| {
                    invalid(&format!(
                        "has a frame {index} that is not valid base64: {error}"
                    ))
                })
            });
            Ok(VideoInput::Frames {
                files: files.collect::<Result<_, _>>()?,
                fps: fps.unwrap_or(DEFAULT_FPS),
            })
        }
        "image/gif" | "image/webp" => {
            if fps.is_some() {
                return Err(invalid("is an animation, which has its own fps"));
            }
            let file = decode_base64(data);
            let file = file.map_err(|error| invalid(&format!("is not valid base64: {error}")))?;
            Ok(VideoInput::Animation(file))
        }
        other => Err(invalid(&format!("is of the type {other:?}"))),
    }
}

fn remote(location: &str) -> ApiError {
    let message = format!("{location} is not a data URL; videos are not fetched, {EXPECTED}");
    ApiError::field(location, "remote_video", message)
}

fn check_number(location: &str, found: usize, most: usize) -> Result<(), ApiError> {
    if found <= most {
        return Ok(());
    }
    Err(ApiError::field(
        location,
        "too_many_frames",
        format!(
            "{location} has {found} frames, but the videos of a request have at most {most} left"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn frames(video: VideoInput) -> (Vec<Vec<u8>>, f64) {
        match video {
            VideoInput::Frames { files, fps } => (files, fps),
            other => panic!("{other:?}"),
        }
    }

    fn part(value: Value) -> Result<VideoInput, ApiError> {
        let mut fields = Fields::of("part", value)?;
        of_part(&mut fields, 3)
    }

    #[test]
    fn frames_are_read_one_by_one() {
        let url = "data:video/jpeg;base64,QUI=,Q0Q=,RUY";
        let expected = vec![b"AB".to_vec(), b"CD".to_vec(), b"EF".to_vec()];
        let found = frames(of_url("url", json!({"url": url, "fps": 5}), 3).unwrap());
        assert_eq!(found, (expected.clone(), 5.0));
        let found = frames(of_url("url", json!(url), 3).unwrap());
        assert_eq!(found, (expected.clone(), 2.0));
        let list = ["QUI=", "Q0Q=", "RUY"].map(|data| format!("data:image/png;base64,{data}"));
        let found = frames(part(json!({"video": list, "fps": 0.5})).unwrap());
        assert_eq!(found, (expected, 0.5));
        for kind in ["gif", "webp"] {
            let url = format!("data:image/{kind};base64,QUI=");
            let animation = VideoInput::Animation(b"AB".to_vec());
            assert_eq!(part(json!({"video": url})).unwrap(), animation);
            assert_eq!(of_url("url", json!({"url": url}), 0).unwrap(), animation);
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let gif = "data:image/gif;base64,QUI=";
        for (value, code, place) in [
            (json!({"url": "https://x/y.mp4"}), "remote_video", "v.url"),
            (
                json!({"url": "file:///etc/passwd"}),
                "remote_video",
                "v.url",
            ),
            (
                json!({"url": "data:video/mp4;base64,QUI="}),
                "invalid_video",
                "v.url",
            ),
            (
                json!({"url": "data:video/jpeg,QUI="}),
                "invalid_video",
                "v.url",
            ),
            (
                json!({"url": "data:video/jpeg;base64"}),
                "invalid_video",
                "v.url",
            ),
            (
                json!({"url": "data:video/jpeg;base64,QUI=,%"}),
                "invalid_video",
                "v.url",
            ),
            (
                json!({"url": "data:video/jpeg;base64,,,,"}),
                "too_many_frames",
                "v.url",
            ),
            (json!({"url": gif, "fps": 2}), "invalid_video", "v.url"),
            (json!({"url": gif, "fps": 0}), "invalid_value", "v.fps"),
            (json!({"url": gif, "fps": -1.0}), "invalid_value", "v.fps"),
            (json!({"url": gif, "start": 1}), "unknown_field", "v.start"),
            (json!({}), "missing_field", "v.url"),
            (json!(7), "invalid_type", "v"),
        ] {
            let error = of_url("v", value.clone(), 3).unwrap_err();
            assert_eq!(
                (error.code(), error.param()),
                (code, Some(place)),
                "{value}"
            );
        }
        for (value, code, place) in [
            (json!({}), "missing_field", "part.video"),
            (json!({"video": 1}), "invalid_type", "part.video"),
            (json!({"video": [1]}), "invalid_type", "part.video[0]"),
            (
                json!({"video": ["https://x/y.png"]}),
                "remote_image",
                "part.video[0]",
            ),
            (
                json!({"video": ["", "", "", ""]}),
                "too_many_frames",
                "part.video",
            ),
            (json!({"video": [], "fps": "2"}), "invalid_type", "part.fps"),
        ] {
            let error = part(value.clone()).unwrap_err();
            assert_eq!(
                (error.code(), error.param()),
                (code, Some(place)),
                "{value}"
            );
        }
    }
}
