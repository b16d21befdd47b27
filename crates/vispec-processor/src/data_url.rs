//! Images inside data URLs.

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Base64 with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why an address does not hold an image file. The messages continue a sentence that starts with
/// the location of the address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DataUrlError {
    /// The address is not a data URL.
    #[error("is not a data URL, expected data:image/...;base64,...")]
    OtherScheme,
    /// No comma separates the media type from the data.
    #[error("has no comma, expected data:image/...;base64,...")]
    NoComma,
    /// The data is not in base64.
    #[error("is not in base64, expected data:image/...;base64,...")]
    NotBase64,
    /// The declared media type is not an image type.
    #[error("does not declare an image type, expected data:image/...;base64,...")]
    NotImage,
    /// The data is not valid base64.
    #[error("is not valid base64: {source}")]
    Base64 {
        /// The error of the decoder.
        source: base64::DecodeError,
    },
}

/// Returns whether an address is a data URL.
#[must_use]
pub fn is_data_url(url: &str) -> bool {
    let scheme = url.split_once(':').map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("data"))
}

/// Returns the bytes of the image file in a data URL, without checking their content.
///
/// # Errors
/// [`DataUrlError`].
pub fn image_in_data_url(url: &str) -> Result<Vec<u8>, DataUrlError> {
    if !is_data_url(url) {
        return Err(DataUrlError::OtherScheme);
    }
    let (_, rest) = url.split_once(':').unwrap_or_default();
    let (header, data) = rest.split_once(',').ok_or(DataUrlError::NoComma)?;
    let media_type = header
        .strip_suffix(";base64")
        .ok_or(DataUrlError::NotBase64)?;
    if !media_type.is_empty() && !media_type.starts_with("image/") {
        return Err(DataUrlError::NotImage);
    }
    decode_base64(data).map_err(|source| DataUrlError::Base64 { source })
}

/// Decodes base64, with or without padding and line breaks.
///
/// # Errors
/// If a character is not in the base64 alphabet, or the length is invalid.
pub fn decode_base64(data: &str) -> Result<Vec<u8>, base64::DecodeError> {
    // Many encoders break lines, and other software removes the white space from such URLs.
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
    fn data_urls_are_decoded() {
        let bytes = |url| image_in_data_url(url).unwrap();
        assert_eq!(bytes("data:image/png;base64,QUI="), b"AB");
        assert_eq!(bytes("DATA:;base64,QUI"), b"AB");
    }

    #[test]
    fn base64_may_have_line_breaks() {
        let broken = "data:image/png;base64,\r\nQU\n I\t=\x0c\n";
        assert_eq!(image_in_data_url(broken).unwrap(), b"AB");
        let other = image_in_data_url("data:image/png;base64,QU\u{a0}I=");
        assert!(matches!(other, Err(DataUrlError::Base64 { .. })));
    }

    #[test]
    fn everything_else_is_refused() {
        let error = |url| image_in_data_url(url).unwrap_err();
        for url in [
            "https://x/y.png",
            "file:///etc/passwd",
            "/etc/passwd",
            "",
            "data",
        ] {
            assert_eq!(error(url), DataUrlError::OtherScheme, "{url}");
        }
        assert_eq!(error("data:"), DataUrlError::NoComma);
        assert_eq!(error("data:image/png,AB"), DataUrlError::NotBase64);
        assert_eq!(error("data:text/html;base64,QUI="), DataUrlError::NotImage);
        for url in ["data:image/png;base64,Q", "data:image/png;base64,%"] {
            assert!(matches!(error(url), DataUrlError::Base64 { .. }), "{url}");
        }
    }
}
