//! Records of measurements, headers of cells and notes of failures, of any content: the first byte
//! chooses which.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use vispec_report::record::{
    CellHeader, CellProgress, RECORDS_FILE, RecordReader, RunFailure,
};

const NAMES: [&str; 3] = [RECORDS_FILE, "cell.json", "failure.json"];

fn read(dir: &Path, name: &str) {
    match name {
        RECORDS_FILE => {
            let mut progress = CellProgress::default();
            let mut reader = RecordReader::open(dir).expect("the file is there");
            reader.by_ref().flatten().for_each(|line| progress.add(&line));
            let _ = (progress.status(1), progress.expect_unique(reader.path()));
        }
        "cell.json" => {
            if let Ok(header) = CellHeader::read(dir) {
                let settings = &header.settings;
                let _ = (settings.cell_id(), settings.directory_name());
            }
        }
        _ => drop(RunFailure::read(dir)),
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&kind, content)) = data.split_first() else {
        return;
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let name = NAMES[usize::from(kind) % NAMES.len()];
    std::fs::write(dir.path().join(name), content).expect("a temporary file");
    read(dir.path(), name);
});
