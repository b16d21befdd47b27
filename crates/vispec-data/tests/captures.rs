//! Captures return what was written, whatever happens in between.

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
    ElementType, ImageFeatures, ImageRecord, LeftOut, LeftOutKind, Manifest, PositionRange,
    SampleRecord, SampleVectors, Share, SourceIdentity, StorageKind, TargetIdentity, TokenSample,
    fingerprint, merge,
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
        states: vec![1, 3],
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

/// A sample whose text embeddings come from [`table`] and whose other vectors are exact in bf16.
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
        residual_states: Some(Array2::from_shape_fn([seq, 2 * HIDDEN], |(row, axis)| {
            vector(row, axis + 5)
        })),
        loss_mask: (0..seq).map(|row| row % 3 == 1).collect(),
        image_mask,
    }
}

fn put(
    writer: &mut CaptureWriter,
    position: usize,
    record: SampleRecord,
    sample: &CapturedSample,
) -> Result<(), CaptureError> {
    let tokens = TokenSample {
        record,
        token_ids: sample.token_ids.clone(),
        loss_mask: sample.loss_mask.clone(),
        image_mask: sample.image_mask.clone(),
        image_files: Vec::new(),
    };
    let vectors = SampleVectors {
        input_embeds: sample.input_embeds.clone(),
        hidden_states: sample.hidden_states.clone(),
        residual_states: sample.residual_states.clone(),
    };
    writer.put(position, &tokens, &vectors)
}

/// Computes the image features of [`sample`].
struct Images;

impl ImageFeatures for Images {
    fn features(
        &self,
        tokens: &TokenSample,
    ) -> Result<Array2<f32>, Box<dyn std::error::Error + Send + Sync>> {
        let position = tokens.record.id.trim_start_matches("id ").parse()?;
        let whole = sample(position, tokens.image_mask.clone());
        let rows: Vec<usize> = (0..tokens.image_mask.len())
            .filter(|&row| tokens.image_mask[row])
            .collect();
        Ok(whole.input_embeds.select(ndarray::Axis(0), &rows))
    }
}

fn open_with_all(dir: &Path) -> CaptureReader {
    CaptureReader::open(dir)
        .unwrap()
        .with_embeddings(Box::new(table()))
        .with_image_features(Box::new(Images))
}

/// Storage kinds whose samples are read without running a target.
const STORED: [StorageKind; 3] = [StorageKind::Full, StorageKind::Compact, StorageKind::Packed];

fn mask(position: usize) -> Vec<bool> {
    (0..5 + position % 4)
        .map(|row| row % 4 == 1 || row % 4 == 2)
        .collect()
}

fn whole(end: usize) -> PositionRange {
    PositionRange { start: 0, end }
}

/// Captures the positions `covers` of `end`; every fifth gives no sample.
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
        put(writer, position, record(position), &sample).unwrap();
    }
}

/// Returns the files below a directory with their bytes.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        assert!(path.is_file(), "{}", path.display());
        files.insert(path.file_name().unwrap().into(), fs::read(&path).unwrap());
    }
    files
}

/// Zeroes the hidden states that no draft reads, as compact and packed captures do.
fn only_read(mut sample: CapturedSample) -> CapturedSample {
    for row in 0..sample.image_mask.len() {
        if sample.image_mask[row] && sample.image_mask.get(row + 1) == Some(&true) {
            sample.hidden_states.row_mut(row).fill(0.0);
            let residual = sample.residual_states.as_mut().unwrap();
            residual.row_mut(row).fill(0.0);
        }
    }
    sample
}

/// Checks a sample read from a capture of this storage kind.
#[track_caller]
fn assert_given_back(found: &CapturedSample, sample: CapturedSample, storage: StorageKind) {
    match storage {
        StorageKind::Full => assert_eq!(*found, sample),
        StorageKind::Compact => assert_eq!(*found, only_read(sample)),
        StorageKind::Packed => {
            let expected = only_read(sample);
            assert_rounded(&found.hidden_states, &expected.hidden_states);
            let [residual, expected_residual] =
                [found, &expected].map(|sample| sample.residual_states.clone().unwrap());
            assert_rounded(&residual, &expected_residual);
            let expected = CapturedSample {
                hidden_states: found.hidden_states.clone(),
                residual_states: Some(residual),
                ..expected
            };
            assert_eq!(*found, expected);
        }
        StorageKind::Online => panic!("online captures hold no vectors"),
    }
}

