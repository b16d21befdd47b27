//! Embeds the commit that programs are built from, for `--version`.

use std::path::Path;
use std::process::Command;

fn main() {
    // A commit changes the log of HEAD. Without a log, as in an archive, the commit is not updated.
    let log = Path::new("../../.git/logs/HEAD");
    if log.exists() {
        println!("cargo:rerun-if-changed={}", log.display());
    }
    println!("cargo:rerun-if-changed=build.rs");
    let version = std::env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let described = Command::new("git")
        .args(["rev-parse", "--short=10", "HEAD"])
        .output();
    let commit = described.ok().filter(|output| output.status.success());
    let commit = commit.and_then(|output| String::from_utf8(output.stdout).ok());
    let version = match commit.as_deref().map(str::trim) {
        Some(commit) if !commit.is_empty() => format!("{version} ({commit})"),
        _ => version,
    };
    println!("cargo:rustc-env=VISPEC_VERSION={version}");
}
