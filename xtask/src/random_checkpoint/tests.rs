//! Tests of the tiny checkpoints and of refused arguments.

use std::collections::BTreeSet;

use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use serde_json::Value;

use super::*;

const TINY: [ShapeName; 2] = [ShapeName::Tiny, ShapeName::TinyQwen3];

fn flags(shape: ShapeName, out: PathBuf) -> RandomCheckpointFlags {
    RandomCheckpointFlags {
        shape,
        out,
        eagle3: None,
        weights: WeightsKept::Stored,
        seed: 7,
    }
}

fn models() -> PathBuf {
    crate::root().join("fixtures/models")
}

fn json(dir: &Path, name: &str) -> Value {
    serde_json::from_slice(&fs::read(dir.join(name)).unwrap()).unwrap()
}

#[test]
fn tiny_checkpoints_have_the_tensors_of_their_shapes() {
    let parent = tempfile::tempdir().unwrap();
    for name in TINY {
        check_tensors(name, parent.path().join(format!("{name:?}")));
    }
}

fn check_tensors(name: ShapeName, out: PathBuf) {
    write(&flags(name, out.clone()), &models()).unwrap();

    let index = json(&out, "model.safetensors.index.json");
    let map = index["weight_map"].as_object().unwrap();
    let files: BTreeSet<&str> = map.values().map(|file| file.as_str().unwrap()).collect();
    assert!(files.len() > 1, "one file only");
    let shape = name.shape();
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

/// The tiny fixtures were written by the reference implementation.
#[test]
fn tensor_names_are_those_of_the_fixtures() {
    for name in TINY {
        let shape = name.shape();
        let file = models().join(shape.family.fixture());
        let bytes = fs::read(file.join("model.safetensors")).unwrap();
        let parsed = SafeTensors::deserialize(&bytes).unwrap();
        let real: BTreeSet<&str> = parsed.names().into_iter().collect();
        let tensors = shape.tensors();
        for tensor in &tensors {
            assert!(real.contains(tensor.name.as_str()), "{}", tensor.name);
        }
        let without_digits = |name: &str| name.replace(|c: char| c.is_ascii_digit(), "");
        let kinds = |names: Vec<&str>| -> BTreeSet<String> {
            names.into_iter().map(without_digits).collect()
        };
        let ours = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
        assert_eq!(kinds(ours), kinds(real.into_iter().collect()));
    }
}

#[test]
fn shapes_have_the_published_numbers_of_parameters() {
    for (name, expected) in [
        (ShapeName::Qwen25Vl3b, 3_754_622_976),
        (ShapeName::Qwen25Vl7b, 8_292_166_656),
        (ShapeName::Qwen3Vl2b, 2_127_532_032),
        (ShapeName::Qwen3Vl4b, 4_437_815_808),
    ] {
        let tensors = name.shape().tensors();
        let parameters: usize = tensors.iter().map(shape::TensorShape::len).sum();
        assert_eq!(parameters, expected, "{name:?}");
    }
}

#[test]
fn the_tokenizer_covers_the_vocabulary_and_agrees_with_the_config() {
    let parent = tempfile::tempdir().unwrap();
    for name in TINY {
        check_tokenizer(name, parent.path().join(format!("{name:?}")));
    }
}

fn check_tokenizer(name: ShapeName, out: PathBuf) {
    write(&flags(name, out.clone()), &models()).unwrap();

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
    let text = config.get("text_config").unwrap_or(&config);
    assert_eq!(text["eos_token_id"], id("<|im_end|>"));
    assert_eq!(text["vocab_size"], 1_024);
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
    let error = write(&flags(ShapeName::Tiny, parent.path().to_owned()), &models()).unwrap_err();
    assert!(error.to_string().contains("exists already"), "{error}");

    let out = parent.path().join("tiny");
    let error = write(
        &flags(ShapeName::Tiny, out),
        &parent.path().join("no-fixture"),
    )
    .unwrap_err();
    assert!(error.to_string().contains("no-fixture"), "{error}");
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
}

#[test]
fn drafts_have_the_tensors_of_published_ones() {
    let parent = tempfile::tempdir().unwrap();
    let draft = parent.path().join("draft");
    let flags = RandomCheckpointFlags {
        eagle3: Some(draft.clone()),
        ..flags(ShapeName::TinyQwen3, parent.path().join("target"))
    };
    write(&flags, &models()).unwrap();
    assert!(flags.out.join("config.json").exists());

    let carried = models().join("../drafts/qwen3-untied-eagle3-vllm-mrope-qwen3vl");
    let config = json(&draft, "config.json");
    assert_eq!(
        config["architectures"],
        json(&carried, "config.json")["architectures"]
    );
    assert_eq!(config["rope_scaling"]["mrope_interleaved"], true);
    let bytes = fs::read(draft.join("model.safetensors")).unwrap();
    let ours = SafeTensors::deserialize(&bytes).unwrap();
    let bytes = fs::read(carried.join("model.safetensors")).unwrap();
    let carried = SafeTensors::deserialize(&bytes).unwrap();
    let names = |tensors: &SafeTensors<'_>| -> BTreeSet<String> {
        let names = tensors.names().into_iter();
        names.map(str::to_owned).collect()
    };
    // The draft uses the target's embedding, and one token table is enough.
    let mut expected = names(&carried);
    expected.retain(|name| !["embed_tokens.weight", "t2d"].contains(&&name[..]));
    assert_eq!(names(&ours), expected);

    let table = ours.tensor("d2t").unwrap();
    let offsets = table.data().as_chunks::<8>().0.iter();
    let offsets = offsets.map(|&bytes| i64::from_le_bytes(bytes));
    let tokens: BTreeSet<i64> = (0..).zip(offsets).map(|(id, offset)| id + offset).collect();
    assert_eq!(tokens.len(), 256);
    assert!(tokens.iter().all(|token| (0..1_024).contains(token)));
    assert_eq!(ours.tensor("lm_head.weight").unwrap().shape(), [256, 64]);
    let large = eagle3::tensors(&ShapeName::Qwen3Vl4b.shape());
    let head = large.iter().find(|tensor| tensor.name == "lm_head.weight");
    assert_eq!(head.unwrap().dims, [32_000, 2_560]);
}

