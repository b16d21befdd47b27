//! Compares whole prompts with the end-to-end cases of the reference implementation.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

mod common;

use common::{fixture, ids, image, integers, json, messages, processor, sizes, strings};
use serde_json::Value;
use vispec_processor::{
    DecodedImage, GenerationPrompt, ImageOptions, ImageSize, Messages, Positions, PreparedPrompt,
    ProcessedImage, Processor, ProcessorError, SequenceTokens,
};

fn prepare(case: &Value) -> (Processor, PreparedPrompt) {
    let processor = processor(case["model"].as_str().unwrap());
    let images: Vec<_> = strings(&case["images"]).into_iter().map(image).collect();
    let prompt = processor
        .prepare(&messages(&case["messages"]), &images)
        .unwrap();
    (processor, prompt)
}

fn as_i64(axis: &[u32]) -> Vec<i64> {
    axis.iter().map(|&position| i64::from(position)).collect()
}

#[test]
fn ids_and_positions_are_equal() {
    let cases = json("prompts.json");
    for case in cases.as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let (processor, prompt) = prepare(case);
        assert_eq!(
            prompt.rendered,
            case["templated_text"].as_str().unwrap(),
            "{name}"
        );
        assert_eq!(prompt.token_ids, ids(&case["input_ids"]), "{name}");
        assert_eq!(prompt.positions.len(), prompt.token_ids.len(), "{name}");

        let n_image_tokens: usize = prompt.image_runs.iter().map(ExactSizeIterator::len).sum();
        let image_id = processor.image_token_id();
        let n_image_ids = prompt
            .token_ids
            .iter()
            .filter(|id| **id == image_id)
            .count();
        assert_eq!(n_image_tokens, n_image_ids, "{name}");
        if let Some(shape) = case.get("shape.vision.features") {
            assert_eq!(n_image_tokens, sizes(shape)[0], "{name}");
        }
        if let (Some(shape), Some(processed)) =
            (case.get("shape.pixel_values"), prompt.images.first())
        {
            assert!(sizes(shape).ends_with(&processed.pixels().shape), "{name}");
        }

        match case.get("tensor.position_ids") {
            Some(positions) => {
                let expected = integers(&positions["values"]);
                let found: Vec<_> = prompt.positions.axes().concat();
                assert_eq!(as_i64(&found), expected, "{name}");
                assert!(
                    matches!(prompt.positions, Positions::Multimodal { .. }),
                    "{name}"
                );
                let delta = integers(&case["tensor.rope_deltas"]["values"]);
                assert_eq!(prompt.rope_delta, delta[0], "{name}");
            }
            None => {
                let expected: Vec<u32> = (0..prompt.token_ids.len() as u32).collect();
                assert_eq!(prompt.positions.axes(), [&expected[..]; 3], "{name}");
                assert_eq!(prompt.rope_delta, 0, "{name}");
            }
        }
        match prompt.images.first() {
            Some(ProcessedImage::Qwen { grid_thw, .. }) => {
                assert_eq!(
                    grid_thw.to_vec(),
                    sizes(&case["tensor.image_grid_thw"]["values"])
                );
            }
            Some(ProcessedImage::Anyres { original_size, .. }) => {
                let size = sizes(&case["tensor.image_sizes"]["values"]);
                assert_eq!(*original_size, ImageSize::new(size[0], size[1]), "{name}");
            }
            Some(ProcessedImage::Clip { .. }) | None => {}
        }
        let eos = u32::try_from(case["eos_token_id"].as_u64().unwrap()).unwrap();
        assert!(processor.eos_token_ids().contains(&eos), "{name}");
    }
    assert_eq!(cases.as_array().unwrap().len(), 39);
}

#[test]
fn repeating_the_placeholder_in_the_text_gives_the_same_ids() {
    for case in json("prompts.json").as_array().unwrap() {
        let (processor, prompt) = prepare(case);
        let placeholder = processor
            .tokenizer()
            .id_to_token(processor.image_token_id())
            .unwrap();
        let mut lengths = prompt.image_runs.iter().map(ExactSizeIterator::len);
        let mut text = String::new();
        for (i, piece) in prompt.rendered.split(&placeholder).enumerate() {
            if i > 0 {
                text.push_str(&placeholder.repeat(lengths.next().unwrap()));
            }
            text.push_str(piece);
        }
        let encoded = processor
            .tokenizer()
            .encode(&text, SequenceTokens::Add)
            .unwrap();
        assert_eq!(encoded, prompt.token_ids);
    }
}

