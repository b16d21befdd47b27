//! Files of tasks of any content: the first byte chooses the format.

use std::path::Path;

use vispec_data::{ReadOptions, TaskDefinition};
use vispec_processor::ImageLimits;

/// Formats with a file of each.
const FORMATS: [(&str, &str); 4] = [
    ("json_lines", "rows.jsonl"),
    ("json", "rows.json"),
    ("tsv", "rows.tsv"),
    ("parquet", "rows.parquet"),
];

/// Whether a file has a row that is a prompt.
fn read(format: &str, file: &str, dir: &Path) -> bool {
    let definition = format!(
        "name = \"fuzzed\"\ntitle = \"t\"\nsource = \"s\"\nid = \"{{id}}\"\n\
         [rows]\nformat = \"{format}\"\nfiles = [\"{file}\"]\n\
         [prompt]\nuser = [{{ text = \"{{question}}\" }}, {{ image_column = \"image\" }}]\n"
    );
    let Ok(task) = TaskDefinition::from_toml("fuzzed", &definition) else {
        panic!("the definition of {format} is not one");
    };
    let limits = ImageLimits {
        max_pixels: 1 << 16,
        max_side: 1 << 10,
    };
    let Ok(samples) = task.open(dir, &ReadOptions::default()) else {
        return false;
    };
    let read = samples.take(16).flatten().inspect(|sample| {
        for image in &sample.images {
            let _ = image.decode(&limits);
        }
    });
    read.count() > 0
}

/// Whether a file has a row that is a prompt.
pub fn check(data: &[u8]) -> bool {
    let Some((&kind, content)) = data.split_first() else {
        return false;
    };
    let (format, file) = FORMATS[usize::from(kind) % FORMATS.len()];
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(dir.path().join(file), content).expect("a temporary file");
    read(format, file, dir.path())
}
