//! Damaged and unusual checkpoints: errors that name file and field, and variants of published
//! files.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

mod common;

use std::path::Path;

use common::{copy_of, edit, image};
use serde_json::{Value, json};
use vispec_processor::{
    DecodedImage, ImageOptions, ImageSize, Messages, Processor, ProcessorError, eos_token_ids,
};

const PREPROCESSOR: &str = "preprocessor_config.json";

fn error_in(dir: &Path) -> ProcessorError {
    Processor::from_dir(dir).unwrap_err()
}

#[test]
fn missing_files() {
    for name in ["config.json", PREPROCESSOR, "tokenizer.json"] {
        let dir = copy_of("qwen-tied");
        std::fs::remove_file(dir.path().join(name)).unwrap();
        let error = error_in(dir.path());
        assert!(
            matches!(&error, ProcessorError::MissingFile { path, .. } if path.ends_with(name)),
            "{error}"
        );
    }
    let dir = copy_of("llava-15");
    std::fs::remove_file(dir.path().join("chat_template.json")).unwrap();
    Processor::from_dir(dir.path()).unwrap(); // tokenizer_config.json has one, too
    edit(
        dir.path(),
        "tokenizer_config.json",
        "/chat_template",
        Value::Null,
    );
    assert!(matches!(
        error_in(dir.path()),
        ProcessorError::NoChatTemplate { .. }
    ));
}

#[test]
fn files_that_are_not_json() {
    for name in [
        "config.json",
        PREPROCESSOR,
        "generation_config.json",
        "chat_template.json",
    ] {
        let dir = copy_of("llava-next");
        std::fs::write(dir.path().join(name), "{").unwrap();
        let error = error_in(dir.path());
        assert!(
            matches!(&error, ProcessorError::ConfigSyntax { path, .. } if path.ends_with(name)),
            "{error}"
        );
    }
    let dir = copy_of("llava-next");
    let path = dir.path().join("tokenizer.json");
    let whole = std::fs::read_to_string(&path).unwrap();
    let decoder = whole.find("\"decoder\"").unwrap();
    for damaged in [
        "{}",
        // The tokenizers library panics on these two.
        &whole[..decoder + 12],
        r#"{"normalizer": {"type": "Precompiled", "precompiled_charsmap": 7}}"#,
    ] {
        std::fs::write(&path, damaged).unwrap();
        let error = error_in(dir.path());
        assert!(
            matches!(error, ProcessorError::TokenizerSyntax { .. }),
            "{error}"
        );
    }
}

