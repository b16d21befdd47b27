//! Captures as the samples of a run: states that are not stored are recomputed.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use ndarray::Array2;
use vispec_data::capture::{
    CaptureError, CaptureHeader, CaptureStage, CaptureWriter, CapturedSample, ElementType,
    ImageRecord, PositionRange, SampleRecord, SampleSource as _, SampleVectors, SourceIdentity,
    StorageKind, TargetIdentity, TokenSample, fingerprint,
};
use vispec_models::features::read_features;
use vispec_models::{DtypeChoice, TargetText, VlmTarget};
use vispec_processor::{DecodedImage, ImageOptions, Messages, Processor};
use vispec_train::TrainError;
use vispec_train::data::{
    Captures, Features, LossMask, PrepareOptions, Prepared, Refusal, prepare,
};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

fn model(name: &str) -> PathBuf {
    fixtures().join("models").join(name)
}

/// A sample with two images, one of them a file, and the target's vectors for it.
struct Read {
    sample: TokenSample,
    vectors: SampleVectors,
    dtype: String,
}

fn read(model_dir: &Path, picture: &Path, dtype: DtypeChoice) -> Read {
    let target = VlmTarget::load(model_dir, &Device::flex(), dtype).unwrap();
    let processor = Processor::from_dir(model_dir).unwrap();
    let bytes = fs::read(picture).unwrap();
    let image = DecodedImage::from_bytes(&bytes, &ImageOptions::default()).unwrap();
    let messages = Messages::from_prompt(None, "Describe the images.", 2);
    let prepared = processor
        .prepare(&messages, &[image.clone(), image])
        .unwrap();
    let features = read_features(&target, &target.encode(&prepared).unwrap(), &[]).unwrap();
    let image_mask = features.image_mask();
    let token_ids = features.token_ids.clone();
    let shape = [token_ids.len(), target.hidden()];
    let features = features.into_host().unwrap();
    let sample = TokenSample {
        record: SampleRecord {
            id: "two".to_owned(),
            origin: "x.json, row 7".to_owned(),
            prompt_tokens: token_ids.len(),
            images: vec![
                ImageRecord::of_file(picture.to_owned(), &bytes),
                ImageRecord::Stored(bytes.len()),
            ],
        },
        loss_mask: vec![true; token_ids.len()],
        token_ids,
        image_mask,
        image_files: vec![bytes],
    };
    Read {
        sample,
        vectors: SampleVectors {
            input_embeds: Array2::from_shape_vec(shape, features.input_embeds).unwrap(),
            hidden_states: Array2::from_shape_vec(shape, features.hidden_states).unwrap(),
            residual_states: None,
        },
        dtype: target.precision().to_string(),
    }
}

fn write(dir: &Path, model_dir: &Path, read: &Read, storage: StorageKind) {
    let header = CaptureHeader {
        target: TargetIdentity {
            name: "tiny".to_owned(),
            fingerprint: fingerprint(model_dir).unwrap(),
            hidden: read.vectors.hidden_states.ncols(),
            dtype: read.dtype.clone(),
        },
        storage,
        states: Vec::new(),
        dtype: ElementType::F32,
        stage: CaptureStage::TeacherForced {
            max_tokens: 4096,
            pixels: None,
        },
        source: SourceIdentity {
            layout: "chat".to_owned(),
            files: Vec::new(),
            rows: 1,
            shuffle_seed: None,
        },
        range: PositionRange { start: 0, end: 1 },
        shard_positions: 1,
    };
    let covers = header.range;
    let mut writer = CaptureWriter::open(dir, header, covers).unwrap();
    writer.put(0, &read.sample, &read.vectors).unwrap();
    writer.finish().unwrap();
}

fn open(dir: &Path, model_dir: &Path) -> Captures {
    let text = TargetText::load(model_dir, &Device::flex(), DtypeChoice::F32).unwrap();
    Captures::open(&[dir.to_owned()], model_dir, &text, &[]).unwrap()
}

fn picture(dir: &Path) -> PathBuf {
    let path = dir.join("picture.png");
    fs::copy(fixtures().join("scenes/three-shapes.png"), &path).unwrap();
    path
}

