//! The forms in which checkpoints are published: sharded, with newer tensor names, as PyTorch
//! archives, in half precision, and with or without tensors that can be derived from others.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod reference;

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::DType;
use half::{bf16, f16};
use reference::stored::{Stored, read, rewrite, to_torch_archive, write};
use reference::{Decoding, copy_of, fixtures, load_dirs, question, shape};
use safetensors::Dtype;
use vispec_models::{
    DraftVocab, DtypeChoice, Engine, EngineOptions, KvPrecision, LayerIds, ModelError,
};

/// Converts a tensor to another data type.
fn narrowed(tensor: &Stored, dtype: Dtype) -> Stored {
    let data: Vec<u8> = tensor
        .floats()
        .flat_map(|value| match dtype {
            Dtype::BF16 => bf16::from_f32(value).to_le_bytes(),
            _ => f16::from_f32(value).to_le_bytes(),
        })
        .collect();
    Stored {
        dtype,
        data,
        ..tensor.clone()
    }
}

fn model_dir(model: &str) -> PathBuf {
    fixtures().join("models").join(model)
}

fn draft_dir(draft: &str) -> PathBuf {
    fixtures().join("drafts").join(draft)
}

/// Returns the answer and the acceptance, which depend on every weight of target and draft.
fn trace(engine: &Engine, model: &str) -> (Vec<u32>, Vec<u32>) {
    let prompt = question(engine, model, "Describe the image in detail.");
    let method = engine.default_method();
    let found = Decoding::greedy(24).answer(engine, &prompt, method, shape(3, 8, 30));
    let accepted = found.stats.accepted_per_cycle().to_vec();
    (found.tokens, accepted)
}

fn assert_same(model: &str, target: &Path, draft: &Path) {
    let published_draft = match model {
        "qwen-tied" => "qwen-tied-q2",
        "qwen-untied" => "qwen-untied-q2",
        "llava-next" => "llava-next-q2",
        other => panic!("{other}"),
    };
    let published = load_dirs(
        model_dir(model),
        Some(draft_dir(published_draft)),
        DtypeChoice::Auto,
    );
    let rewritten = load_dirs(target.to_owned(), Some(draft.to_owned()), DtypeChoice::Auto);
    assert_eq!(
        trace(&rewritten, model),
        trace(&published, model),
        "{model}"
    );
}

fn try_load(target: PathBuf, draft: Option<PathBuf>) -> Result<Engine, ModelError> {
    Engine::load(&EngineOptions {
        target,
        draft,
        draft_vocab: DraftVocab::Auto,
        draft_layer_ids: LayerIds::Auto,
        device: reference::test_device().open()?,
        dtype: DtypeChoice::Auto,
        kv: KvPrecision::Auto,
    })
}

