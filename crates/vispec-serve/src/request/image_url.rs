//! Images inside data URLs.

use vispec_processor::{DataUrlError, image_in_data_url, is_data_url};

use super::RemotePolicy;
use crate::api_error::ApiError;
use crate::remote_image::RemoteImage;

/// The source of an image.
#[derive(Debug)]
pub(super) enum ImageSource {
    /// The content of the image file, from a data URL.
    Here(Vec<u8>),
    /// An image that has to be fetched.
    Remote(RemoteImage),
}

/// Parses an address.
///
/// # Errors
/// For broken data URLs, and for other addresses unless they may be fetched.
pub(super) fn read(
    location: &str,
    url: &str,
    remote: RemotePolicy,
) -> Result<ImageSource, ApiError> {
    if remote == RemotePolicy::Fetch && !is_data_url(url) {
        return Ok(ImageSource::Remote(RemoteImage::parse(location, url)?));
    }
    let file = image_in_data_url(url).map_err(|error| match error {
        DataUrlError::OtherScheme => ApiError::field(
            location,
            "remote_image",
            format!("{location} {error}; images are not fetched"),
        ),
        error => ApiError::field(location, "invalid_image", format!("{location} {error}")),
    })?;
    Ok(ImageSource::Here(file))
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

    #[test]
    fn errors_say_what_clients_can_act_upon() {
        let code = |url| {
            let error = read("url", url, RemotePolicy::Refuse).unwrap_err();
            error.body()["error"]["code"].clone()
        };
        assert_eq!(code("https://x/y.png"), "remote_image");
        assert_eq!(code("data:text/html;base64,QUI="), "invalid_image");
    }
}
