//! Properties that hold for any image, any messages and any bytes.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

mod common;

use common::{fixture, processor};
use proptest::prelude::*;
use serde_json::Value;
use vispec_processor::{
    ChatTemplate, DecodedImage, GenerationPrompt, ImageOptions, ImageProcessor, ImageSize,
    Messages, ProcessedImage, ProcessorError, SequenceTokens, SpecialText, anyres_grid_shape,
    unpadded_region,
};

fn picture(size: ImageSize, seed: u8) -> DecodedImage {
    let samples = (0..size.area() * 3).map(|i| (i % 251) as u8 ^ seed);
    DecodedImage::from_rgb8(size, samples.collect()).unwrap()
}

/// Processes an image and compares its size with its number of tokens.
fn check(processor: &ImageProcessor, image: &DecodedImage) -> Result<(), TestCaseError> {
    let n_tokens = processor.n_tokens(image.size());
    let processed = match processor.process(image) {
        Err(error) => {
            let ImageSize { height, width } = image.size();
            prop_assert!(height.max(width) > 200 * height.min(width));
            let is_ratio = matches!(error, ProcessorError::AspectRatio { .. });
            prop_assert!(is_ratio);
            prop_assert!(n_tokens.is_err());
            return Ok(());
        }
        Ok(processed) => processed,
    };
    let n_tokens = n_tokens.unwrap();
    let pixels = processed.pixels();
    prop_assert_eq!(pixels.data.len(), pixels.shape.iter().product::<usize>());
    prop_assert!(
        pixels
            .data
            .iter()
            .all(|value| value.is_finite() && value.abs() < 4.0)
    );
    match (processor, &processed) {
        (
            ImageProcessor::Qwen(_),
            ProcessedImage::Qwen {
                grid_thw: [frames, rows, columns],
                ..
            },
        ) => {
            prop_assert_eq!(&pixels.shape, &[frames * rows * columns, 1176]);
            prop_assert!(rows % 2 == 0 && columns % 2 == 0);
            prop_assert_eq!(n_tokens, rows * columns / 4);
            prop_assert!(n_tokens >= 1);
        }
        (ImageProcessor::Clip { .. }, ProcessedImage::Clip { .. }) => {
            prop_assert_eq!(&pixels.shape, &[3, 84, 84]);
            prop_assert_eq!(n_tokens, 36);
        }
        (ImageProcessor::Anyres(anyres), ProcessedImage::Anyres { original_size, .. }) => {
            prop_assert_eq!(*original_size, image.size());
            let grid = anyres_grid_shape(image.size(), anyres.candidates(), 56).unwrap();
            prop_assert_eq!(&pixels.shape, &[1 + grid.area(), 3, 56, 56]);
            let features = ImageSize::new(grid.height * 4, grid.width * 4);
            let region = unpadded_region(features, image.size());
            prop_assert!(region.rows.end <= features.height);
            prop_assert!(region.columns.end <= features.width);
            let n_kept = region.rows.len() * region.columns.len();
            prop_assert_eq!(n_tokens, 16 + n_kept + region.rows.len());
        }
        _ => prop_assert!(false, "another family"),
    }
    Ok(())
}

fn any_json() -> impl Strategy<Value = Value> {
    let key = prop_oneof![
        Just("role".to_owned()),
        Just("content".to_owned()),
        Just("type".to_owned()),
        Just("text".to_owned()),
        ".{0,4}",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        prop_oneof![
            Just("image".to_owned()),
            Just("text".to_owned()),
            Just("user".to_owned()),
            ".{0,12}"
        ]
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..5)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn images_of_any_size_are_processed(height in 1usize..=300, width in 1usize..=300, seed: u8) {
        let image = picture(ImageSize::new(height, width), seed);
        for model in ["qwen-untied", "llava-15", "llava-next"] {
            check(processor(model).image_processor(), &image)?;
        }
    }

    #[test]
    fn any_json_is_messages_or_an_error(value in any_json()) {
        let parsed = Messages::from_json_value(&value);
        let text = value.to_string();
        let again = Messages::from_json(text.as_bytes());
        prop_assert_eq!(parsed.is_ok(), again.is_ok());
    }

    #[test]
    fn any_bytes_are_messages_or_an_error(bytes: Vec<u8>) {
        let _ = Messages::from_json(&bytes);
    }

    #[test]
    fn any_bytes_are_an_image_or_an_error(mut bytes: Vec<u8>, at in 0usize..500, flip: u8) {
        let limits = ImageOptions::default();
        let _ = DecodedImage::from_bytes(&bytes, &limits);
        bytes = std::fs::read(fixture("image_0.png")).unwrap();
        bytes[at] ^= flip;
        let _ = DecodedImage::from_bytes(&bytes, &limits);
    }

    #[test]
    fn any_text_survives_the_tokenizer(text in "\\PC{0,40}") {
        for model in ["qwen-tied", "llava-15"] {
            let processor = processor(model);
            let ids = processor.tokenizer().encode(&text, SequenceTokens::Omit).unwrap();
            let decoded = processor.tokenizer().decode(&ids, SpecialText::Keep).unwrap();
            // Qwen normalises to NFC; LLaVA keeps the text.
            prop_assert!(decoded == text || model == "qwen-tied");
        }
    }

    #[test]
    fn any_text_is_a_prompt_or_an_error(text in ".{0,60}") {
        for model in common::MODELS {
            let processor = processor(model);
            match processor.prepare(&Messages::from_prompt(None, &text, 0), &[]) {
                Ok(prompt) => prop_assert_eq!(prompt.rope_delta, 0),
                Err(ProcessorError::EmptyPrompt) => prop_assert!(text.trim().is_empty()),
                Err(error) => return Err(TestCaseError::fail(error.to_string())),
            }
        }
    }

    #[test]
    fn any_template_compiles_or_is_an_error(source in "(\\{%|\\{\\{|%\\}|\\}\\}| |if|for|x|generation|endgeneration|-|\\PC){0,20}") {
        if let Ok(template) = ChatTemplate::new("any", &source, Default::default()) {
            let messages = Messages::from_prompt(None, "Hi", 1);
            let _ = template.render(&messages, GenerationPrompt::Add);
        }
    }
}

#[test]
fn extreme_sizes() {
    let sizes = [
        (1, 1),
        (300, 1),
        (1, 300),
        (201, 1),
        (1, 200),
        (2, 300),
        (28, 28),
        (27, 27),
        (1, 20_000),
        (20_000, 1),
    ];
    for model in common::MODELS {
        let processor = processor(model);
        for (height, width) in sizes {
            let image = picture(ImageSize::new(height, width), 0);
            check(processor.image_processor(), &image).unwrap();
        }
    }
}