/// Splits the weights over two files.
fn shard(dir: &Path) {
    let tensors = read(&dir.join("model.safetensors"));
    fs::remove_file(dir.join("model.safetensors")).unwrap();
    let (first, second) = tensors.split_at(tensors.len() / 2);
    let mut map = serde_json::Map::new();
    for (idx, part) in [first, second].into_iter().enumerate() {
        let name = format!("model-0000{}-of-00002.safetensors", idx + 1);
        write(&dir.join(&name), part);
        map.extend(part.iter().map(|t| (t.name.clone(), name.clone().into())));
    }
    let index = serde_json::json!({"metadata": {"total_size": 0}, "weight_map": map});
    fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

#[test]
fn sharded_files_load_as_one() {
    let target = copy_of("models/qwen-tied");
    let draft = copy_of("drafts/qwen-tied-q2");
    shard(target.path());
    shard(draft.path());
    assert_same("qwen-tied", target.path(), draft.path());
}

#[test]
fn shards_that_are_missing_or_do_not_hold_what_the_index_says_are_named() {
    let target = copy_of("models/qwen-tied");
    shard(target.path());
    let second = target.path().join("model-00002-of-00002.safetensors");
    rewrite_file(&second, |mut tensors| {
        tensors.pop();
        tensors
    });
    let error = try_load(target.path().to_owned(), None).unwrap_err();
    assert!(
        matches!(&error, ModelError::DamagedWeights { path, .. } if *path == second),
        "{error}"
    );
    fs::remove_file(&second).unwrap();
    let error = try_load(target.path().to_owned(), None).unwrap_err();
    assert!(
        matches!(&error, ModelError::Io { path, .. } if *path == second),
        "{error}"
    );
}

fn rewrite_file(path: &Path, change: impl FnOnce(Vec<Stored>) -> Vec<Stored>) {
    let tensors = change(read(path));
    write(path, &tensors);
}

/// The tensor names that transformers writes since 4.52.
#[test]
fn newer_names_load() {
    let renamed = |mut tensors: Vec<Stored>, newer: &dyn Fn(&str) -> String| {
        for tensor in &mut tensors {
            tensor.name = newer(&tensor.name);
        }
        tensors
    };
    let qwen = copy_of("models/qwen-untied");
    rewrite(qwen.path(), |tensors| {
        renamed(tensors, &|name| match name.strip_prefix("model.") {
            Some(rest) => format!("model.language_model.{rest}"),
            None if name.starts_with("visual.") => format!("model.{name}"),
            None => name.to_owned(),
        })
    });
    assert_same("qwen-untied", qwen.path(), &draft_dir("qwen-untied-q2"));

    let llava = copy_of("models/llava-next");
    rewrite(llava.path(), |tensors| {
        renamed(
            tensors,
            &|name| match name.strip_prefix("language_model.") {
                Some(head) if head.starts_with("lm_head.") => head.to_owned(),
                Some(rest) => format!("model.language_model.{}", rest.trim_start_matches("model.")),
                None => format!("model.{name}"),
            },
        )
    });
    assert_same("llava-next", llava.path(), &draft_dir("llava-next-q2"));
}

/// Some files contain a tied head a second time.
#[test]
fn a_tied_head_may_be_in_the_file() {
    let target = copy_of("models/qwen-tied");
    rewrite(target.path(), |mut tensors| {
        let is_embedding = |t: &&Stored| t.name == "model.embed_tokens.weight";
        let mut head = tensors.iter().find(is_embedding).unwrap().clone();
        head.name = "lm_head.weight".into();
        tensors.push(head);
        tensors
    });
    assert_same("qwen-tied", target.path(), &draft_dir("qwen-tied-q2"));
}

#[test]
fn an_untied_head_must_be_in_the_file() {
    let target = copy_of("models/qwen-untied");
    rewrite(target.path(), |mut tensors| {
        tensors.retain(|t| t.name != "lm_head.weight");
        tensors
    });
    let ModelError::Weights { report, .. } = try_load(target.path().into(), None).unwrap_err()
    else {
        panic!("not a weight report");
    };
    assert_eq!(report.missing, ["lm_head.weight"]);
}

/// A draft's embedding is frozen in training, so it equals the target's.
#[test]
fn a_draft_without_an_embedding_uses_the_targets() {
    let draft = copy_of("drafts/qwen-untied-q2");
    rewrite(draft.path(), |mut tensors| {
        let n_before = tensors.len();
        tensors.retain(|t| t.name != "embed_tokens.weight");
        assert_eq!(tensors.len(), n_before - 1);
        tensors
    });
    assert_same("qwen-untied", &model_dir("qwen-untied"), draft.path());
}

/// Drafts are published as archives written by `torch.save`.
#[test]
fn a_pytorch_archive_loads_as_safetensors_do() {
    let draft = copy_of("drafts/qwen-tied-q2");
    to_torch_archive(draft.path());
    let archive = draft.path().join("pytorch_model.bin");
    assert_same("qwen-tied", &model_dir("qwen-tied"), draft.path());

    // Truncated anywhere, it is refused with an error that names the file.
    let bytes = fs::read(&archive).unwrap();
    for len in [0, 1, 100, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&archive, &bytes[..len]).unwrap();
        let error = try_load(model_dir("qwen-tied"), Some(draft.path().into())).unwrap_err();
        assert!(
            error.to_string().contains("pytorch_model.bin"),
            "{len}: {error}"
        );
    }
}

