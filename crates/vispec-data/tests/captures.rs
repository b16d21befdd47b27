//! Captures: what is written is read, whatever happens in between.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use half::bf16;
use ndarray::Array2;
use proptest::prelude::*;
use tempfile::TempDir;
use vispec_data::capture::{
    CaptureError, CaptureHeader, CaptureReader, CaptureStage, CaptureWriter, CapturedSample,
    ElementType, ImageRecord, LeftOut, LeftOutKind, Manifest, PositionRange, SampleRecord, Share,
    SourceIdentity, StorageKind, TargetIdentity, TokenSample, fingerprint, merge,
};

const HIDDEN: usize = 4;
const VOCAB: usize = 50;

fn header(storage: StorageKind, end: usize) -> CaptureHeader {
    CaptureHeader {
        target: TargetIdentity {
            name: "tiny".to_owned(),
            fingerprint: "f00d".to_owned(),
            hidden: HIDDEN,
            dtype: "f32".to_owned(),
        },
        storage,
        dtype: ElementType::F32,
        stage: CaptureStage::TeacherForced {
            max_tokens: 100,
            pixels: None,
        },
        source: SourceIdentity {
            layout: "chat".to_owned(),
            files: Vec::new(),
            rows: end,
            shuffle_seed: Some(42),
        },
        range: PositionRange { start: 0, end },
        shard_positions: 3,
    }
}

fn table() -> Array2<f32> {
    Array2::from_shape_fn([VOCAB, HIDDEN], |(token, axis)| (token * 10 + axis) as f32)
}

fn record(position: usize) -> SampleRecord {
    SampleRecord {
        id: format!("id {position}"),
        origin: format!("x.json, row {position}"),
        prompt_tokens: 2,
        images: Vec::new(),
    }
}

/// A sample whose text embeddings are those of [`table`] and whose other vectors are exact in bf16.
fn sample(position: usize, image_mask: Vec<bool>) -> CapturedSample {
    let seq = image_mask.len();
    let table = table();
    let token = |row: usize| (position + row) % VOCAB;
    let vector =
        |row: usize, axis: usize| bf16::from_f32((row as f32 - axis as f32) / 3.0).to_f32();
    CapturedSample {
        id: format!("id {position}"),
        token_ids: (0..seq).map(|row| token(row) as u32).collect(),
        input_embeds: Array2::from_shape_fn([seq, HIDDEN], |(row, axis)| {
            if image_mask[row] {
                vector(row + position, axis)
            } else {
                table[[token(row), axis]]
            }
        }),
        hidden_states: Array2::from_shape_fn([seq, HIDDEN], |(row, axis)| vector(row, axis + 1)),
        loss_mask: (0..seq).map(|row| row % 3 == 1).collect(),
        image_mask,
    }
}

fn mask(position: usize) -> Vec<bool> {
    (0..5 + position % 4)
        .map(|row| row % 4 == 1 || row % 4 == 2)
        .collect()
}

fn whole(end: usize) -> PositionRange {
    PositionRange { start: 0, end }
}

/// Captures `covers` of `end` positions; every fifth gives no sample.
fn write(dir: &Path, storage: StorageKind, end: usize, covers: PositionRange) -> Manifest {
    let mut writer = CaptureWriter::open(dir, header(storage, end), covers).unwrap();
    for position in writer.missing() {
        step(&mut writer, position);
    }
    writer.finish().unwrap()
}

fn step(writer: &mut CaptureWriter, position: usize) {
    if position % 5 == 4 {
        let left_out = LeftOut {
            position,
            kind: LeftOutKind::Dropped,
            reason: "no answer".to_owned(),
        };
        writer.leave_out(left_out).unwrap();
    } else {
        let sample = sample(position, mask(position));
        writer.put(position, record(position), &sample).unwrap();
    }
}

/// Files below a directory and their bytes.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        assert!(path.is_file(), "{}", path.display());
        files.insert(path.file_name().unwrap().into(), fs::read(&path).unwrap());
    }
    files
}

/// Hidden states that a draft reads; the others are zero in compact captures.
fn only_read(mut sample: CapturedSample) -> CapturedSample {
    for row in 0..sample.image_mask.len() {
        if sample.image_mask[row] && sample.image_mask.get(row + 1) == Some(&true) {
            sample.hidden_states.row_mut(row).fill(0.0);
        }
    }
    sample
}

