//! Access to the fixtures.
#![allow(dead_code, reason = "each test file uses only a part of this")]

use std::path::{Path, PathBuf};

use serde_json::Value;
use vispec_processor::{DecodedImage, ImageOptions, Messages, Processor};

pub(crate) const MODELS: [&str; 4] = ["qwen-tied", "qwen-untied", "llava-15", "llava-next"];

pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

pub(crate) fn json(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(fixture(name)).unwrap()).unwrap()
}

pub(crate) fn processor(model: &str) -> Processor {
    Processor::from_dir(fixture(model)).unwrap()
}

pub(crate) fn image(name: &str) -> DecodedImage {
    DecodedImage::open(fixture(name), &ImageOptions::default()).unwrap()
}

pub(crate) fn messages(value: &Value) -> Messages {
    Messages::from_json_value(value).unwrap()
}

pub(crate) fn strings(value: &Value) -> Vec<&str> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item.as_str().unwrap())
        .collect()
}

pub(crate) fn integers(value: &Value) -> Vec<i64> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item.as_i64().unwrap())
        .collect()
}

pub(crate) fn ids(value: &Value) -> Vec<u32> {
    integers(value)
        .into_iter()
        .map(|id| u32::try_from(id).unwrap())
        .collect()
}

pub(crate) fn sizes(value: &Value) -> Vec<usize> {
    integers(value)
        .into_iter()
        .map(|size| usize::try_from(size).unwrap())
        .collect()
}

/// Copies a model's files so that a test may damage them.
pub(crate) fn copy_of(model: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture(model)).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    dir
}

/// Changes one JSON file; `null` removes a field.
pub(crate) fn edit(dir: &Path, file: &str, pointer: &str, value: Value) {
    let path = dir.join(file);
    let mut root: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    let parent = root.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    if value.is_null() {
        parent.remove(field).unwrap();
    } else {
        parent.insert(field.to_owned(), value);
    }
    std::fs::write(&path, root.to_string()).unwrap();
}
