//! Records of measurements of any content.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vispec_report::record::RecordReader;

fuzz_target!(|data: &[u8]| {
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(dir.path().join("records.jsonl"), data).expect("a temporary file");
    if let Ok(reader) = RecordReader::open(dir.path()) {
        let _ = (reader.path(), reader.complete_bytes());
    }
});