#[test]
fn missing_fields_are_named() {
    let fields = [
        (
            "qwen-tied",
            "config.json",
            "/image_token_id",
            "image_token_id",
        ),
        (
            "qwen-tied",
            "config.json",
            "/vision_config/patch_size",
            "vision_config.patch_size",
        ),
        ("qwen-tied", PREPROCESSOR, "/image_mean", "image_mean"),
        (
            "llava-15",
            "config.json",
            "/image_token_index",
            "image_token_index",
        ),
        (
            "llava-15",
            "config.json",
            "/vision_config/image_size",
            "vision_config.image_size",
        ),
        ("llava-15", PREPROCESSOR, "/size", "size.shortest_edge"),
        (
            "llava-15",
            PREPROCESSOR,
            "/crop_size/width",
            "crop_size.width",
        ),
        ("llava-next", PREPROCESSOR, "/image_std", "image_std"),
    ];
    for (model, file, pointer, expected) in fields {
        let dir = copy_of(model);
        edit(dir.path(), file, pointer, Value::Null);
        let error = error_in(dir.path());
        assert!(
            matches!(&error, ProcessorError::MissingField { path, field } if path.ends_with(file) && field == expected),
            "{error}"
        );
    }
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table, one row per value")]
fn values_that_cannot_be_used_are_named() {
    let values = [
        ("qwen-tied", PREPROCESSOR, "/resample", json!(2), "resample"),
        (
            "qwen-tied",
            PREPROCESSOR,
            "/do_resize",
            json!(false),
            "do_resize",
        ),
        (
            "qwen-tied",
            PREPROCESSOR,
            "/min_pixels",
            json!(1 << 28),
            "max_pixels",
        ),
        (
            "qwen-tied",
            PREPROCESSOR,
            "/patch_size",
            json!(0),
            "patch_size",
        ),
        (
            "qwen-tied",
            PREPROCESSOR,
            "/patch_size",
            json!(16),
            "vision_config.patch_size",
        ),
        (
            "qwen-tied",
            PREPROCESSOR,
            "/image_std",
            json!([1, 0, 1]),
            "image_std",
        ),
        (
            "llava-15",
            PREPROCESSOR,
            "/image_processor_type",
            json!("SiglipImageProcessor"),
            "image_processor_type",
        ),
        (
            "llava-15",
            PREPROCESSOR,
            "/crop_size",
            json!(70),
            "vision_config.image_size",
        ),
        (
            "llava-15",
            "config.json",
            "/vision_config/model_type",
            json!("siglip_vision_model"),
            "vision_config.model_type",
        ),
        (
            "llava-15",
            "processor_config.json",
            "/vision_feature_select_strategy",
            json!("full"),
            "vision_feature_select_strategy",
        ),
        (
            "llava-15",
            "tokenizer_config.json",
            "/eos_token",
            json!(3),
            "eos_token",
        ),
        (
            "llava-15",
            "generation_config.json",
            "/eos_token_id",
            json!("</s>"),
            "eos_token_id",
        ),
        (
            "llava-next",
            "config.json",
            "/vision_feature_select_strategy",
            json!("full"),
            "vision_feature_select_strategy",
        ),
        (
            "llava-next",
            "config.json",
            "/image_grid_pinpoints",
            json!([[56, 112]]),
            "image_grid_pinpoints",
        ),
        (
            "llava-next",
            PREPROCESSOR,
            "/image_grid_pinpoints",
            json!([[57, 112]]),
            "image_grid_pinpoints",
        ),
        (
            "llava-next",
            PREPROCESSOR,
            "/image_grid_pinpoints",
            json!([]),
            "image_grid_pinpoints",
        ),
    ];
    for (model, file, pointer, value, expected) in values {
        let dir = copy_of(model);
        edit(dir.path(), file, pointer, value);
        if file == "config.json" && pointer.contains("strategy") {
            std::fs::remove_file(dir.path().join("processor_config.json")).unwrap();
        }
        let error = error_in(dir.path());
        assert!(
            matches!(&error, ProcessorError::ConfigValue { field, .. } if field == expected),
            "{error}"
        );
    }
}

#[test]
fn other_architectures_are_named() {
    let dir = copy_of("llava-15");
    edit(
        dir.path(),
        "config.json",
        "/architectures",
        json!(["MllamaForConditionalGeneration"]),
    );
    let error = error_in(dir.path());
    assert!(
        error
            .to_string()
            .contains("MllamaForConditionalGeneration is not supported"),
        "{error}"
    );
    edit(dir.path(), "config.json", "/architectures", Value::Null);
    Processor::from_dir(dir.path()).unwrap(); // model_type is llava
}

#[test]
fn image_token_must_be_in_the_vocabulary() {
    let dir = copy_of("llava-15");
    edit(
        dir.path(),
        "config.json",
        "/image_token_index",
        json!(32_000),
    );
    let error = error_in(dir.path());
    assert!(
        matches!(
            error,
            ProcessorError::TokenIdNotInVocabulary { id: 32_000, .. }
        ),
        "{error}"
    );
}

#[test]
fn other_published_forms_of_the_same_config() {
    let picture = image("image_1.png");
    let expected = |model| {
        common::processor(model)
            .image_processor()
            .process(&picture)
            .unwrap()
    };
    let found = |dir: &Path| {
        Processor::from_dir(dir)
            .unwrap()
            .image_processor()
            .process(&picture)
            .unwrap()
    };

    let dir = copy_of("qwen-tied");
    edit(dir.path(), PREPROCESSOR, "/min_pixels", Value::Null);
    edit(dir.path(), PREPROCESSOR, "/max_pixels", Value::Null);
    edit(
        dir.path(),
        PREPROCESSOR,
        "/size",
        json!({"shortest_edge": 3136, "longest_edge": 100_352}),
    );
    edit(
        dir.path(),
        PREPROCESSOR,
        "/image_processor_type",
        json!("Qwen2VLImageProcessorFast"),
    );
    for default in [
        "/patch_size",
        "/merge_size",
        "/temporal_patch_size",
        "/rescale_factor",
        "/resample",
    ] {
        edit(dir.path(), PREPROCESSOR, default, Value::Null);
    }
    assert_eq!(found(dir.path()), expected("qwen-tied"));

    let dir = copy_of("llava-15");
    edit(dir.path(), PREPROCESSOR, "/size", json!(84));
    edit(dir.path(), PREPROCESSOR, "/crop_size", json!(84));
    std::fs::remove_file(dir.path().join("processor_config.json")).unwrap();
    assert_eq!(found(dir.path()), expected("llava-15"));

    let dir = copy_of("llava-next");
    edit(
        dir.path(),
        PREPROCESSOR,
        "/image_grid_pinpoints",
        Value::Null,
    );
    assert_eq!(found(dir.path()), expected("llava-next"));
}

#[test]
fn strategy_full_counts_the_class_token() {
    let dir = copy_of("llava-15");
    edit(
        dir.path(),
        "config.json",
        "/vision_feature_select_strategy",
        json!("full"),
    );
    edit(
        dir.path(),
        "processor_config.json",
        "/vision_feature_select_strategy",
        json!("full"),
    );
    let processor = Processor::from_dir(dir.path()).unwrap();
    assert_eq!(
        processor
            .image_processor()
            .n_tokens(ImageSize::square(9))
            .unwrap(),
        37
    );
}

#[test]
fn eos_is_looked_for_in_three_places() {
    let dir = copy_of("qwen-tied");
    let eos = || {
        let processor = Processor::from_dir(dir.path()).unwrap();
        let ids = eos_token_ids(dir.path(), processor.tokenizer()).unwrap();
        assert_eq!(&ids, processor.eos_token_ids());
        ids.into_iter().collect::<Vec<_>>()
    };
    assert_eq!(eos(), [560, 562]);
    std::fs::remove_file(dir.path().join("generation_config.json")).unwrap();
    assert_eq!(eos(), [562]);
    edit(dir.path(), "config.json", "/eos_token_id", json!(560));
    assert_eq!(eos(), [560]);
    edit(dir.path(), "config.json", "/eos_token_id", Value::Null);
    assert_eq!(eos(), [562]); // <|im_end|> of the tokenizer
    edit(
        dir.path(),
        "tokenizer_config.json",
        "/eos_token",
        Value::Null,
    );
    assert!(matches!(
        error_in(dir.path()),
        ProcessorError::MissingField { .. }
    ));
}

#[test]
fn templates_in_lists_and_files() {
    let dir = copy_of("llava-15");
    std::fs::remove_file(dir.path().join("chat_template.json")).unwrap();
    let named = |name, text| json!({"name": name, "template": text});
    let rendered = || {
        let processor = Processor::from_dir(dir.path())?;
        Ok::<_, ProcessorError>(
            processor
                .prepare(&Messages::from_prompt(None, "Hi", 0), &[])?
                .rendered,
        )
    };
    let field = "/chat_template";
    edit(
        dir.path(),
        "tokenizer_config.json",
        field,
        json!([named("tool_use", "a"), named("default", "b")]),
    );
    assert_eq!(rendered().unwrap(), "b");
    edit(
        dir.path(),
        "tokenizer_config.json",
        field,
        json!([named("only", "c")]),
    );
    assert_eq!(rendered().unwrap(), "c");
    edit(
        dir.path(),
        "tokenizer_config.json",
        field,
        json!([named("x", "a"), named("y", "b")]),
    );
    assert!(matches!(
        rendered(),
        Err(ProcessorError::ConfigValue { .. })
    ));
    std::fs::write(dir.path().join("chat_template.jinja"), "d\n").unwrap();
    assert_eq!(rendered().unwrap(), "d");
}

#[test]
fn image_files_that_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let limits = ImageOptions::default();
    let error = DecodedImage::open(dir.path().join("no.png"), &limits).unwrap_err();
    assert!(matches!(error, ProcessorError::Io { .. }) && error.to_string().contains("no.png"));
    let error = DecodedImage::open(dir.path(), &limits).unwrap_err();
    assert!(matches!(error, ProcessorError::Io { .. }));
}

