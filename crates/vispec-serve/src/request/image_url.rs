//! Images inside data URLs.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::api_error::ApiError;

/// Base64 with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The bytes of the image file in a data URL.
///
/// # Errors
/// For any other address: this server opens no connections and no files for its clients.
pub(super) fn bytes(location: &str, url: &str) -> Result<Vec<u8>, ApiError> {
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
    BASE64.decode(data).map_err(|error| {
        invalid(
            "invalid_image",
            format!("{location} is not valid base64: {error}"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(url: &str) -> serde_json::Value {
        bytes("url", url).unwrap_err().body()["error"]["code"].clone()
    }

    #[test]
    fn data_urls_are_decoded() {
        assert_eq!(bytes("url", "data:image/png;base64,QUI=").unwrap(), b"AB");
        assert_eq!(bytes("url", "DATA:;base64,QUI").unwrap(), b"AB");
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