#[test]
fn a_draft_needs_a_target_of_three_layers() {
    let parent = tempfile::tempdir().unwrap();
    let flags = RandomCheckpointFlags {
        eagle3: Some(parent.path().join("draft")),
        ..flags(ShapeName::Tiny, parent.path().join("target"))
    };
    let error = write(&flags, &models()).unwrap_err();
    assert!(error.to_string().contains("has 2 layers"), "{error}");
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
}

#[test]
fn descriptions_have_the_tensors_that_would_be_stored() {
    let parent = tempfile::tempdir().unwrap();
    let [out, draft] = ["target", "draft"].map(|name| parent.path().join(name));
    describe(ShapeName::TinyQwen3, out.clone(), draft.clone(), &models()).unwrap();
    let described = |dir: &Path| -> (Value, Vec<String>) {
        let bytes = fs::read(dir.join("model.safetensors")).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let text = &header.metadata().as_ref().unwrap()["vispec_drawn_tensors"];
        let stored = SafeTensors::deserialize(&bytes).unwrap();
        let stored = stored.names().into_iter().map(str::to_owned).collect();
        (serde_json::from_str(text).unwrap(), stored)
    };
    let shape = ShapeName::TinyQwen3.shape();
    let (tensors, stored) = described(&out);
    assert!(stored.is_empty());
    assert_eq!(tensors.as_object().unwrap().len(), shape.tensors().len());
    let norm = &tensors["model.language_model.norm.weight"];
    assert_eq!(norm["shape"], serde_json::json!([64]));
    assert_eq!([&norm["mean"], &norm["deviation"]], [1.0, 0.0]);
    let table = &tensors["model.language_model.embed_tokens.weight"];
    assert_eq!(table["shape"], serde_json::json!([1_024, 64]));
    assert_eq!(table["mean"], 0.0);
    assert!(table["deviation"].as_f64().unwrap() > 0.0);

    let (tensors, stored) = described(&draft);
    assert_eq!(stored, ["d2t"]);
    let n_expected = eagle3::tensors(&shape).len();
    assert_eq!(tensors.as_object().unwrap().len(), n_expected);
    assert!(fs::metadata(out.join("model.safetensors")).unwrap().len() < 100_000);
}
