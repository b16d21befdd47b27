//! The tiny checkpoint, and what is refused.

use std::collections::BTreeSet;

use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use serde_json::Value;

use super::*;

fn flags(out: PathBuf) -> RandomCheckpointFlags {
    RandomCheckpointFlags {
        shape: ShapeName::Tiny,
        out,
        seed: 7,
    }
}

fn fixture() -> PathBuf {
    crate::root().join("fixtures/models/qwen-tied")
}

fn json(dir: &Path, name: &str) -> Value {
    serde_json::from_slice(&fs::read(dir.join(name)).unwrap()).unwrap()
}

#[test]
fn the_tiny_checkpoint_has_the_tensors_of_its_shape() {
    let parent = tempfile::tempdir().unwrap();
    let out = parent.path().join("tiny");
    write(&flags(out.clone()), &fixture()).unwrap();

    let index = json(&out, "model.safetensors.index.json");
    let map = index["weight_map"].as_object().unwrap();
    let files: BTreeSet<&str> = map.values().map(|file| file.as_str().unwrap()).collect();
    assert!(files.len() > 1, "one file only");
    let shape = ShapeName::Tiny.shape();
    let mut expected = shape.tensors();
    let mut total = 0;
    for file in files {
        let bytes = fs::read(out.join(file)).unwrap();
        let parsed = SafeTensors::deserialize(&bytes).unwrap();
        for (name, view) in parsed.iter() {
            assert_eq!(map[name], file);
            assert_eq!(view.dtype(), Dtype::BF16);
            let place = expected.iter().position(|tensor| tensor.name == name);
            let tensor = expected.swap_remove(place.unwrap());
            assert_eq!(view.shape(), tensor.dims);
            let ones = view.data().chunks(2).all(|pair| pair == [0x80, 0x3f]);
            assert_eq!(ones, tensor.is_norm(), "{name}");
            total += view.data().len();
        }
    }
    assert!(expected.is_empty(), "not written: {expected:?}");
    assert_eq!(index["metadata"]["total_size"], total);
}

/// The tiny fixture was written by the reference implementation.
#[test]
fn tensor_names_are_those_of_the_fixture() {
    let bytes = fs::read(fixture().join("model.safetensors")).unwrap();
    let parsed = SafeTensors::deserialize(&bytes).unwrap();
    let real: BTreeSet<&str> = parsed.names().into_iter().collect();
    let tensors = ShapeName::Tiny.shape().tensors();
    for tensor in &tensors {
        assert!(real.contains(tensor.name.as_str()), "{}", tensor.name);
    }
    let without_digits = |name: &str| name.replace(|c: char| c.is_ascii_digit(), "");
    let kinds =
        |names: Vec<&str>| -> BTreeSet<String> { names.into_iter().map(without_digits).collect() };
    let ours = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(kinds(ours), kinds(real.into_iter().collect()));
}

#[test]
fn the_3b_shape_has_the_published_number_of_parameters() {
    let tensors = ShapeName::Qwen25Vl3b.shape().tensors();
    let parameters: usize = tensors.iter().map(shape::TensorShape::len).sum();
    assert_eq!(parameters, 3_754_622_976);
}

#[test]
fn the_tokenizer_covers_the_vocabulary_and_agrees_with_the_config() {
    let parent = tempfile::tempdir().unwrap();
    let out = parent.path().join("tiny");
    write(&flags(out.clone()), &fixture()).unwrap();

    let tokenizer = json(&out, "tokenizer.json");
    let added = tokenizer["added_tokens"].as_array().unwrap();
    let mut ids: Vec<u64> = tokenizer["model"]["vocab"]
        .as_object()
        .unwrap()
        .values()
        .map(|id| id.as_u64().unwrap())
        .chain(added.iter().map(|token| token["id"].as_u64().unwrap()))
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..1_024).collect::<Vec<_>>());

    let id = |content: &str| {
        let token = added.iter().find(|token| token["content"] == content);
        token.unwrap()["id"].clone()
    };
    let config = json(&out, "config.json");
    assert_eq!(config["image_token_id"], id("<|image_pad|>"));
    assert_eq!(config["eos_token_id"], id("<|im_end|>"));
    assert_eq!(config["vocab_size"], 1_024);
    assert_eq!(config["vision_config"]["out_hidden_size"], 64);
    let generation = json(&out, "generation_config.json");
    assert_eq!(generation["eos_token_id"][1], id("<|endoftext|>"));
    let named = &json(&out, "tokenizer_config.json")["added_tokens_decoder"];
    let key = id("<|im_start|>").to_string();
    assert_eq!(named[key]["content"], "<|im_start|>");
}

#[test]
fn nothing_is_overwritten_and_nothing_half_done_is_left() {
    let parent = tempfile::tempdir().unwrap();
    let error = write(&flags(parent.path().to_owned()), &fixture()).unwrap_err();
    assert!(error.to_string().contains("exists already"), "{error}");

    let out = parent.path().join("tiny");
    let error = write(&flags(out), &parent.path().join("no-fixture")).unwrap_err();
    assert!(error.to_string().contains("no-fixture"), "{error}");
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
}