#[test]
fn full_and_compact_captures_give_back_what_went_in() {
    for storage in [StorageKind::Full, StorageKind::Compact] {
        let dir = tempfile::tempdir().unwrap();
        let manifest = write(dir.path(), storage, 11, whole(11));
        assert_eq!(manifest.n_samples(), 9);
        assert_eq!(manifest.left_out().count(), 2);
        let reader = CaptureReader::open(dir.path()).unwrap();
        let reader = reader.with_embeddings(Box::new(table()));
        reader.verify(|_| {}).unwrap();
        assert_eq!(reader.len(), 9);
        let positions = (0..11).filter(|position| position % 5 != 4);
        for (index, position) in positions.enumerate() {
            let expected = sample(position, mask(position));
            let expected = match storage {
                StorageKind::Full => expected,
                _ => only_read(expected),
            };
            assert_eq!(reader.sample(index).unwrap(), expected);
            assert_eq!(reader.tokens(index).unwrap().record, record(position));
        }
        let error = reader.sample(9).unwrap_err();
        assert!(
            matches!(error, CaptureError::NoSample { len: 9, .. }),
            "{error}"
        );
    }
}

#[test]
fn online_captures_keep_tokens_and_images() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = TokenSample {
        record: SampleRecord {
            images: vec![
                ImageRecord::File("/x/y.jpg".into()),
                ImageRecord::Stored(3),
                ImageRecord::Stored(0),
            ],
            ..record(0)
        },
        token_ids: vec![1, 2, 3],
        loss_mask: vec![false, true, true],
        image_mask: vec![true, false, false],
        image_files: vec![vec![7, 8, 9], Vec::new()],
    };
    let header = header(StorageKind::Online, 1);
    let mut writer = CaptureWriter::open(dir.path(), header, whole(1)).unwrap();
    let mut wrong = tokens.clone();
    wrong.image_files.pop();
    let error = writer.put_tokens(0, &wrong).unwrap_err();
    assert!(
        matches!(
            error,
            CaptureError::SampleShape {
                found: 1,
                expected: 2,
                ..
            }
        ),
        "{error}"
    );
    writer.put_tokens(0, &tokens).unwrap();
    writer.finish().unwrap();
    let reader = CaptureReader::open(dir.path()).unwrap();
    assert_eq!(reader.tokens(0).unwrap(), tokens);
    let error = reader.sample(0).unwrap_err().to_string();
    assert!(error.contains("stored as online"), "{error}");
}

#[test]
fn compact_captures_need_the_embeddings_of_their_tokens() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), StorageKind::Compact, 3, whole(3));
    let open = || CaptureReader::open(dir.path()).unwrap();
    let error = open().sample(0).unwrap_err();
    assert!(matches!(error, CaptureError::NeedsMore { .. }), "{error}");
    for shape in [[2, HIDDEN], [VOCAB, HIDDEN - 1]] {
        let reader = open().with_embeddings(Box::new(Array2::zeros(shape)));
        let error = reader.sample(2).unwrap_err();
        assert!(matches!(error, CaptureError::NoEmbedding { .. }), "{error}");
    }
}

#[test]
fn an_interrupted_capture_goes_on_to_the_same_bytes() {
    let expected = tempfile::tempdir().unwrap();
    write(expected.path(), StorageKind::Full, 11, whole(11));
    for stop in 0..11 {
        let dir = tempfile::tempdir().unwrap();
        let open = || CaptureWriter::open(dir.path(), header(StorageKind::Full, 11), whole(11));
        let mut writer = open().unwrap();
        for position in writer.missing().into_iter().take(stop) {
            step(&mut writer, position);
        }
        let error = open().unwrap_err();
        assert!(matches!(error, CaptureError::Locked { .. }), "{error}");
        drop(writer);
        // What a kill in the middle of a write leaves.
        fs::write(dir.path().join("capture.json.tmp"), "{").unwrap();
        fs::write(dir.path().join("pending/00000010.safetensors.tmp"), "x").unwrap();
        fs::write(dir.path().join("pending/00000009.safetensors"), "cut short").unwrap();
        let error = CaptureReader::open(dir.path()).unwrap_err();
        assert!(matches!(error, CaptureError::Unfinished { .. }), "{error}");
        let mut writer = open().unwrap();
        // Positions without a sample are looked at again as long as their shard is open.
        assert!(writer.missing().len() <= 11 - stop + 2);
        for position in writer.missing() {
            step(&mut writer, position);
        }
        writer.finish().unwrap();
        assert_eq!(
            files(dir.path()),
            files(expected.path()),
            "stopped after {stop}"
        );
    }
}

#[test]
fn a_finished_capture_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), StorageKind::Full, 7, whole(7));
    let before = files(dir.path());
    let writer = CaptureWriter::open(dir.path(), header(StorageKind::Full, 7), whole(7)).unwrap();
    assert!(writer.missing().is_empty());
    writer.finish().unwrap();
    assert_eq!(files(dir.path()), before);
}

