//! Errors of damaged files.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::fs;
use std::path::Path;

use support::{copied, fixture, lenient, task};
use vispec_data::{DataError, ImageCheck, ReadOptions, Sample, TaskSamples};
use vispec_processor::ImageOptions;

/// Opens a task and reads all its samples.
fn read(name: &str, dir: &Path, options: &ReadOptions) -> Result<Vec<Sample>, DataError> {
    task(name).open(dir, options)?.collect()
}

fn error(name: &str, dir: &Path) -> DataError {
    read(name, dir, &lenient()).unwrap_err()
}

fn tolerant(max_bad_rows: usize) -> ReadOptions {
    ReadOptions {
        max_bad_rows,
        ..lenient()
    }
}

/// Replaces text in a file that contains it.
fn edit(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{from}");
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

const GQA: &str = "llava_gqa_testdev_balanced.jsonl";

#[test]
fn a_missing_file_says_where_to_get_it() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["gqa", "textvqa", "mmbench", "mmvet", "sqa", "mvbench"] {
        let error = error(name, dir.path());
        assert!(matches!(error, DataError::MissingFile { .. }), "{error}");
        assert!(error.to_string().contains(task(name).source()));
    }
}

#[test]
fn broken_json_is_named_by_line() {
    let dir = copied("gqa");
    edit(
        &dir.path().join(GQA),
        "{\"question_id\": \"202\"",
        "{\"question_id\": 202 oops",
    );
    let error = error("gqa", dir.path());
    let DataError::RowSyntax { origin, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(origin.row, 3);
    assert!(origin.file.ends_with(GQA));

    edit(
        &dir.path().join(GQA),
        "{\"question_id\": 202 oops",
        "[\"question_id\"]\n{\"question_id\": \"202\"",
    );
    let message = self::error("gqa", dir.path()).to_string();
    assert!(message.contains("row 3: not a JSON object"), "{message}");
}

#[test]
fn a_broken_document_has_no_rows() {
    let dir = copied("textvqa");
    let path = dir.path().join("TextVQA_0.5.1_val.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, &text[..text.len() / 2]).unwrap();
    let error = error("textvqa", dir.path());
    assert!(
        matches!(&error, DataError::FileSyntax { format: "JSON", .. }),
        "{error}"
    );
    fs::write(&path, text.replace("\"data\"", "\"rows\"")).unwrap();
    let message = self::error("textvqa", dir.path()).to_string();
    assert!(
        message.contains("no field \"data\" at the top"),
        "{message}"
    );
}

#[test]
fn missing_and_mistyped_fields_are_named() {
    let dir = copied("gqa");
    let path = dir.path().join(GQA);
    edit(&path, "\"text\": \"Is thing 1", "\"txet\": \"Is thing 1");
    let message = error("gqa", dir.path()).to_string();
    assert!(
        message.contains("row 2: field \"text\" is missing, expected a string or a number"),
        "{message}"
    );
    edit(&path, "\"txet\": \"Is", "\"text\": null, \"rest\": \"Is");
    let message = error("gqa", dir.path()).to_string();
    assert!(message.contains("field \"text\" is null"), "{message}");
    edit(
        &path,
        "\"text\": null",
        "\"text\": \"\\nNothing before this line.\"",
    );
    let message = error("gqa", dir.path()).to_string();
    assert!(message.contains("field \"question\" is empty"), "{message}");

    let dir = copied("mt_bench");
    edit(
        &dir.path().join("question.jsonl"),
        "[\"Write text 0.\", \"Rewrite it.\"]",
        "[]",
    );
    let message = error("mt_bench", dir.path()).to_string();
    assert!(message.contains("\"turns\" is an empty list"), "{message}");
}

#[test]
fn splits_and_problems_have_to_agree() {
    let dir = copied("sqa");
    edit(&dir.path().join("pid_splits.json"), "\"5\"", "\"77\"");
    let message = error("sqa", dir.path()).to_string();
    assert!(
        message.contains("problems.json") && message.contains("no entry \"77\""),
        "{message}"
    );
    edit(&dir.path().join("pid_splits.json"), "\"test\"", "\"tset\"");
    let message = error("sqa", dir.path()).to_string();
    assert!(message.contains("no field \"test\""), "{message}");
}

#[test]
fn images_that_are_missing_or_damaged_are_named() {
    let dir = copied("gqa");
    let image = dir.path().join("images/n3.jpg");
    let bytes = fs::read(&image).unwrap();
    fs::write(&image, &bytes[..bytes.len() / 2]).unwrap();
    let error = error("gqa", dir.path());
    assert!(
        matches!(&error, DataError::BadImage { origin, .. } if origin.row == 4),
        "{error}"
    );
    assert!(error.to_string().contains("n3.jpg"));
    fs::remove_file(&image).unwrap();
    let error = self::error("gqa", dir.path());
    assert!(
        matches!(&error, DataError::MissingImage { origin, .. } if origin.row == 4),
        "{error}"
    );

    let options = ReadOptions {
        image_check: ImageCheck::Never,
        ..lenient()
    };
    let samples = read("gqa", dir.path(), &options).unwrap();
    let broken = samples.iter().find(|sample| sample.id == "203").unwrap();
    let late = broken.images[0]
        .decode(&ImageOptions::default())
        .unwrap_err();
    assert!(matches!(late, DataError::MissingImage { .. }));
}

#[test]
fn images_above_the_limits_are_bad() {
    let options = ReadOptions {
        image_options: ImageOptions {
            max_side: 11,
            ..ImageOptions::default()
        },
        ..lenient()
    };
    let message = read("mmvet", &fixture("mmvet"), &options)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("row 1") && message.contains("the limit is 11"),
        "{message}"
    );
}

#[test]
fn paths_may_not_leave_the_directory() {
    let dir = copied("gqa");
    edit(&dir.path().join(GQA), "\"n0.jpg\"", "\"../../secret.png\"");
    let error = error("gqa", dir.path());
    assert!(
        matches!(&error, DataError::PathOutside { origin, .. } if origin.row == 1),
        "{error}"
    );
}

#[test]
fn corrupt_base64_is_named() {
    let dir = copied("mmbench");
    let path = dir.path().join("mmbench_dev_20230712.tsv");
    edit(&path, "iVBOR", "iV*OR");
    let error = error("mmbench", dir.path());
    assert!(
        matches!(&error, DataError::Base64 { origin, column, .. } if origin.row == 1 && column == "image"),
        "{error}"
    );
    // Base64 of something that is no image, then no image at all.
    edit(&path, "iV*OR", "AAAAA");
    assert!(matches!(
        self::error("mmbench", dir.path()),
        DataError::BadImage { .. }
    ));
    let text = fs::read_to_string(&path).unwrap();
    let start = text.find("AAAAA").unwrap();
    let end = start + text[start..].find('\n').unwrap();
    fs::write(&path, [&text[..start], &text[end..]].concat()).unwrap();
    assert!(matches!(
        self::error("mmbench", dir.path()),
        DataError::MissingImage { .. }
    ));
}

#[test]
fn tables_with_wrong_columns_are_named() {
    let dir = copied("mmbench");
    let path = dir.path().join("mmbench_dev_20230712.tsv");
    edit(&path, "\thint\t", "\tclue\t");
    let error = error("mmbench", dir.path());
    let DataError::MissingColumn { column, found, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(column, "hint");
    assert!(found.contains(&"clue".to_owned()));
    edit(&path, "\tclue\t", "\thint\t");
    edit(&path, "yes\tno\t", "yes\t");
    let message = self::error("mmbench", dir.path()).to_string();
    assert!(
        message.contains("row 1") && message.contains("6 fields, the header has 7"),
        "{message}"
    );

    // A Parquet table with the columns of another task.
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    let coco = fixture("coco_caption").join("test/0000.parquet");
    fs::copy(coco, data.join("test-00000-of-00001.parquet")).unwrap();
    let error = self::error("mmvet", dir.path());
    assert!(
        matches!(&error, DataError::MissingColumn { column, .. } if column == "id"),
        "{error}"
    );
}

#[test]
fn truncated_parquet_is_an_error() {
    let dir = copied("mmvet");
    let path = dir.path().join("data/test-00000-of-00001.parquet");
    let bytes = fs::read(&path).unwrap();
    for keep in [0, 3, 100, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&path, &bytes[..keep]).unwrap();
        let error = error("mmvet", dir.path());
        assert!(
            matches!(
                &error,
                DataError::FileSyntax {
                    format: "Parquet",
                    ..
                }
            ),
            "{keep}: {error}"
        );
    }
}

/// The `parquet` crate panics on some damaged files; these must become ordinary errors. Every
/// third byte in turn is set to values that make lengths and offsets negative or huge.
#[test]
fn damaged_parquet_is_an_error_and_no_panic() {
    let dir = copied("hr_bench_4k");
    let path = dir.path().join("hr_bench_4k.parquet");
    let bytes = fs::read(&path).unwrap();
    let mut n_errors = 0;
    for place in (0..bytes.len()).step_by(3) {
        for value in [139, 0xff] {
            let mut damaged = bytes.clone();
            damaged[place] = value;
            fs::write(&path, &damaged).unwrap();
            n_errors += usize::from(read("hr_bench_4k", dir.path(), &lenient()).is_err());
        }
    }
    assert!(n_errors > 100, "{n_errors}");
}

#[test]
fn ids_have_to_be_unique() {
    let dir = copied("gqa");
    edit(&dir.path().join(GQA), "\"202\"", "\"200\"");
    let error = error("gqa", dir.path());
    let DataError::DuplicateId { origin, id, first } = &error else {
        panic!("{error}");
    };
    assert_eq!((origin.row, id.as_str(), first.row), (3, "200", 1));
}

#[test]
fn videos_without_frames_get_advice() {
    let dir = copied("msvd_qa");
    fs::remove_dir_all(dir.path().join("videos/data/vid1")).unwrap();
    fs::write(dir.path().join("videos/data/vid1.avi"), "RIFF").unwrap();
    let message = error("msvd_qa", dir.path()).to_string();
    assert!(message.contains("row 2"), "{message}");
    assert!(
        message.contains("ffmpeg -i") && message.contains("vid1.avi"),
        "{message}"
    );
}

#[test]
fn too_few_rows_are_refused_unless_accepted() {
    let error = read("gqa", &fixture("gqa"), &ReadOptions::default()).unwrap_err();
    assert!(
        matches!(
            error,
            DataError::TooFewRows {
                found: 5,
                expected: 100,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn bad_rows_are_counted_and_named() {
    let dir = copied("gqa");
    edit(
        &dir.path().join(GQA),
        "{\"question_id\": \"201\"",
        "not JSON",
    );
    fs::remove_file(dir.path().join("images/n3.jpg")).unwrap();

    let mut samples: TaskSamples = task("gqa").open(dir.path(), &tolerant(2)).unwrap();
    assert_eq!(samples.bad_rows().len(), 1, "the row that is no row");
    let read: Vec<Sample> = samples.by_ref().map(Result::unwrap).collect();
    assert_eq!(read.len(), 3);
    assert_eq!(samples.bad_rows().len(), 2);
    let named: Vec<String> = samples.bad_rows().iter().map(ToString::to_string).collect();
    assert!(
        named[0].contains("row 2") && named[1].contains("row 4"),
        "{named:?}"
    );

    let error = task("gqa")
        .open(dir.path(), &tolerant(1))
        .unwrap()
        .find_map(Result::err);
    let Some(DataError::TooManyBadRows {
        found: 2,
        limit: 1,
        last,
    }) = error
    else {
        panic!("{error:?}");
    };
    assert!(matches!(*last, DataError::MissingImage { .. }));
}

#[test]
fn there_is_no_sample_behind_the_last() {
    let mut samples = task("mmvet").open(&fixture("mmvet"), &lenient()).unwrap();
    let error = samples.sample(5).unwrap_err();
    assert!(matches!(
        error,
        DataError::NoSuchSample {
            index: 5,
            found: 5,
            ..
        }
    ));
}
