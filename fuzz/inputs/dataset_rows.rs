//! Task files with any content: the first byte chooses the format.

use std::path::Path;

use vispec_data::{ReadOptions, TaskDefinition};
use vispec_processor::ImageOptions;

/// Formats, each with a file name and the location of its images: separate files, or a column.
const FORMATS: [(&str, &str, &str); 4] = [
    ("json_lines", "rows.jsonl", "image_file"),
    ("json", "rows.json", "image_file"),
    ("tsv", "rows.tsv", "image_column"),
    ("parquet", "rows.parquet", "image_column"),
];
/// Content of the separate image file.
const IMAGE: &[u8] = include_bytes!("../seeds/image/png_bit");

/// Returns whether a file has a row that gives a prompt.
fn read((format, file, image): (&str, &str, &str), dir: &Path) -> bool {
    let place = match image {
        "image_file" => "{image}",
        _ => "image",
    };
    let definition = format!(
        "name = \"fuzzed\"\ntitle = \"t\"\nsource = \"s\"\nid = \"{{id}}\"\n\
         [rows]\nformat = \"{format}\"\nfiles = [\"{file}\"]\n\
         [prompt]\nuser = [{{ text = \"{{question}}\" }}, {{ {image} = \"{place}\" }}]\n"
    );
    let Ok(task) = TaskDefinition::from_toml("fuzzed", &definition) else {
        panic!("the definition for {format} is invalid");
    };
    let limits = ImageOptions {
        max_pixels: 1 << 16,
        max_side: 1 << 10,
        ..ImageOptions::default()
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

/// Returns whether a file has a row that gives a prompt.
pub(crate) fn check(data: &[u8]) -> bool {
    let Some((&kind, content)) = data.split_first() else {
        return false;
    };
    let format = FORMATS[usize::from(kind) % FORMATS.len()];
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(dir.path().join(format.1), content).expect("a temporary file");
    std::fs::write(dir.path().join("a.png"), IMAGE).expect("a temporary file");
    read(format, dir.path())
}