#[test]
fn several_images_have_runs_of_their_own() {
    for model in common::MODELS {
        let processor = processor(model);
        let images = [image("image_0.png"), image("image_4.png")];
        let messages = Messages::from_prompt(Some("Be short."), "Compare both.", 2);
        let prompt = processor.prepare(&messages, &images).unwrap();
        assert_eq!(prompt.images.len(), 2);
        for (run, image) in prompt.image_runs.iter().zip(&images) {
            assert_eq!(
                run.len(),
                processor.image_processor().n_tokens(image.size()).unwrap()
            );
            let ids = &prompt.token_ids[run.clone()];
            assert!(
                ids.iter().all(|id| *id == processor.image_token_id()),
                "{model}"
            );
        }
        assert!(prompt.image_runs[0].end <= prompt.image_runs[1].start);
        let last = prompt.positions.axes().concat().into_iter().max().unwrap();
        let next = i64::from(last) + 1;
        assert_eq!(
            prompt.rope_delta,
            next - prompt.token_ids.len() as i64,
            "{model}"
        );
    }
}

#[test]
fn strings_and_parts_render_alike() {
    for model in common::MODELS {
        let processor = processor(model);
        let string =
            br#"[{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hi"}]"#;
        let string = Messages::from_json(string).unwrap();
        let parts = Messages::from_prompt(Some("Be short."), "Hi", 0);
        let [string, parts] =
            [string, parts].map(|messages| processor.prepare(&messages, &[]).unwrap());
        assert_eq!(string, parts, "{model}");
        assert!(string.rendered.contains("Hi"), "{model}");
    }
}

#[test]
fn counts_that_do_not_fit_are_errors() {
    for model in common::MODELS {
        let processor = processor(model);
        let one = [image("image_3.png")];
        let ask = |prompt: &str, n_images| Messages::from_prompt(None, prompt, n_images);

        let error = processor.prepare(&ask("Hi", 0), &one).unwrap_err();
        assert!(
            matches!(
                error,
                ProcessorError::ImageCount {
                    found: 1,
                    expected: 0
                }
            ),
            "{model}"
        );
        let error = processor.prepare(&ask("Hi", 2), &one).unwrap_err();
        assert!(
            matches!(
                error,
                ProcessorError::ImageCount {
                    found: 1,
                    expected: 2
                }
            ),
            "{model}"
        );

        let placeholder = processor
            .tokenizer()
            .id_to_token(processor.image_token_id())
            .unwrap();
        let typed = ask(&format!("What does {placeholder} mean?"), 1);
        let error = processor.prepare(&typed, &one).unwrap_err();
        assert!(
            matches!(
                error,
                ProcessorError::PlaceholderCount {
                    found: 2,
                    expected: 1,
                    ..
                }
            ),
            "{model}: {error}"
        );
        let error = processor.prepare(&ask(&placeholder, 0), &[]).unwrap_err();
        assert!(
            matches!(
                error,
                ProcessorError::PlaceholderCount {
                    found: 1,
                    expected: 0,
                    ..
                }
            ),
            "{model}: {error}"
        );
        let error = processor.prepare(&ask(" \n", 0), &[]).unwrap_err();
        assert!(matches!(error, ProcessorError::EmptyPrompt), "{model}");
        processor.prepare(&ask("", 1), &one).unwrap();

        let short = processor.with_context_limit(20);
        let error = short.prepare(&ask("Hi", 1), &one).unwrap_err();
        assert!(
            matches!(error, ProcessorError::PromptTooLong { limit: 20, .. }),
            "{model}"
        );
    }
}

#[test]
fn video_placeholders_are_errors() {
    let messages = Messages::from_prompt(None, "<|video_pad|>", 0);
    let error = processor("qwen-tied").prepare(&messages, &[]).unwrap_err();
    assert!(matches!(
        error,
        ProcessorError::PlaceholderCount {
            found: 1,
            expected: 0,
            ..
        }
    ));
}

