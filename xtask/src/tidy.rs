//! House rules that no compiler checks.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Crates of the workspace that each library may use: dependencies point downwards only.
const MAY_USE: &[(&str, &[&str])] = &[
    (
        "vispec",
        &[
            "vispec-core",
            "vispec-grammar",
            "vispec-models",
            "vispec-processor",
        ],
    ),
    ("vispec-core", &[]),
    ("vispec-data", &["vispec-processor"]),
    ("vispec-grammar", &["vispec-core", "vispec-processor"]),
    ("vispec-kernels", &[]),
    ("vispec-processor", &[]),
    ("vispec-report", &[]),
    (
        "vispec-train",
        &[
            "vispec-core",
            "vispec-data",
            "vispec-kernels",
            "vispec-models",
            "vispec-processor",
        ],
    ),
    (
        "vispec-models",
        &["vispec-core", "vispec-kernels", "vispec-processor"],
    ),
    ("vispec-serve", &["vispec", "vispec-processor"]),
];

/// File names that do not describe their content.
const EMPTY_NAMES: &[&str] = &["utils.rs", "util.rs", "common.rs", "helpers.rs", "misc.rs"];

/// Checks all rules and reports every breach.
pub(crate) fn check(root: &Path) -> Result<()> {
    let mut breaches = Vec::new();
    for dir in ["crates", "examples", "xtask"] {
        for file in rust_files(&root.join(dir))? {
            check_file(&file, &mut breaches)?;
        }
    }
    check_dependencies(root, &mut breaches)?;
    if breaches.is_empty() {
        return Ok(());
    }
    bail!(
        "{} breaches of house rules:\n{}",
        breaches.len(),
        breaches.join("\n")
    )
}

fn rust_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        let entries = fs::read_dir(&dir).with_context(|| dir.display().to_string())?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() && !path.ends_with("target") {
                dirs.push(path);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn check_file(path: &Path, breaches: &mut Vec<String>) -> Result<()> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let mut breach = |what: &str| breaches.push(format!("{}: {what}", path.display()));
    if !text.starts_with("//!") {
        breach("the first line does not describe the file (//!)");
    }
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    if EMPTY_NAMES.contains(&name) {
        breach("the name says nothing about the content");
    }
    let is_library = path.components().any(|part| part.as_os_str() == "src")
        && path.components().any(|part| part.as_os_str() == "crates");
    if is_library && text.contains("env::var") {
        breach("libraries must read no environment variables");
    }
    for (idx, line) in text.lines().enumerate() {
        if line.ends_with([' ', '\t']) {
            breach(&format!("line {} ends in a blank", idx + 1));
        }
    }
    Ok(())
}

fn check_dependencies(root: &Path, breaches: &mut Vec<String>) -> Result<()> {
    let members: BTreeMap<&str, &[&str]> = MAY_USE.iter().copied().collect();
    for (name, allowed) in &members {
        let path = root.join("crates").join(name).join("Cargo.toml");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let dependencies = text
            .split_once("[dependencies]")
            .map(|(_, rest)| rest.split("\n[").next().unwrap_or(rest))
            .unwrap_or_default();
        for other in members.keys() {
            let used = dependencies.lines().any(|line| {
                line.strip_prefix(other)
                    .is_some_and(|rest| rest.starts_with(['.', ' ', '=']))
            });
            if used && !allowed.contains(other) {
                breaches.push(format!("{}: must not use {other}", path.display()));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_workspace_keeps_its_rules() {
        check(&crate::root()).unwrap();
    }

    #[test]
    fn breaches_are_named() {
        let dir = tempfile::tempdir().unwrap();
        for sub in [
            "crates/vispec",
            "crates/vispec-core",
            "crates/vispec-data",
            "crates/vispec-grammar",
            "crates/vispec-kernels",
            "crates/vispec-processor",
            "crates/vispec-report",
            "crates/vispec-train",
            "crates/vispec-serve",
        ] {
            fs::create_dir_all(dir.path().join(sub)).unwrap();
            fs::write(dir.path().join(sub).join("Cargo.toml"), "[dependencies]\n").unwrap();
        }
        fs::create_dir_all(dir.path().join("crates/vispec-models")).unwrap();
        let models = dir.path().join("crates/vispec-models/Cargo.toml");
        fs::write(models, "[dependencies]\nvispec-core.workspace = true\n").unwrap();
        for sub in ["examples", "xtask"] {
            fs::create_dir_all(dir.path().join(sub)).unwrap();
        }
        check(dir.path()).unwrap();

        fs::write(dir.path().join("examples/utils.rs"), "fn main() {} \n").unwrap();
        let source = dir.path().join("crates/vispec-core/src");
        fs::create_dir_all(&source).unwrap();
        let hidden = "//! A library.\nfn f() { let _ = std::env::var(\"X\"); }\n";
        fs::write(source.join("lib.rs"), hidden).unwrap();
        let core = dir.path().join("crates/vispec-core/Cargo.toml");
        fs::write(core, "[dependencies]\nvispec-models = { path = \"x\" }\n").unwrap();
        let report = check(dir.path()).unwrap_err().to_string();
        for part in [
            "5 breaches",
            "no environment variables",
            "first line",
            "says nothing",
            "line 1",
            "must not use vispec-models",
        ] {
            assert!(report.contains(part), "{part} not in {report}");
        }
    }
}