#[test]
fn half_precision_on_disk_loads_as_it_is_and_widened() {
    let pairs = [(Dtype::BF16, DType::BF16), (Dtype::F16, DType::F16)];
    for (on_disk, storage) in pairs {
        let target = copy_of("models/qwen-untied");
        let draft = copy_of("drafts/qwen-untied-q2");
        for dir in [target.path(), draft.path()] {
            rewrite(dir, |tensors| {
                tensors.iter().map(|t| narrowed(t, on_disk)).collect()
            });
        }
        let engine = |dtype| {
            let draft = Some(draft.path().to_owned());
            load_dirs(target.path().to_owned(), draft, dtype)
        };
        let auto = engine(DtypeChoice::Auto);
        assert_eq!(auto.target().precision().storage, storage);
        let wide = engine(DtypeChoice::F32);
        assert_eq!(wide.target().precision().storage, DType::F32);
        // The same numbers in a wider type: widening is lossless.
        assert_eq!(trace(&auto, "qwen-untied"), trace(&wide, "qwen-untied"));
    }
}

/// Reduces a copied checkpoint to the names and shapes of its floating-point tensors.
fn describe(dir: &Path) {
    let path = dir.join("model.safetensors");
    let tensors = read(&path);
    let described = tensors.iter().map(|tensor| {
        let is_norm = tensor.shape.len() == 1 && tensor.name.ends_with(".weight");
        let (mean, deviation) = if is_norm { (1.0, 0.0) } else { (0.0, 0.02) };
        let description = serde_json::json!({
            "shape": tensor.shape, "mean": mean, "deviation": deviation,
        });
        (tensor.name.clone(), description)
    });
    let described = serde_json::Value::Object(described.collect()).to_string();
    let metadata = [("vispec_drawn_tensors".to_owned(), described)];
    let nothing: [(&str, safetensors::tensor::TensorView<'_>); 0] = [];
    safetensors::serialize_to_file(nothing, Some(metadata.into()), &path).unwrap();
}

#[test]
fn weights_that_are_only_described_are_drawn() {
    let (model, name) = ("qwen-untied", "model.safetensors");
    let target = copy_of("models/qwen-untied");
    let draft = copy_of("drafts/qwen-untied-q2");
    let stored = read(&target.path().join(name));
    describe(target.path());
    describe(draft.path());
    let [target_dir, draft_dir] = [&target, &draft].map(|dir| dir.path().to_owned());
    let engine = load_dirs(target_dir.clone(), Some(draft_dir), DtypeChoice::F32);
    let prompt = question(&engine, model, "What is there?");
    let answer = |method| {
        let decoding = Decoding::greedy(12);
        decoding
            .answer(&engine, &prompt, method, shape(3, 4, 16))
            .tokens
    };
    let plain = answer(vispec_models::Method::None);
    assert!(!plain.is_empty());
    assert_eq!(answer(vispec_models::Method::Vispec), plain);

    // Shapes are checked like those of other checkpoints.
    write(&target.path().join("part.safetensors"), &stored[1..]);
    fs::rename(
        target.path().join("part.safetensors"),
        target.path().join(name),
    )
    .unwrap();
    describe(target.path());
    let error = try_load(target_dir, None).unwrap_err();
    assert!(
        matches!(&error, ModelError::Weights { report, .. } if report.missing == [stored[0].name.clone()]),
        "{error}"
    );
}

#[test]
#[cfg(feature = "flex")]
fn weights_that_are_only_described_cannot_be_quantised() {
    let target = copy_of("models/qwen-untied");
    describe(target.path());
    let options = EngineOptions {
        target: target.path().to_owned(),
        draft: None,
        draft_vocab: DraftVocab::Auto,
        draft_layer_ids: LayerIds::Auto,
        device: vispec_models::DeviceSpec::Flex.open().unwrap(),
        dtype: "int8".parse().unwrap(),
        kv: KvPrecision::Auto,
    };
    let error = Engine::load(&options).unwrap_err();
    assert!(
        matches!(&error, ModelError::WeightValue { reason, .. } if reason.contains("no elements")),
        "{error}"
    );
}
