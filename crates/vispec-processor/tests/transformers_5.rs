//! Inputs of checkpoints saved by transformers 5, which describes the image processor in
//! `processor_config.json`.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{copy_of, edit, image, json, messages, strings};
use serde_json::json as value;
use vispec_processor::{Processor, ProcessorError};

/// Returns the folder with the files that transformers 5 wrote, in `fixtures` of the repository.
fn saved(model: &str) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    fixtures.join("transformers-5").join(model)
}

/// Creates a checkpoint without weights in the layout of transformers 5.
fn checkpoint(model: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = common::fixture(model).join("tokenizer.json");
    fs::copy(tokenizer, dir.path().join("tokenizer.json")).unwrap();
    for entry in fs::read_dir(saved(model)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    dir
}

#[test]
fn prompts_are_those_of_the_old_layout() {
    for model in ["qwen-tied", "llava-15", "llava-next"] {
        let dir = checkpoint(model);
        let new = Processor::from_dir(dir.path()).unwrap();
        let old = common::processor(model);
        assert_eq!(new.eos_token_ids(), old.eos_token_ids(), "{model}");
        assert_eq!(new.context_limit(), old.context_limit(), "{model}");
        let mut n_images = 0;
        for case in json("prompts.json").as_array().unwrap() {
            if case["model"] != model {
                continue;
            }
            let images: Vec<_> = strings(&case["images"]).into_iter().map(image).collect();
            n_images += images.len();
            let messages = messages(&case["messages"]);
            let expected = old.prepare(&messages, &images).unwrap();
            assert!(
                new.prepare(&messages, &images).unwrap() == expected,
                "{case}"
            );
        }
        assert!(n_images > 0, "{model}");
    }
}

#[test]
fn what_processor_config_says_of_images_comes_first() {
    let dir = copy_of("qwen-tied");
    let mut section = json("qwen-tied/preprocessor_config.json");
    section["max_pixels"] = value!(56 * 56);
    let config = value!({"image_processor": section});
    fs::write(dir.path().join("processor_config.json"), config.to_string()).unwrap();
    let n_tokens = |processor: &Processor| {
        let image = image("image_0.png");
        processor.image_processor().n_tokens(image.size()).unwrap()
    };
    assert!(n_tokens(&Processor::from_dir(dir.path()).unwrap()) <= 4);
    assert!(n_tokens(&common::processor("qwen-tied")) > 4);
}

#[test]
fn errors_name_the_field_with_its_section() {
    let dir = checkpoint("llava-15");
    let file = "processor_config.json";
    edit(dir.path(), file, "/image_processor/resample", value!(2));
    let error = Processor::from_dir(dir.path()).unwrap_err();
    assert!(
        matches!(&error, ProcessorError::ConfigValue { path, field, .. }
            if path.ends_with(file) && field == "image_processor.resample"),
        "{error}"
    );
    edit(
        dir.path(),
        file,
        "/image_processor/image_mean",
        value!(null),
    );
    edit(dir.path(), file, "/image_processor/resample", value!(3));
    let error = Processor::from_dir(dir.path()).unwrap_err();
    assert!(
        matches!(&error, ProcessorError::MissingField { field, .. } if field == "image_processor.image_mean"),
        "{error}"
    );
    edit(dir.path(), file, "/image_processor", value!(7));
    let error = Processor::from_dir(dir.path()).unwrap_err();
    assert!(
        matches!(&error, ProcessorError::ConfigValue { field, .. } if field == "image_processor"),
        "{error}"
    );
}
