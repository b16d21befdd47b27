//! Videos: prompts, features and answers match the reference, and speculation does not change
//! answers.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod reference;

use std::fs;
use std::path::PathBuf;

use burn::tensor::Tensor;
use reference::{Decoding, Tensors, assert_close, fixtures, floats, load, shape};
use serde::Deserialize;
use vispec_core::{PassInput, Sampler, TargetLogits as _, TargetModel as _};
use vispec_models::features::read_features;
use vispec_models::{DtypeChoice, Engine, Method};
use vispec_processor::{
    DecodedImage, ImageOptions, Media, Messages, PreparedPrompt, Video, sampled_frames,
};

const TOLERANCE: f64 = 1e-4;

/// Cases whose pixels the reference resized differently from Pillow.
const OTHER_PIXELS: [&str; 0] = [];

#[derive(Debug, Deserialize)]
struct VideoFile {
    frames: Vec<String>,
    #[serde(alias = "source_fps")]
    fps: f64,
    #[serde(default)]
    do_sample_frames: bool,
    #[serde(default)]
    sample_fps: Option<f64>,
    #[serde(default)]
    frames_indices: Option<Vec<usize>>,
}

#[derive(Debug, Deserialize)]
struct Case {
    #[serde(skip)]
    dir: PathBuf,
    #[serde(skip)]
    name: String,
    model: String,
    messages: serde_json::Value,
    images: Vec<String>,
    videos: Vec<VideoFile>,
    input_ids: Vec<u32>,
    position_ids: Vec<Vec<u32>>,
    rope_delta: i64,
    ar_ids: Vec<u32>,
}

/// Returns all cases with videos.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for root in ["video/cases", "qwen3-vl/cases"] {
        for model in fs::read_dir(fixtures().join(root)).unwrap() {
            for dir in fs::read_dir(model.unwrap().path()).unwrap() {
                let dir = dir.unwrap().path();
                let text = fs::read(dir.join("case.json")).unwrap();
                let case: Case = serde_json::from_slice(&text).unwrap();
                if !case.videos.is_empty() {
                    let name = dir.strip_prefix(fixtures()).unwrap();
                    let name = name.display().to_string();
                    cases.push(Case { dir, name, ..case });
                }
            }
        }
    }
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(cases.len(), 9);
    cases
}

impl Case {
    fn model(&self) -> &str {
        self.model.trim_start_matches("models/")
    }

    fn engine(&self) -> Engine {
        load(self.model(), None, DtypeChoice::F32)
    }

    fn frames(&self, names: &[String]) -> Vec<DecodedImage> {
        let open = |name| DecodedImage::open(self.dir.join(name), &ImageOptions::default());
        names.iter().map(|name| open(name).unwrap()).collect()
    }

    fn video(&self, file: &VideoFile) -> Video {
        let total = file.frames.len();
        if !file.do_sample_frames {
            return Video::new(self.frames(&file.frames), file.fps).unwrap();
        }
        let places = sampled_frames(total, file.fps, file.sample_fps.unwrap()).unwrap();
        assert_eq!(Some(&places), file.frames_indices.as_ref(), "{}", self.name);
        let names = places.iter().map(|&place| file.frames[place].clone());
        let frames = self.frames(&names.collect::<Vec<_>>());
        Video::of_places(frames, places, (total, file.fps)).unwrap()
    }

    fn prepare(&self, engine: &Engine) -> PreparedPrompt {
        let videos: Vec<Video> = self.videos.iter().map(|file| self.video(file)).collect();
        let images = self.frames(&self.images);
        let media = Media {
            images: &images,
            videos: &videos,
        };
        let messages = Messages::from_json_value(&self.messages).unwrap();
        engine.processor().prepare_media(&messages, media).unwrap()
    }
}

#[test]
fn prompts_and_answers_are_those_of_the_reference() {
    for case in cases() {
        let engine = case.engine();
        let prepared = case.prepare(&engine);
        assert_eq!(prepared.token_ids, case.input_ids, "{}", case.name);
        assert_eq!(
            prepared.positions.axes(),
            &*case.position_ids,
            "{}",
            case.name
        );
        assert_eq!(prepared.rope_delta, case.rope_delta, "{}", case.name);
        let prompt = engine.target().encode(&prepared).unwrap();
        let decoding = Decoding::greedy(case.ar_ids.len());
        let found = decoding.answer(&engine, &prompt, Method::None, shape(0, 1, 1));
        assert_eq!(found.tokens, case.ar_ids, "{}", case.name);
    }
}