/// Checks rows of one group each that were rounded to 8 bits.
fn assert_rounded(found: &Array2<f32>, expected: &Array2<f32>) {
    assert_eq!(found.dim(), expected.dim());
    for (found, expected) in found.rows().into_iter().zip(expected.rows()) {
        let largest = expected
            .iter()
            .fold(0.0_f32, |max, value| max.max(value.abs()));
        for (found, expected) in found.iter().zip(expected) {
            // Half of 1/127, rounded up for an 8-bit mantissa.
            let bound = largest / 127.0 * 0.504;
            assert!((found - expected).abs() <= bound, "{found} {expected}");
        }
    }
}

#[test]
fn captures_give_back_what_went_in() {
    for storage in STORED {
        let dir = tempfile::tempdir().unwrap();
        let manifest = write(dir.path(), storage, 11, whole(11));
        assert_eq!(manifest.n_samples(), 9);
        assert_eq!(manifest.left_out().count(), 2);
        let reader = open_with_all(dir.path());
        reader.verify(|_| {}).unwrap();
        assert_eq!(reader.len(), 9);
        let positions = (0..11).filter(|position| position % 5 != 4);
        for (index, position) in positions.enumerate() {
            let expected = sample(position, mask(position));
            assert_given_back(&reader.sample(index).unwrap(), expected, storage);
            assert_eq!(reader.tokens(index).unwrap().record, record(position));
        }
        let error = reader.sample(9).unwrap_err();
        assert!(
            matches!(error, CaptureError::NoSample { len: 9, .. }),
            "{error}"
        );
    }
}

/// Image features of the wrong shape.
struct Wrong([usize; 2]);

impl ImageFeatures for Wrong {
    fn features(
        &self,
        _: &TokenSample,
    ) -> Result<Array2<f32>, Box<dyn std::error::Error + Send + Sync>> {
        match self.0 {
            [0, _] => Err("no such image".into()),
            shape => Ok(Array2::zeros(shape)),
        }
    }
}

#[test]
fn packed_captures_need_the_features_of_their_images() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), StorageKind::Packed, 3, whole(3));
    let open = || {
        CaptureReader::open(dir.path())
            .unwrap()
            .with_embeddings(Box::new(table()))
    };
    assert!(open().manifest().has_images());
    let error = open().sample(0).unwrap_err();
    assert!(matches!(error, CaptureError::NeedsMore { .. }), "{error}");
    assert!(error.to_string().contains("vision tower"), "{error}");
    let with = |shape| open().with_image_features(Box::new(Wrong(shape)));
    for shape in [[1, HIDDEN], [2, HIDDEN + 1]] {
        let error = with(shape).sample(0).unwrap_err();
        assert!(matches!(error, CaptureError::SampleShape { .. }), "{error}");
    }
    let error = with([0, 0]).sample(0).unwrap_err().to_string();
    assert!(error.contains("id 0 (x.json, row 0)"), "{error}");
    assert!(error.contains("no such image"), "{error}");
}

