//! Videos: sampling and times of the reference implementation, and invalid videos.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use vispec_processor::{
    DecodedImage, ImageSize, Media, Messages, Part, Processor, ProcessorError, Video,
    sampled_frames,
};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

fn units(name: &str) -> Vec<Value> {
    let path = fixtures().join("qwen3-vl/units/resize_and_sampling.json");
    let mut units: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    match units[name].take() {
        Value::Array(cases) => cases,
        other => panic!("{other}"),
    }
}

fn processor(model: &str) -> Processor {
    Processor::from_dir(fixtures().join("models").join(model)).unwrap()
}

fn frame(side: usize) -> DecodedImage {
    DecodedImage::from_rgb8(ImageSize::new(side, side), vec![90; side * side * 3]).unwrap()
}

fn messages(n_videos: usize) -> Messages {
    Messages::showing(None, "What happens?", vec![Part::Video; n_videos])
}

fn prepare(model: &str, videos: &[Video]) -> Result<String, ProcessorError> {
    let media = Media {
        images: &[],
        videos,
    };
    let processor = processor(model);
    let prompt = processor.prepare_media(&messages(1), media)?;
    let ids = prompt.token_ids;
    let text = processor
        .tokenizer()
        .decode(&ids, vispec_processor::SpecialText::Keep);
    Ok(text.unwrap())
}

#[test]
fn frames_are_sampled_as_the_reference_does() {
    let cases = units("sampling");
    assert!(cases.len() > 100);
    for case in cases {
        let total = case["total"].as_u64().unwrap() as usize;
        let [fps, sample] = ["source_fps", "sample_fps"].map(|field| case[field].as_f64().unwrap());
        let found = sampled_frames(total, fps, sample).unwrap();
        assert_eq!(Value::from(found), case["indices"], "{case}");
    }
}

#[test]
fn times_are_those_of_the_reference() {
    for case in units("timestamps") {
        let places = case["indices"].as_array().unwrap();
        let places: Vec<usize> = places
            .iter()
            .map(|p| p.as_u64().unwrap() as usize)
            .collect();
        let fps = case["fps"].as_f64().unwrap();
        let texts = case["texts"].as_array().unwrap().clone();
        if places.len() < 2 {
            continue;
        }
        let total = places[places.len() - 1] + 1;
        let frames = vec![frame(64); places.len()];
        let video = Video::of_places(frames, places, (total, fps)).unwrap();
        let text = prepare("qwen3-tied", &[video]).unwrap();
        let found: Vec<Value> = text
            .split("<|vision_start|>")
            .filter_map(|part| part.rsplit_once('<'))
            .map(|(_, time)| format!("<{time}"))
            .filter(|time| time.ends_with(" seconds>"))
            .map(Value::from)
            .collect();
        assert_eq!(found, texts, "{case}");
    }
}

#[test]
fn videos_that_a_model_cannot_take_are_refused() {
    let one = Video::new(vec![frame(64)], 2.0).unwrap();
    let error = prepare("qwen3-tied", std::slice::from_ref(&one)).unwrap_err();
    assert!(
        matches!(
            error,
            ProcessorError::VideoFrames {
                found: 1,
                min: 2,
                ..
            }
        ),
        "{error}"
    );
    let small = Video::new(vec![frame(31); 2], 2.0).unwrap();
    let error = prepare("qwen3-tied", &[small]).unwrap_err();
    assert!(
        matches!(error, ProcessorError::VideoSmall { .. }),
        "{error}"
    );
    let error = prepare("llava-15", std::slice::from_ref(&one)).unwrap_err();
    assert!(
        matches!(error, ProcessorError::VideosUnsupported { .. }),
        "{error}"
    );
    // Qwen2.5-VL repeats the frame.
    assert!(prepare("qwen-tied", std::slice::from_ref(&one)).is_ok());
    let many = Video::new(vec![frame(112); 768], 2.0).unwrap();
    let error = prepare("qwen-tied", &[many]).unwrap_err();
    assert!(
        matches!(error, ProcessorError::PromptTooLong { .. }),
        "{error}"
    );
    let error = prepare("qwen-tied", &[one.clone(), one]).unwrap_err();
    assert!(
        matches!(
            error,
            ProcessorError::VideoCount {
                found: 2,
                expected: 1
            }
        ),
        "{error}"
    );
    // Without videos in the call, a video is reported as missing.
    let error = processor("qwen-tied")
        .prepare(&messages(1), &[])
        .unwrap_err();
    assert!(
        matches!(
            error,
            ProcessorError::VideoCount {
                found: 0,
                expected: 1
            }
        ),
        "{error}"
    );
}

#[test]
fn placeholders_of_videos_in_text_are_refused() {
    let typed = Messages::from_prompt(None, "<|vision_start|><|video_pad|><|vision_end|>", 0);
    for model in ["qwen-tied", "qwen3-tied"] {
        let error = processor(model).prepare(&typed, &[]).unwrap_err();
        assert!(
            matches!(
                error,
                ProcessorError::PlaceholderCount {
                    found: 1,
                    expected: 0,
                    ..
                }
            ),
            "{error}"
        );
    }
}