#[test]
fn another_capture_in_the_same_place_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), StorageKind::Full, 7, whole(7));
    let refused = |header: CaptureHeader, covers| {
        let error = CaptureWriter::open(dir.path(), header, covers).unwrap_err();
        assert!(matches!(error, CaptureError::Mismatch { .. }), "{error}");
        error.to_string()
    };
    let original = || header(StorageKind::Full, 7);
    let mut other = original();
    other.target.fingerprint = "beef".to_owned();
    let error = refused(other, whole(7));
    assert!(
        error.contains("target.fingerprint is \"f00d\", expected \"beef\""),
        "{error}"
    );
    let mut other = original();
    other.source.shuffle_seed = None;
    assert!(refused(other, whole(7)).contains("source.shuffle_seed is 42, expected null"));
    let error = refused(original(), PositionRange { start: 0, end: 4 });
    assert!(error.contains("covers is 0..7, expected 0..4"), "{error}");
    let mut renamed = original();
    renamed.target.name = "the same under another name".to_owned();
    CaptureWriter::open(dir.path(), renamed, whole(7)).unwrap();
    let error = CaptureReader::open_for(dir.path(), "beef").unwrap_err();
    assert!(
        error
            .to_string()
            .contains("fingerprint of the target (tiny)"),
        "{error}"
    );
    CaptureReader::open_for(dir.path(), "f00d").unwrap();
}

#[test]
fn damage_is_found() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), StorageKind::Full, 7, whole(7));
    let shard = dir.path().join("shard-00000003.safetensors");
    let sound = fs::read(&shard).unwrap();

    fs::write(&shard, &sound[..sound.len() - 1]).unwrap();
    let error = CaptureReader::open(dir.path()).unwrap_err();
    assert!(matches!(error, CaptureError::ShardLength { .. }), "{error}");
    let error = CaptureWriter::open(dir.path(), header(StorageKind::Full, 7), whole(7));
    assert!(matches!(
        error.unwrap_err(),
        CaptureError::ShardLength { .. }
    ));

    let mut flipped = sound.clone();
    *flipped.last_mut().unwrap() ^= 1;
    fs::write(&shard, &flipped).unwrap();
    let error = CaptureReader::open(dir.path())
        .unwrap()
        .verify(|_| {})
        .unwrap_err();
    assert!(matches!(error, CaptureError::ShardHash { .. }), "{error}");

    for start in 0..40 {
        let mut garbage = sound.clone();
        garbage[start] = 0xff;
        fs::write(&shard, &garbage).unwrap();
        let reader = CaptureReader::open(dir.path()).unwrap();
        let error = reader.sample(4).unwrap_err();
        assert!(
            matches!(error, CaptureError::Damaged { .. }),
            "{start}: {error}"
        );
    }

    fs::remove_file(&shard).unwrap();
    let error = CaptureReader::open(dir.path()).unwrap_err();
    assert!(matches!(error, CaptureError::Io { .. }), "{error}");
}

#[test]
fn manifests_of_other_versions_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let error = CaptureReader::open(dir.path()).unwrap_err();
    assert!(matches!(error, CaptureError::NoCapture { .. }), "{error}");
    write(dir.path(), StorageKind::Full, 3, whole(3));
    let path = dir.path().join("capture.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"version\": 1", "\"version\": 2")).unwrap();
    let error = CaptureReader::open(dir.path()).unwrap_err().to_string();
    assert!(error.ends_with("capture format 2, expected 1"), "{error}");
    for wrong in ["", "[]", "{\"format\": 3}", &text[..text.len() / 2]] {
        fs::write(&path, wrong).unwrap();
        let error = CaptureReader::open(dir.path()).unwrap_err();
        assert!(
            matches!(error, CaptureError::Damaged { .. }),
            "{wrong}: {error}"
        );
    }
    let outside = text.replace("shard-00000000.safetensors", "../x");
    fs::write(&path, outside).unwrap();
    let error = CaptureReader::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("\"../x\" is not a file name"), "{error}");
}

/// Shares `index` of `count` of 11 positions.
fn shares(count: usize) -> Vec<(TempDir, PositionRange)> {
    let share = |index| {
        let share: Share = format!("{index}/{count}").parse().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let covers = share.of(whole(11));
        write(dir.path(), StorageKind::Full, 11, covers);
        (dir, covers)
    };
    (1..=count).map(share).collect()
}

