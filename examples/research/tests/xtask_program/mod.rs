//! Locating the program `xtask`.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

/// Returns the path of `xtask`. It belongs to another package, so cargo reports it only on request.
/// This request returns the `xtask` that was built for the tests of the workspace, if they are all
/// run.
pub(crate) fn xtask() -> PathBuf {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap());
    // Cargo's variables about the tested package would make it rebuild dependencies that read the
    // same variables.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&name);
        }
    }
    let output = cargo
        .args(["test", "--offline", "--workspace", "--test", "sweep"])
        .args(["--no-run", "--message-format=json"])
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success());
    let messages = String::from_utf8(output.stdout).unwrap();
    let executable = messages.lines().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_it = message["target"]["name"] == "xtask" && message["profile"]["test"] == false;
        let executable = message["executable"].as_str().filter(|_| is_it)?;
        Some(PathBuf::from(executable))
    });
    executable.unwrap()
}