#[test]
fn image_features_of_packed_samples_have_the_bits_of_the_target() {
    let dir = tempfile::tempdir().unwrap();
    let picture = picture(dir.path());
    for (name, dtype) in [
        ("qwen-tied", "auto"),
        ("llava-15", "bf16"),
        ("llava-next", "f16"),
    ] {
        let model_dir = model(name);
        let read = read(&model_dir, &picture, dtype.parse().unwrap());
        let out = dir.path().join(name);
        write(&out, &model_dir, &read, StorageKind::Packed);
        let sample = open(&out, &model_dir).sample(0).unwrap();
        let images: Vec<usize> = (0..sample.image_mask.len())
            .filter(|&row| sample.image_mask[row])
            .collect();
        assert!(images.len() > 1, "{name}");
        for row in images {
            let bits = |of: &Array2<f32>| of.row(row).mapv(f32::to_bits);
            let expected = bits(&read.vectors.input_embeds);
            assert!(bits(&sample.input_embeds) == expected, "{name}, row {row}");
        }
        assert_near(&sample, &read.vectors.hidden_states);
    }
}

/// Asserts that hidden states that a draft reads are within half a step of 8-bit quantisation, and
/// that the others are zero.
#[track_caller]
fn assert_near(sample: &CapturedSample, expected: &Array2<f32>) {
    let mask = &sample.image_mask;
    for (row, expected) in expected.rows().into_iter().enumerate() {
        let found = sample.hidden_states.row(row);
        let is_read = !mask[row] || mask.get(row + 1) != Some(&true);
        let largest = expected
            .iter()
            .fold(0.0_f32, |max, value| max.max(value.abs()));
        for (found, expected) in found.iter().zip(expected) {
            if is_read {
                let bound = largest / 127.0 * 0.504;
                assert!(
                    (found - expected).abs() <= bound,
                    "{row}: {found} {expected}"
                );
            } else {
                assert_eq!(found.to_bits(), 0);
            }
        }
    }
}

#[test]
fn drafts_that_read_states_of_image_tokens_refuse_packed_samples() {
    let dir = tempfile::tempdir().unwrap();
    let picture = picture(dir.path());
    let model_dir = model("qwen-tied");
    let read = read(&model_dir, &picture, DtypeChoice::Auto);
    for storage in [StorageKind::Full, StorageKind::Packed] {
        let out = dir.path().join(storage.as_str());
        write(&out, &model_dir, &read, storage);
        let sample = open(&out, &model_dir).sample(0).unwrap();
        let prepared = |reads_image_states| {
            let options = PrepareOptions {
                max_len: 4096,
                loss_mask: LossMask::AsStored,
                features: Features::HiddenState,
                vocabulary: None,
                noise: None,
                reads_image_states,
                hidden: read.vectors.hidden_states.ncols(),
            };
            prepare(&sample, 0, &options).unwrap()
        };
        assert!(matches!(prepared(false), Prepared::Sample(_)));
        match storage {
            StorageKind::Full => assert!(matches!(prepared(true), Prepared::Sample(_))),
            _ => assert_eq!(prepared(true), Prepared::Refused(Refusal::NoImageStates)),
        }
    }
}

#[test]
fn images_that_are_gone_or_replaced_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let picture = picture(dir.path());
    let model_dir = model("qwen-tied");
    let read = read(&model_dir, &picture, DtypeChoice::Auto);
    let out = dir.path().join("packed");
    write(&out, &model_dir, &read, StorageKind::Packed);
    let captures = open(&out, &model_dir);
    let failure = || {
        let error = captures.sample(0).unwrap_err();
        assert!(
            matches!(
                error,
                TrainError::Capture(CaptureError::ImageFeatures { .. })
            ),
            "{error}"
        );
        error.to_string()
    };
    fs::copy(
        fixtures().join("cases/qwen-tied/img-short/image_0.png"),
        &picture,
    )
    .unwrap();
    let message = failure();
    for part in [
        "sample two (x.json, row 7)",
        "picture.png: sha256",
        "replaced",
    ] {
        assert!(message.contains(part), "no {part:?} in {message}");
    }
    fs::remove_file(&picture).unwrap();
    assert!(failure().contains("picture.png: No such file"));
}