/// Concatenates, in order, the values of all parts whose placeholder is `token`.
fn joined(prepared: &PreparedPrompt, token: u32, of_part: impl Fn(usize) -> Vec<f32>) -> Vec<f32> {
    let runs = prepared.image_runs.iter().enumerate();
    let parts = runs.filter(|(_, run)| prepared.token_ids[run.start] == token);
    parts.flat_map(|(part, _)| of_part(part)).collect()
}

#[test]
fn stages_are_those_of_the_reference() {
    for case in cases() {
        if OTHER_PIXELS.contains(&case.name.as_str()) {
            continue;
        }
        let engine = case.engine();
        let target = engine.target();
        let prepared = case.prepare(&engine);
        let tensors = Tensors::read(&case.dir.join("tensors.safetensors"));
        let check = |name: &str, found: &[f32]| {
            if let Some(expected) = tensors.get(name) {
                let from = found.len() - expected.values.len();
                let what = format!("{}: {name}", case.name);
                assert_close(&what, &found[from..], &expected.values, TOLERANCE);
            }
        };
        let image = engine.processor().image_token_id();
        let ids = &prepared.token_ids;
        let starts = prepared.image_runs.iter().map(|run| ids[run.start]);
        let video = starts.into_iter().find(|&id| id != image).unwrap();
        let pixels = |part: usize| prepared.images[part].pixels().data.clone();
        check("pixel_values", &joined(&prepared, image, pixels));
        check("pixel_values_videos", &joined(&prepared, video, pixels));
        let encode = |image| target.encode_image(image).unwrap();
        let features: Vec<_> = prepared.images.iter().map(encode).collect();
        for (token, kind) in [(image, "image"), (video, "video")] {
            let tokens = |part: usize| floats(&features[part].tokens);
            check(
                &format!("vision.{kind}_features"),
                &joined(&prepared, token, tokens),
            );
            for level in 0..features[0].levels.len() {
                let name = format!("vision.{kind}_deepstack_{level}");
                let values = |part: usize| floats(&features[part].levels[level]);
                check(&name, &joined(&prepared, token, values));
            }
        }
        let prompt = target.merge(&prepared, features).unwrap();
        let hidden: Tensor<2> = read_features(target, &prompt, &[]).unwrap().hidden_states;
        check("prefill.last_hidden_state", &floats(&hidden));
        let logits = floats(&target.text().head().forward(hidden));
        check("prefill.logits_last", &logits);
    }
}

#[test]
fn speculation_changes_no_token_and_parts_no_bit() {
    let drafts = |model: &str| match model {
        "qwen-tied" => vec![Some("qwen-tied-q2"), Some("qwen-tied-eagle3-vllm-mrope")],
        "qwen-untied" => vec![Some("qwen-untied-q2"), Some("qwen-untied-eagle2")],
        "qwen3-untied" => vec![Some("qwen3-untied-eagle3-vllm-mrope-qwen3vl")],
        _ => vec![None],
    };
    for case in cases() {
        for draft in drafts(case.model()) {
            let engine = load(case.model(), draft, DtypeChoice::F32);
            let prompt = engine.target().encode(&case.prepare(&engine)).unwrap();
            for sampler in [Sampler::Greedy, Sampler::new(1.0, None, None).unwrap()] {
                let decoding = Decoding {
                    sampler,
                    seed: 5,
                    max_new_tokens: 24,
                };
                let plain = decoding.answer(&engine, &prompt, Method::None, shape(3, 8, 30));
                for method in [engine.default_method(), Method::PromptLookup] {
                    let found = decoding.answer(&engine, &prompt, method, shape(3, 8, 30));
                    let what = format!("{}, {draft:?}, {method}, {sampler:?}", case.name);
                    assert_eq!(found.tokens, plain.tokens, "{what}");
                }
            }
            // Read a part that ends inside the video.
            let target = engine.target();
            let read = |ends: &[usize]| {
                let mut cache = target.new_cache().unwrap();
                let mut logits = Vec::new();
                for &end in ends {
                    let input = PassInput::Prompt {
                        prompt: &prompt,
                        end,
                    };
                    let mut output = target.read(input, &mut cache).unwrap();
                    logits = output.logits.read_row(0).unwrap().to_vec();
                }
                logits
            };
            let (n, start) = (case.input_ids.len(), prompt.image_runs()[0].start);
            if target.resumable_cache().is_some() {
                assert!(read(&[n]) == read(&[start + 1, n]), "{}", case.name);
            }
        }
    }
}