#[test]
fn a_prompt_can_end_with_the_last_message() {
    let messages = Messages::from_prompt(None, "Hi", 0);
    let processor = processor("llava-15");
    let prompt = processor
        .prepare_with(&messages, &[], GenerationPrompt::Omit)
        .unwrap();
    assert_eq!(prompt.rendered, "USER: Hi ");
}

#[test]
fn a_template_that_writes_the_first_token_does_not_double_it() {
    let dir = common::copy_of("llava-15");
    std::fs::write(
        dir.path().join("chat_template.jinja"),
        "{{ bos_token }}{{ messages[0].content }}",
    )
    .unwrap();
    let processor = Processor::from_dir(dir.path()).unwrap();
    let prompt = processor
        .prepare(&Messages::from_prompt(None, "Hi", 0), &[])
        .unwrap();
    assert_eq!(prompt.rendered, "<s>Hi");
    assert_eq!(prompt.token_ids.iter().filter(|id| **id == 1).count(), 1);
}

/// Set `VISPEC_GOLDENS` to the folder of the reference data to check all of its cases, including
/// pixels.
#[test]
fn all_cases_of_the_reference_data() {
    let Some(goldens) = std::env::var_os("VISPEC_GOLDENS").map(std::path::PathBuf::from) else {
        println!("skipped: VISPEC_GOLDENS is not set");
        return;
    };
    let (mut n_cases, mut n_pixel_tensors) = (0, 0);
    for model in common::MODELS {
        let processor = Processor::from_dir(fixture(model)).unwrap();
        for dir in std::fs::read_dir(goldens.join("cases").join(model)).unwrap() {
            let dir = dir.unwrap().path();
            let case: Value =
                serde_json::from_slice(&std::fs::read(dir.join("case.json")).unwrap()).unwrap();
            let images: Vec<_> = strings(&case["images"])
                .into_iter()
                .map(|name| DecodedImage::open(dir.join(name), &ImageOptions::default()).unwrap())
                .collect();
            let prompt = processor
                .prepare(&messages(&case["messages"]), &images)
                .unwrap();
            assert_eq!(
                prompt.token_ids,
                ids(&case["input_ids"]),
                "{}",
                dir.display()
            );
            n_cases += 1;
            let bytes = std::fs::read(dir.join("tensors.safetensors")).unwrap();
            let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            if let Ok(expected) = tensors.tensor("pixel_values") {
                let values = prompt.images[0].pixels().data.iter();
                let found: Vec<u8> = values.flat_map(|value| value.to_le_bytes()).collect();
                assert!(found == expected.data(), "{}", dir.display());
                n_pixel_tensors += 1;
            }
            if let Ok(expected) = tensors.tensor("position_ids") {
                let axes = prompt.positions.axes().concat();
                let found: Vec<u8> = as_i64(&axes)
                    .into_iter()
                    .flat_map(i64::to_le_bytes)
                    .collect();
                assert!(found == expected.data(), "{}", dir.display());
            }
        }
    }
    println!("{n_cases} cases, {n_pixel_tensors} pixel tensors equal bit for bit");
    assert!(n_cases >= 40);
}

#[test]
fn a_text_without_template_is_laid_out_as_it_is() {
    let processor = processor("qwen-tied");
    let rendered = "<|im_start|>user\nHi<|im_end|>\n";
    let prompt = processor.prepare_text(rendered).unwrap();
    let ids = processor.tokenizer().encode(rendered, SequenceTokens::Add);
    assert_eq!(prompt.token_ids, ids.unwrap());
    assert_eq!(prompt.positions.len(), prompt.token_ids.len());
    assert!(prompt.images.is_empty() && prompt.image_runs.is_empty());

    let placeholder = processor
        .tokenizer()
        .id_to_token(processor.image_token_id());
    let error = processor.prepare_text(&placeholder.unwrap()).unwrap_err();
    assert!(matches!(error, ProcessorError::PlaceholderCount { .. }));
    let error = processor.prepare_text("").unwrap_err();
    assert!(matches!(error, ProcessorError::EmptyPrompt));
}
