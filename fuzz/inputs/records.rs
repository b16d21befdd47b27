//! Measurement records, cell headers and run failures with any content: the first byte chooses
//! which.

use std::path::Path;

use vispec_report::record::{
    CellHeader, CellProgress, HEADER_FILE, RECORDS_FILE, RUN_FAILURE_FILE, RecordReader, RunFailure,
};

const NAMES: [&str; 3] = [RECORDS_FILE, HEADER_FILE, RUN_FAILURE_FILE];

fn read(dir: &Path, name: &str) -> bool {
    match name {
        RECORDS_FILE => {
            let mut progress = CellProgress::default();
            let mut reader = RecordReader::open(dir).expect("the file is there");
            reader
                .by_ref()
                .flatten()
                .for_each(|line| progress.add(&line));
            let _ = (progress.status(1), progress.expect_unique(reader.path()));
            !progress.done().is_empty()
        }
        HEADER_FILE => CellHeader::read(dir).is_ok_and(|header| {
            let settings = &header.settings;
            !settings.cell_id().is_empty() && !settings.directory_name().is_empty()
        }),
        _ => RunFailure::read(dir).is_ok(),
    }
}

/// Returns whether a record, a header or a failure can be read.
pub(crate) fn check(data: &[u8]) -> bool {
    let Some((&kind, content)) = data.split_first() else {
        return false;
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let name = NAMES[usize::from(kind) % NAMES.len()];
    std::fs::write(dir.path().join(name), content).expect("a temporary file");
    read(dir.path(), name)
}
