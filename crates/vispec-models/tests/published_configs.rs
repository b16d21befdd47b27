//! Tests with published `config.json` files. `VISPEC_PUBLISHED` names a folder with the folders of
//! the checkpoints. Missing folders are skipped, and a line reports it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::print_stderr, reason = "skipped tests are reported")]

use std::path::PathBuf;

use vispec_models::llava::LlavaConfig;
use vispec_models::qwen2_5_vl::QwenConfig;

const VARIABLE: &str = "VISPEC_PUBLISHED";

/// Returns the folder of a checkpoint, if it exists.
fn folder(name: &str) -> Option<PathBuf> {
    let Some(root) = std::env::var_os(VARIABLE) else {
        eprintln!("skipped: {VARIABLE} does not name a folder with published text files");
        return None;
    };
    let dir = PathBuf::from(root).join(name);
    if !dir.is_dir() {
        eprintln!("skipped: {} does not exist", dir.display());
        return None;
    }
    Some(dir)
}

#[test]
fn qwen_has_the_published_shapes() {
    let Some(dir) = folder("Qwen2.5-VL-7B-Instruct") else {
        return;
    };
    let config = QwenConfig::read(&dir).unwrap();
    let decoder = config.decoder();
    assert_eq!(
        (decoder.layers, decoder.hidden, decoder.kv_heads),
        (28, 3584, 4)
    );
    assert_eq!(
        (config.vocab_size, config.context_len()),
        (152_064, 128_000)
    );
    assert_eq!(config.rotary_sections(), [16, 24, 24]);
    assert_eq!(config.vision.full_attention_blocks, [7, 15, 23, 31]);
}

#[test]
fn llava_has_the_published_shapes() {
    let Some(dir) = folder("llava-1.5-7b-hf") else {
        return;
    };
    let config = LlavaConfig::read(&dir).unwrap();
    let decoder = config.decoder();
    assert_eq!(
        (decoder.layers, decoder.hidden, decoder.kv_heads),
        (32, 4096, 32)
    );
    assert_eq!((config.vocab_size(), config.context_len()), (32_064, 4096));
    assert_eq!((config.vision.grid_side(), config.feature_layers), (24, 23));
}
