//! Images inside data URLs.

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::RemotePolicy;
use crate::api_error::ApiError;
use crate::remote_image::RemoteImage;

/// Base64 with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What an address of an image means.
#[derive(Debug)]
pub(super) enum ImageSource {
    /// It holds the image file.
    Here(Vec<u8>),
    /// The image has to be fetched.
    Remote(RemoteImage),
}

/// Reads an address.
///
/// # Errors
/// For broken data URLs, and for other addresses unless they may be fetched.
pub(super) fn read(
    location: &str,
    url: &str,
    remote: RemotePolicy,
) -> Result<ImageSource, ApiError> {
    let scheme = url.split(':').next().unwrap_or_default();
    if remote == RemotePolicy::Fetch && !scheme.eq_ignore_ascii_case("data") {
        return Ok(ImageSource::Remote(RemoteImage::parse(location, url)?));
    }
    bytes(location, url).map(ImageSource::Here)
}

/// The bytes of the image file in a data URL.
fn bytes(location: &str, url: &str) -> Result<Vec<u8>, ApiError> {
    let invalid = |code, message: String| ApiError::field(location, code, message);
    let expected = "expected data:image/...;base64,...";
    let scheme = url.split(':').next().unwrap_or_default();
    if !scheme.eq_ignore_ascii_case("data") {
        return Err(invalid(
            "remote_image",
            format!("{location} is not a data URL; images are not fetched, {expected}"),
        ));
    }
    let (header, data) = url[scheme.len()..].split_once(',').ok_or_else(|| {
        invalid(
            "invalid_image",
            format!("{location} has no comma, {expected}"),
        )
    })?;
    let Some(media_type) = header.strip_suffix(";base64") else {
        return Err(invalid(
            "invalid_image",
            format!("{location} is not in base64, {expected}"),
        ));
    };
    let media_type = media_type.trim_start_matches(':');
    if !media_type.is_empty() && !media_type.starts_with("image/") {
        return Err(invalid(
            "invalid_image",
            format!("{location} is not an image by its own account, {expected}"),
        ));
    }
    decode(data).map_err(|error| {
        invalid(
            "invalid_image",
            format!("{location} is not valid base64: {error}"),
        )
    })
}

/// The bytes that base64 stands for.
pub(super) fn decode(data: &str) -> Result<Vec<u8>, base64::DecodeError> {
    // Encoders that break lines are common, and such URLs lose their white space everywhere else.
    let data = if data.bytes().any(|byte| byte.is_ascii_whitespace()) {
        Cow::Owned(data.split_ascii_whitespace().collect())
    } else {
        Cow::Borrowed(data)
    };
    BASE64.decode(&*data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_web_are_kept_for_later_where_they_may_be() {
        let read = |url| read("url", url, RemotePolicy::Fetch);
        let fetched = ["https://x/y.png", "HTTP://x:8080/?q"];
        for url in fetched {
            assert!(matches!(read(url), Ok(ImageSource::Remote(_))), "{url}");
        }
        assert!(matches!(read("data:;base64,QUI"), Ok(ImageSource::Here(_))));
        for url in [
            "file:///etc/passwd",
            "ftp://x/y",
            "https://a:b@x/y",
            "https://",
            "y.png",
        ] {
            assert!(read(url).is_err(), "{url}");
        }
    }

    fn code(url: &str) -> serde_json::Value {
        bytes("url", url).unwrap_err().body()["error"]["code"].clone()
    }

    #[test]
    fn data_urls_are_decoded() {
        assert_eq!(bytes("url", "data:image/png;base64,QUI=").unwrap(), b"AB");
        assert_eq!(bytes("url", "DATA:;base64,QUI").unwrap(), b"AB");
    }

    #[test]
    fn base64_may_have_line_breaks() {
        let broken = "data:image/png;base64,\r\nQU\n I\t=\x0c\n";
        assert_eq!(bytes("url", broken).unwrap(), b"AB");
        assert_eq!(code("data:image/png;base64,QU\u{a0}I="), "invalid_image");
    }

    #[test]
    fn everything_else_is_refused() {
        for url in ["https://x/y.png", "file:///etc/passwd", "/etc/passwd", ""] {
            assert_eq!(code(url), "remote_image", "{url}");
        }
        for url in [
            "data:",
            "data:image/png,AB",
            "data:text/html;base64,QUI=",
            "data:image/png;base64,Q",
            "data:image/png;base64,%",
        ] {
            assert_eq!(code(url), "invalid_image", "{url}");
        }
    }
}
