//! Paths below the data directory, by name or by pattern.

use std::path::{Component, Path, PathBuf};

use super::io_error;
use crate::error::Result;

/// Joins `relative` to `dir`; returns `None` if the path leads outside `dir`.
pub(crate) fn path_below(dir: &Path, relative: &str) -> Option<PathBuf> {
    let relative = Path::new(relative);
    let stays = relative
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    stays.then(|| dir.join(relative))
}

/// Returns the files that match a pattern, ordered by name. The last component may contain one `*`,
/// which matches any characters: publishers split large tables into numbered files.
///
/// # Errors
/// [`DataError::Io`](crate::DataError::Io) if the folder exists but cannot be listed.
pub(crate) fn matching_files(dir: &Path, pattern: &str) -> Result<Vec<PathBuf>> {
    let path = dir.join(pattern);
    let name = path.file_name().and_then(|name| name.to_str());
    let Some((start, end)) = name.and_then(|name| name.split_once('*')) else {
        let found = path.is_file().then_some(path);
        return Ok(found.into_iter().collect());
    };
    let folder = path.parent().unwrap_or(dir);
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for entry in folder.read_dir().map_err(io_error(folder))? {
        let entry = entry.map_err(io_error(folder))?;
        let matches = entry.file_name().to_str().is_some_and(|name| {
            name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end)
        });
        if matches && entry.path().is_file() {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_the_directory() {
        let dir = Path::new("data");
        assert_eq!(path_below(dir, "a/b.png"), Some(dir.join("a/b.png")));
        for outside in ["../a.png", "a/../../b.png", "/etc/passwd"] {
            assert_eq!(path_below(dir, outside), None, "{outside}");
        }
    }

    #[test]
    fn patterns_find_numbered_files_in_order() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "test-1.parquet",
            "test-0.parquet",
            "train-0.parquet",
            "test",
        ] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let names = |pattern| {
            let files = matching_files(dir.path(), pattern).unwrap();
            let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
            files.iter().map(name).collect::<Vec<_>>()
        };
        assert_eq!(
            names("test-*.parquet"),
            ["test-0.parquet", "test-1.parquet"]
        );
        assert_eq!(names("test"), ["test"]);
        assert!(names("absent").is_empty());
        assert!(names("absent/*.json").is_empty());
    }
}
