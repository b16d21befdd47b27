//! Helpers shared by several tests: the fixtures, and copies of them to damage.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::fs;
use std::path::{Path, PathBuf};

use vispec_data::{ReadOptions, Sample, Shortage, TaskDefinition, TaskRegistry};
use vispec_processor::{Content, Message, Part};

/// Returns the folder of a task's fixture.
pub(crate) fn fixture(task: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/tasks")
        .join(task)
}

/// Returns a built-in task.
pub(crate) fn task(name: &str) -> TaskDefinition {
    TaskRegistry::builtin().get(name).unwrap().clone()
}

/// Returns options that accept a shortage: fixtures have fewer rows than a subset selects.
pub(crate) fn lenient() -> ReadOptions {
    ReadOptions {
        shortage: Shortage::Accept,
        ..ReadOptions::default()
    }
}

/// Returns all samples of a task's fixture.
pub(crate) fn samples(name: &str) -> Vec<Sample> {
    let samples = task(name).open(&fixture(name), &lenient()).unwrap();
    samples.map(Result::unwrap).collect()
}

/// Copies a task's fixture.
pub(crate) fn copied(name: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    copy(&fixture(name), dir.path());
    dir
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Returns the parts of a message, with images as `<image>`.
pub(crate) fn parts(message: &Message) -> Vec<&str> {
    let Content::Parts(parts) = &message.content else {
        panic!("a message of one string");
    };
    parts
        .iter()
        .map(|part| match part {
            Part::Text(text) => text.as_str(),
            Part::Image => "<image>",
            Part::Video => "<video>",
        })
        .collect()
}
