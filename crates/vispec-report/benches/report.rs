//! Benchmark of a report of 100,000 records, from the record files to the report files.
#![allow(clippy::unwrap_used, missing_docs, reason = "a bench may panic")]

use std::path::Path;

use criterion::{Criterion, criterion_group, criterion_main};
use vispec_report::record::{CellHeader, Method, RecordWriter};
use vispec_report::report::{Predictions, Report};
use vispec_report::synthetic;

const RECORDS: u64 = 100_000;
const TASKS: u64 = 5;

/// Writes cells for every method and task, with the same number of records each.
fn write_cells(root: &Path) {
    let prompts = RECORDS / TASKS / Method::ALL.len() as u64;
    for method in Method::ALL {
        for task in 0..TASKS {
            let settings = synthetic::settings(method, &format!("task{task}"), prompts);
            let dir = root.join(settings.directory_name());
            let header = CellHeader::new(settings, "bench");
            let mut opened = RecordWriter::open(&dir, &header).unwrap();
            for index in 0..prompts {
                let record = synthetic::record(&header.settings, index);
                opened.writer.append(&record).unwrap();
            }
        }
    }
}

fn report(c: &mut Criterion) {
    let cells = tempfile::tempdir().unwrap();
    let out = tempfile::tempdir().unwrap();
    write_cells(cells.path());
    let mut group = c.benchmark_group("report");
    group.sample_size(10);
    group.bench_function("100,000 records", |bencher| {
        bencher.iter(|| {
            let report = Report::of(cells.path(), Predictions::SmallerTrees).unwrap();
            report.write(out.path()).unwrap();
        });
    });
    group.finish();
}

criterion_group!(benches, report);
criterion_main!(benches);