#[test]
fn merged_shares_hold_the_samples_of_one_run() {
    let alone = tempfile::tempdir().unwrap();
    write(alone.path(), StorageKind::Full, 11, whole(11));
    let alone = CaptureReader::open(alone.path()).unwrap();
    for count in [1, 2, 4, 12] {
        let shares = shares(count);
        let mut dirs: Vec<PathBuf> = shares.iter().map(|(dir, _)| dir.path().into()).collect();
        dirs.reverse();
        let out = tempfile::tempdir().unwrap();
        merge(&dirs, out.path()).unwrap();
        let merged = CaptureReader::open(out.path()).unwrap();
        merged.verify(|_| {}).unwrap();
        assert_eq!(merged.len(), alone.len());
        for index in 0..alone.len() {
            assert_eq!(merged.sample(index).unwrap(), alone.sample(index).unwrap());
        }
        let before = files(out.path());
        merge(&dirs, out.path()).unwrap();
        assert_eq!(files(out.path()), before);
        let shard = merged.manifest().shards[0].file.clone();
        // Not through the link, which would change the share as well.
        fs::remove_file(out.path().join(&shard)).unwrap();
        fs::write(out.path().join(&shard), "half a copy").unwrap();
        merge(&dirs, out.path()).unwrap();
        assert_eq!(files(out.path()), before);
    }
}

#[test]
fn shares_that_do_not_fit_together_are_refused() {
    let out = tempfile::tempdir().unwrap();
    let thirds = shares(3);
    let halves = shares(2);
    let dirs = |dirs: &[&(TempDir, PositionRange)]| -> Vec<PathBuf> {
        dirs.iter().map(|(dir, _)| dir.path().into()).collect()
    };
    let refused = |shares: &[PathBuf]| merge(shares, out.path()).unwrap_err();
    let error = refused(&dirs(&[&thirds[0], &thirds[2]]));
    assert!(
        error.to_string().contains("4..8 is in none of them"),
        "{error}"
    );
    assert!(matches!(
        refused(&dirs(&[&thirds[1], &thirds[2]])),
        CaptureError::Gap { .. }
    ));
    assert!(matches!(
        refused(&dirs(&[&halves[0]])),
        CaptureError::Gap { .. }
    ));
    let error = refused(&dirs(&[&thirds[0], &thirds[1], &halves[1]]));
    assert!(matches!(error, CaptureError::Overlap { .. }), "{error}");
    let other = tempfile::tempdir().unwrap();
    write(other.path(), StorageKind::Compact, 11, thirds[2].1);
    let mut mixed = dirs(&[&thirds[0], &thirds[1]]);
    mixed.push(other.path().into());
    let error = refused(&mixed).to_string();
    assert!(
        error.contains("storage is \"compact\", expected \"full\""),
        "{error}"
    );
    assert!(matches!(refused(&[]), CaptureError::NoCapture { .. }));
    assert!(!out.path().join("capture.json").exists());
}

#[test]
fn samples_that_cannot_be_stored_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let covers = PositionRange { start: 2, end: 5 };
    let mut writer = CaptureWriter::open(dir.path(), header(StorageKind::Full, 9), covers).unwrap();
    let sound = || sample(2, mask(2));
    let error = writer.put(1, record(1), &sound()).unwrap_err();
    assert!(
        matches!(error, CaptureError::Position { position: 1, .. }),
        "{error}"
    );
    let mut short = sound();
    short.hidden_states = Array2::zeros([1, HIDDEN]);
    let error = writer.put(2, record(2), &short).unwrap_err();
    assert!(
        matches!(error, CaptureError::SampleShape { found: 1, .. }),
        "{error}"
    );
    let mut broken = sound();
    broken.hidden_states[[3, 1]] = f32::NAN;
    let error = writer.put(2, record(2), &broken).unwrap_err();
    assert!(matches!(error, CaptureError::NotFinite { .. }), "{error}");
    assert_eq!(writer.missing(), [2, 3, 4]);
    let error = writer.finish().unwrap_err();
    assert!(
        matches!(error, CaptureError::Unfinished { missing: 3, .. }),
        "{error}"
    );
}

#[test]
fn fingerprints_tell_checkpoints_apart() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models");
    let tied = fingerprint(&models.join("qwen-tied")).unwrap();
    assert_ne!(tied, fingerprint(&models.join("qwen-untied")).unwrap());
    let copy = tempfile::tempdir().unwrap();
    for file in fs::read_dir(models.join("qwen-tied")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    fs::write(copy.path().join("README.md"), "notes do not count").unwrap();
    assert_eq!(tied, fingerprint(copy.path()).unwrap());
    let weights = copy.path().join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&weights, bytes).unwrap();
    assert_ne!(tied, fingerprint(copy.path()).unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_placement_of_images_survives_compact_storage(
        image_mask in prop::collection::vec(any::<bool>(), 1..40),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let header = header(StorageKind::Compact, 1);
        let mut writer = CaptureWriter::open(dir.path(), header, whole(1)).unwrap();
        let sample = sample(3, image_mask);
        writer.put(0, record(3), &sample).unwrap();
        writer.finish().unwrap();
        let reader = CaptureReader::open(dir.path()).unwrap();
        let reader = reader.with_embeddings(Box::new(table()));
        prop_assert_eq!(reader.sample(0).unwrap(), only_read(sample));
    }
}