/// Computes the CRC-32 that PNG uses.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & 0u32.wrapping_sub(crc & 1))
        })
    })
}

fn with_dimensions(png: &[u8], width: u32, height: u32) -> Vec<u8> {
    let mut png = png.to_vec();
    png[16..20].copy_from_slice(&width.to_be_bytes());
    png[20..24].copy_from_slice(&height.to_be_bytes());
    let crc = crc(&png[12..29]);
    png[29..33].copy_from_slice(&crc.to_be_bytes());
    png
}

#[test]
fn headers_that_lie_are_found_out_before_decoding() {
    let png = std::fs::read(common::fixture("image_0.png")).unwrap();
    let decode = |width, height| {
        DecodedImage::from_bytes(
            &with_dimensions(&png, width, height),
            &ImageOptions::default(),
        )
    };
    assert_eq!(decode(101, 67).unwrap().size(), ImageSize::new(67, 101));
    for (width, height) in [(10_000, 10_000), (65_501, 1)] {
        let error = decode(width, height).unwrap_err();
        assert!(
            matches!(error, ProcessorError::ImageTooLarge { .. }),
            "{error}"
        );
    }
    for (width, height) in [(60_000, 60_000), (1 << 30, 1 << 30)] {
        let error = decode(width, height).unwrap_err();
        assert!(
            matches!(
                error,
                ProcessorError::ImageTooLarge { .. }
                    | ProcessorError::ImageMemory { .. }
                    | ProcessorError::DamagedImage { .. }
            ),
            "{error}"
        );
    }
    // Within the limits, but the file does not have that many pixels.
    let error = decode(8_000, 8_000).unwrap_err();
    assert!(
        matches!(error, ProcessorError::DamagedImage { .. }),
        "{error}"
    );
    let error = decode(0, 5).unwrap_err();
    assert!(
        matches!(
            error,
            ProcessorError::EmptyImage { .. } | ProcessorError::DamagedImage { .. }
        ),
        "{error}"
    );
}
