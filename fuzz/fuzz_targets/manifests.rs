//! Manifests of captures and definitions of tasks of any content.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vispec_data::TaskDefinition;
use vispec_data::capture::CaptureReader;

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = TaskDefinition::from_toml("fuzzed", text);
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(dir.path().join("capture.json"), data).expect("a temporary file");
    if let Ok(reader) = CaptureReader::open(dir.path()) {
        let _ = (reader.len(), reader.verify(|_| {}));
    }
});
