//! Checks the carried models and cases against their manifest of SHA-256 sums.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

/// Name of the manifest, in the format that `sha256sum` writes and checks.
const MANIFEST: &str = "MANIFEST";

/// Checks that every listed file has its sum and that every file is listed.
pub(crate) fn check(dir: &Path) -> Result<()> {
    let manifest = dir.join(MANIFEST);
    let text = fs::read_to_string(&manifest).with_context(|| manifest.display().to_string())?;
    let mut listed = BTreeSet::new();
    for line in text.lines() {
        let Some((sum, name)) = line.split_once("  ") else {
            bail!("{}: not a line of sha256sum: {line:?}", manifest.display());
        };
        let path = dir.join(name.trim_start_matches("./"));
        let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
        let found = Sha256::digest(&bytes)
            .iter()
            .fold(String::new(), |mut hex, byte| {
                // Writing to a string cannot fail.
                let _ = write!(hex, "{byte:02x}");
                hex
            });
        if found != sum {
            bail!(
                "{}: SHA-256 is {found}, the manifest says {sum}",
                path.display()
            );
        }
        listed.insert(path);
    }
    let unlisted: Vec<_> = files(dir)?
        .into_iter()
        .filter(|path| !listed.contains(path))
        .collect();
    if let Some(path) = unlisted.first() {
        bail!(
            "{}: not in the manifest, and {} more",
            path.display(),
            unlisted.len() - 1
        );
    }
    Ok(())
}

/// Returns all files that a manifest must list.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
            let path = entry?.path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            if path.is_dir() {
                dirs.push(path);
            } else if name != MANIFEST && name != "README.md" {
                files.push(path);
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_carried_files_are_those_of_the_manifest() {
        check(&crate::root().join("fixtures")).unwrap();
    }

    #[test]
    fn changed_and_unlisted_files_are_found() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "a\n").unwrap();
        let sum = "87428fc522803d31065e7bce3cf03fe475096631e5e07bbd7a0fde60c4cf25c7";
        fs::write(dir.path().join(MANIFEST), format!("{sum}  ./a\n")).unwrap();
        check(dir.path()).unwrap();
        fs::write(dir.path().join("b"), "b\n").unwrap();
        assert!(
            check(dir.path())
                .unwrap_err()
                .to_string()
                .contains("not in the manifest")
        );
        fs::remove_file(dir.path().join("b")).unwrap();
        fs::write(dir.path().join("a"), "changed\n").unwrap();
        assert!(
            check(dir.path())
                .unwrap_err()
                .to_string()
                .contains("SHA-256")
        );
    }
}
