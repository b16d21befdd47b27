//! Inputs of Qwen3-VL: compares prompts, pixels, sizes and chat template with the reference
//! implementation.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::fs;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use serde_json::Value;
use vispec_processor::{
    DecodedImage, GenerationPrompt, ImageOptions, ImageSize, Messages, ModelFamily, PreparedPrompt,
    ProcessedImage, Processor, ProcessorError, SequenceTokens, smart_resize,
};

/// Maximum difference of pixels where the reference does not resize like Pillow: five levels.
const FAST_RESIZE: f32 = 5.01 / 127.5;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

fn json(path: impl AsRef<Path>) -> Value {
    serde_json::from_slice(&fs::read(fixtures().join(path)).unwrap()).unwrap()
}

fn processor(model: &str) -> Processor {
    Processor::from_dir(fixtures().join("models").join(model)).unwrap()
}

/// Returns the cases without videos: directory, `case.json` and prepared prompt.
fn cases() -> Vec<(PathBuf, Value, PreparedPrompt)> {
    let mut all = Vec::new();
    for model in ["qwen3-tied", "qwen3-untied"] {
        let processor = processor(model);
        assert_eq!(processor.family(), ModelFamily::Qwen3Vl);
        let dir = fixtures().join("qwen3-vl/cases").join(model);
        for case in fs::read_dir(dir).unwrap() {
            let dir = case.unwrap().path();
            let case = json(dir.join("case.json"));
            if !case["videos"].as_array().unwrap().is_empty() {
                continue;
            }
            let open = |name: &Value| {
                let path = dir.join(name.as_str().unwrap());
                DecodedImage::open(path, &ImageOptions::default()).unwrap()
            };
            let images: Vec<_> = case["images"]
                .as_array()
                .unwrap()
                .iter()
                .map(open)
                .collect();
            let messages = Messages::from_json_value(&case["messages"]).unwrap();
            let prompt = processor.prepare(&messages, &images).unwrap();
            all.push((dir, case, prompt));
        }
    }
    all
}

#[test]
fn prompts_are_those_of_the_reference() {
    let cases = cases();
    assert_eq!(cases.len(), 14);
    for (dir, case, prompt) in cases {
        let name = dir.display();
        assert_eq!(prompt.rendered, case["templated_text"], "{name}");
        assert_eq!(Value::from(prompt.token_ids), case["input_ids"], "{name}");
        let axes = prompt.positions.axes().map(Value::from);
        assert_eq!(Value::from(axes.to_vec()), case["position_ids"], "{name}");
        assert_eq!(prompt.rope_delta, case["rope_delta"], "{name}");
        let grids = prompt.images.iter().map(|image| match image {
            ProcessedImage::Qwen { grid_thw, .. } => Value::from(grid_thw.to_vec()),
            other => panic!("{other:?}"),
        });
        assert_eq!(grids.collect::<Value>(), case["image_grid_thw"], "{name}");
    }
}

#[test]
fn pixels_are_those_of_the_reference() {
    let mut compared = 0;
    for (dir, case, prompt) in cases() {
        let bytes = fs::read(dir.join("tensors.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let Ok(expected) = tensors.tensor("pixel_values") else {
            continue;
        };
        let pixels = prompt.images[0].pixels();
        assert_eq!(pixels.shape, expected.shape());
        let expected = expected.data().chunks_exact(4);
        let expected = expected.map(|b| f32::from_le_bytes(b.try_into().unwrap()));
        let pairs = pixels.data.iter().zip(expected);
        let largest = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let resizes_alike = case["pil_resize_max_abs_pixel_diff"].as_f64().unwrap() < 1e-6;
        let bound = if resizes_alike { 1e-6 } else { FAST_RESIZE };
        assert!(largest <= bound, "{}: {largest}", dir.display());
        compared += 1;
    }
    assert_eq!(compared, 3);
}

#[test]
fn sizes_are_those_of_the_reference() {
    let units = json("qwen3-vl/units/resize_and_sampling.json");
    let number = |case: &Value, field: &str| case[field].as_u64().unwrap() as usize;
    for case in units["image"].as_array().unwrap() {
        let original = ImageSize::new(number(case, "h"), number(case, "w"));
        let (min, max) = (number(case, "min_pixels"), number(case, "max_pixels"));
        let found = smart_resize(original, 32, min, max);
        match &case["result_hw"] {
            Value::Null => assert!(matches!(found, Err(ProcessorError::AspectRatio { .. }))),
            expected => {
                let found = found.unwrap();
                let found = Value::from(vec![found.height, found.width]);
                assert_eq!(&found, expected, "{case}");
            }
        }
    }
}

/// Covers the conversations that messages of this crate can hold: those without tools and videos.
#[test]
fn the_chat_template_is_rendered_as_the_reference_renders_it() {
    let processor = processor("qwen3-untied");
    let cases = json("qwen3-vl/units/chat_templates.json");
    let mut rendered = 0;
    for case in cases.as_array().unwrap() {
        let plain = case["kwargs"].as_object().unwrap().is_empty();
        let text = case["messages"].to_string();
        if !plain || text.contains("tool_calls") {
            continue;
        }
        let messages = Messages::from_json_value(&case["messages"]).unwrap();
        let generation = match case["add_generation_prompt"].as_bool().unwrap() {
            true => GenerationPrompt::Add,
            false => GenerationPrompt::Omit,
        };
        let found = processor.chat_template().render(&messages, generation);
        let found = found.unwrap();
        assert_eq!(found, case["rendered"], "{text}");
        let ids = processor.tokenizer().encode(&found, SequenceTokens::Omit);
        assert_eq!(
            Value::from(ids.unwrap()),
            case["token_ids_without_expansion"]
        );
        rendered += 1;
    }
    assert_eq!(rendered, 12);
}

#[test]
fn a_processor_of_another_patch_size_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for file in fs::read_dir(fixtures().join("models/qwen3-tied")).unwrap() {
        let file = file.unwrap();
        if file.file_name() != "model.safetensors" {
            fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
        }
    }
    let path = dir.path().join("preprocessor_config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["patch_size"] = 14.into();
    fs::write(&path, config.to_string()).unwrap();
    let error = Processor::from_dir(dir.path()).unwrap_err().to_string();
    assert!(error.contains("vision_config.patch_size"), "{error}");
}