#[test]
fn images_that_were_replaced_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.png");
    fs::write(&path, b"pixels").unwrap();
    let sample = TokenSample {
        record: SampleRecord {
            images: vec![
                ImageRecord::of_file(path.clone(), b"pixels"),
                ImageRecord::Stored(2),
            ],
            ..record(0)
        },
        token_ids: Vec::new(),
        loss_mask: Vec::new(),
        image_mask: Vec::new(),
        image_files: vec![vec![1, 2]],
    };
    assert_eq!(sample.images().unwrap(), [&b"pixels"[..], &[1, 2]]);
    fs::write(&path, b"pixelz").unwrap();
    let error = sample.images().unwrap_err();
    assert!(matches!(error, CaptureError::ImageHash { .. }), "{error}");
    assert!(error.to_string().contains("a.png"), "{error}");
    fs::remove_file(&path).unwrap();
    let error = sample.images().unwrap_err();
    assert!(matches!(error, CaptureError::Io { .. }), "{error}");
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
    let storages = STORED.into_iter().cycle();
    for (stop, storage) in (0..11).zip(storages) {
        let expected = tempfile::tempdir().unwrap();
        write(expected.path(), storage, 11, whole(11));
        let dir = tempfile::tempdir().unwrap();
        let open = || CaptureWriter::open(dir.path(), header(storage, 11), whole(11));
        let mut writer = open().unwrap();
        for position in writer.missing().into_iter().take(stop) {
            step(&mut writer, position);
        }
        let error = open().unwrap_err();
        assert!(matches!(error, CaptureError::Locked { .. }), "{error}");
        drop(writer);
        // Leftovers of a kill in the middle of a write.
        fs::write(dir.path().join("capture.json.tmp"), "{").unwrap();
        fs::write(dir.path().join("pending/00000010.safetensors.tmp"), "x").unwrap();
        fs::write(dir.path().join("pending/00000009.safetensors"), "cut short").unwrap();
        let error = CaptureReader::open(dir.path()).unwrap_err();
        assert!(matches!(error, CaptureError::Unfinished { .. }), "{error}");
        let mut writer = open().unwrap();
        // Positions without a sample are processed again as long as their shard is unfinished.
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

/// Writes all `count` shares of 11 positions.
fn shares(count: usize, storage: StorageKind) -> Vec<(TempDir, PositionRange)> {
    let share = |index| {
        let share: Share = format!("{index}/{count}").parse().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let covers = share.of(whole(11));
        write(dir.path(), storage, 11, covers);
        (dir, covers)
    };
    (1..=count).map(share).collect()
}

#[test]
fn merged_shares_hold_the_samples_of_one_run() {
    for (count, storage) in [
        (1, StorageKind::Full),
        (2, StorageKind::Compact),
        (4, StorageKind::Packed),
        (12, StorageKind::Full),
    ] {
        let alone = tempfile::tempdir().unwrap();
        write(alone.path(), storage, 11, whole(11));
        let alone = open_with_all(alone.path());
        let shares = shares(count, storage);
        let mut dirs: Vec<PathBuf> = shares.iter().map(|(dir, _)| dir.path().into()).collect();
        dirs.reverse();
        let out = tempfile::tempdir().unwrap();
        merge(&dirs, out.path()).unwrap();
        let merged = open_with_all(out.path());
        merged.verify(|_| {}).unwrap();
        assert_eq!(merged.len(), alone.len());
        for index in 0..alone.len() {
            assert_eq!(merged.sample(index).unwrap(), alone.sample(index).unwrap());
        }
        let before = files(out.path());
        merge(&dirs, out.path()).unwrap();
        assert_eq!(files(out.path()), before);
        let shard = merged.manifest().shards[0].file.clone();
        // Writing through the hard link would change the share as well.
        fs::remove_file(out.path().join(&shard)).unwrap();
        fs::write(out.path().join(&shard), "half a copy").unwrap();
        merge(&dirs, out.path()).unwrap();
        assert_eq!(files(out.path()), before);
    }
}

#[test]
fn shares_that_do_not_fit_together_are_refused() {
    let out = tempfile::tempdir().unwrap();
    let thirds = shares(3, StorageKind::Full);
    let halves = shares(2, StorageKind::Full);
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
    for storage in STORED {
        refuses_what_it_cannot_store(storage);
    }
}

fn refuses_what_it_cannot_store(storage: StorageKind) {
    let dir = tempfile::tempdir().unwrap();
    let covers = PositionRange { start: 2, end: 5 };
    let mut writer = CaptureWriter::open(dir.path(), header(storage, 9), covers).unwrap();
    let sound = || sample(2, mask(2));
    let error = put(&mut writer, 1, record(1), &sound()).unwrap_err();
    assert!(
        matches!(error, CaptureError::Position { position: 1, .. }),
        "{error}"
    );
    let mut short = sound();
    short.hidden_states = Array2::zeros([1, HIDDEN]);
    let error = put(&mut writer, 2, record(2), &short).unwrap_err();
    assert!(
        matches!(error, CaptureError::SampleShape { found: 1, .. }),
        "{error}"
    );
    // The header lists two.
    let rows = sound().token_ids.len();
    for states in [None, Some(Array2::zeros([rows, HIDDEN]))] {
        let found = states.as_ref().map_or(0, Array2::ncols);
        let fewer = CapturedSample {
            residual_states: states,
            ..sound()
        };
        let error = put(&mut writer, 2, record(2), &fewer).unwrap_err();
        let CaptureError::SampleShape {
            found: width,
            expected,
            ..
        } = error
        else {
            panic!("{error}")
        };
        assert_eq!([width, expected], [found, 2 * HIDDEN]);
    }
    let mut broken = sound();
    broken.hidden_states[[3, 1]] = f32::NAN;
    let error = put(&mut writer, 2, record(2), &broken).unwrap_err();
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
    fn any_placement_of_images_survives(
        image_mask in prop::collection::vec(any::<bool>(), 1..40),
    ) {
        for storage in STORED {
            let dir = tempfile::tempdir().unwrap();
            let mut writer =
                CaptureWriter::open(dir.path(), header(storage, 1), whole(1)).unwrap();
            let sample = sample(3, image_mask.clone());
            put(&mut writer, 0, record(3), &sample).unwrap();
            writer.finish().unwrap();
            let found = open_with_all(dir.path()).sample(0).unwrap();
            assert_given_back(&found, sample, storage);
        }
    }
}
