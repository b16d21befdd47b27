//! Videos as folders of frames.

use std::io;
use std::path::{Path, PathBuf};

/// Extensions of image files that count as frames.
const EXTENSIONS: [&str; 5] = ["png", "jpg", "jpeg", "webp", "bmp"];

/// Lists the image files in a folder in the order of their names. Shorter names come first, so that
/// 10 comes after 9 even without zero padding. Hidden files are skipped.
///
/// # Errors
/// If the folder cannot be listed.
pub fn frame_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut frames = Vec::new();
    for entry in folder.read_dir()? {
        let path = entry?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        let is_image = extension
            .is_some_and(|extension| EXTENSIONS.contains(&extension.to_ascii_lowercase().as_str()));
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if is_image && !hidden {
            frames.push(path);
        }
    }
    frames.sort_by_key(|path| (path.as_os_str().len(), path.clone()));
    Ok(frames)
}
