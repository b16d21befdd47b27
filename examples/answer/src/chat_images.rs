//! The images of a chat from a file: given by flags, or by address.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use percent_encoding::percent_decode_str;
use vispec_processor::{DecodedImage, ImageOptions, ImagePlace, image_in_data_url, is_data_url};

use crate::failure::Failure;

/// Returns the path in a file URL; `None` if the URL is not a file URL of this machine.
#[must_use]
pub fn path_of_file_url(url: &str) -> Option<PathBuf> {
    let (scheme, rest) = url.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("file") {
        return None;
    }
    let path = rest.strip_prefix("localhost/").map_or(rest, |_| &rest[9..]);
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    Some(decoded.into_owned().into())
}

/// Reads the image of each place, in order: from its address, or the next of `given`, the files of
/// `--image`. Paths in `chat` are relative to its folder.
///
/// # Errors
/// If an image cannot be read or is on the web; the error names its place. If there are addresses,
/// also if `given` has too few or too many files; without addresses, the caller checks the count.
pub fn read(
    chat: &Path,
    places: &[ImagePlace],
    given: &[PathBuf],
    options: &ImageOptions,
) -> Result<Vec<DecodedImage>, Failure> {
    let open = |path| DecodedImage::open(path, options);
    let wanted = places.iter().filter(|place| **place == ImagePlace::Given);
    let wanted = wanted.count();
    if wanted == places.len() {
        return Ok(given.iter().map(open).collect::<Result<_, _>>()?);
    }
    if wanted != given.len() {
        let (place, images) = (chat.display(), given.len());
        let error = anyhow!(
            "{place}: {images} images were given, the chat has places for {wanted} without an address"
        );
        return Err(error.into());
    }
    let mut given = given.iter();
    let images = places.iter().filter_map(|place| match place {
        ImagePlace::Addressed { location, url } => Some(addressed(chat, location, url, options)),
        ImagePlace::Given => Some(open(given.next()?).map_err(Failure::from)),
    });
    images.collect()
}

fn addressed(
    chat: &Path,
    location: &str,
    url: &str,
    options: &ImageOptions,
) -> Result<DecodedImage, Failure> {
    let at = || format!("{}: {location}", chat.display());
    if is_data_url(url) {
        let file = image_in_data_url(url).map_err(|error| anyhow!("{} {error}", at()))?;
        let image = DecodedImage::from_bytes(&file, options).with_context(at)?;
        return Ok(image);
    }
    let path = match path_of_file_url(url) {
        Some(path) => path,
        None if url.contains("://") => {
            let expected = "a path, a file URL or a data URL; only serve --remote-images fetches";
            return Err(anyhow!("{} is {url:?}, expected {expected}", at()).into());
        }
        None => chat.parent().unwrap_or(Path::new("")).join(url),
    };
    Ok(DecodedImage::open(path, options).with_context(at)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_urls_name_paths() {
        let path = |url| path_of_file_url(url).map(|path| path.display().to_string());
        assert_eq!(path("file:///a%20b.png").as_deref(), Some("/a b.png"));
        assert_eq!(path("FILE://localhost/a.png").as_deref(), Some("/a.png"));
        assert_eq!(path("file://a.png").as_deref(), Some("a.png"));
        for other in ["https://x/a.png", "/a.png", "a.png", ""] {
            assert_eq!(path(other), None, "{other}");
        }
    }
}
