//! The forms of EAGLE-3 draft checkpoints, and checkpoints that cannot be used: errors name the
//! file and the field.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod reference;

use std::fs;
use std::path::Path;

use reference::eagle3::{draft_dir, prompt};
use reference::stored::{Stored, rewrite, to_torch_archive};
use reference::{Decoding, copy_of, fixtures, shape};
use safetensors::Dtype;
use serde_json::{Value, json};
use tempfile::TempDir;
use vispec_core::TreeShape;
use vispec_models::{
    DraftVocab, DtypeChoice, Engine, EngineOptions, KvPrecision, LayerIds, Method, ModelError,
};

fn options(draft: &Path) -> EngineOptions {
    EngineOptions {
        target: fixtures().join("models/qwen-tied"),
        draft: Some(draft.to_owned()),
        draft_vocab: DraftVocab::Auto,
        draft_layer_ids: LayerIds::Auto,
        device: reference::test_device().open().unwrap(),
        dtype: DtypeChoice::F32,
        kv: KvPrecision::Auto,
    }
}

fn refused(options: &EngineOptions) -> ModelError {
    Engine::load(options).unwrap_err()
}

/// Returns the answer and the acceptance, which depend on every weight of the draft.
fn trace(options: &EngineOptions) -> (Vec<u32>, Vec<u32>) {
    let engine = Engine::load(options).unwrap();
    let prompt = prompt(&engine, "img-short");
    let found = Decoding::greedy(24).answer(&engine, &prompt, Method::Eagle3, shape(3, 8, 30));
    let accepted = found.stats.accepted_per_cycle().to_vec();
    (found.tokens, accepted)
}

fn copy(dialect: &str) -> TempDir {
    copy_of(&format!("drafts/qwen-tied-eagle3-{dialect}"))
}

fn change_config(dir: &Path, change: impl FnOnce(&mut Value)) {
    let path = dir.join("config.json");
    let mut config = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut config);
    fs::write(path, config.to_string()).unwrap();
}

fn change_tensor(dir: &Path, name: &str, change: impl FnOnce(&mut Stored)) {
    rewrite(dir, |mut tensors| {
        change(
            tensors
                .iter_mut()
                .find(|tensor| tensor.name == name)
                .unwrap(),
        );
        tensors
    });
}

#[test]
fn a_pytorch_archive_loads_as_safetensors_do() {
    let draft = copy("sglang");
    to_torch_archive(draft.path());
    let expected = trace(&options(&draft_dir("sglang")));
    assert_eq!(trace(&options(draft.path())), expected);
}

/// The form that the EAGLE authors publish: the target's architecture and no list of layers. A
/// target with four layers is too small for three default states.
#[test]
fn a_config_without_layers_means_the_default() {
    let draft = copy("sglang");
    change_config(draft.path(), |config| {
        config["architectures"][0] = "LlamaForCausalLM".into();
        config.as_object_mut().unwrap().remove("eagle_config");
    });
    let ModelError::Weights { report, .. } = refused(&options(draft.path())) else {
        panic!("not a weight report");
    };
    let fc = &report.misshapen[0];
    assert_eq!(
        (fc.name.as_str(), &fc.expected[..]),
        ("fc.weight", &[64, 128][..])
    );
    change_config(draft.path(), |config| {
        config["eagle_config"] = json!({"eagle_aux_hidden_state_layer_ids": [0, 1, 2]});
    });
    assert_eq!(
        trace(&options(draft.path())),
        trace(&options(&draft_dir("sglang")))
    );
}

#[test]
fn tables_may_be_missing_or_of_other_types() {
    let draft = copy("sglang");
    let expected = trace(&options(draft.path()));
    change_tensor(draft.path(), "d2t", |table| {
        let values = table.data.chunks_exact(8);
        table.data = values.flat_map(|value| value[..4].to_vec()).collect();
        table.dtype = Dtype::I32;
    });
    change_tensor(draft.path(), "t2d", |table| table.dtype = Dtype::U8);
    assert_eq!(trace(&options(draft.path())), expected);
    rewrite(draft.path(), |mut tensors| {
        tensors.retain(|tensor| tensor.name != "t2d");
        tensors
    });
    assert_eq!(trace(&options(draft.path())), expected);
    rewrite(draft.path(), |mut tensors| {
        tensors.retain(|tensor| tensor.name != "d2t");
        tensors
    });
    let ModelError::Weights { report, .. } = refused(&options(draft.path())) else {
        panic!("not a weight report");
    };
    assert_eq!(report.missing, ["d2t"]);
}

#[test]
fn tables_that_make_no_sense_are_named() {
    let set = |table: &mut Stored, id: usize, offset: i64| {
        table.data[8 * id..8 * (id + 1)].copy_from_slice(&offset.to_le_bytes());
    };
    type Change = Box<dyn Fn(&mut Stored)>;
    let cases: [(&str, Change, &[&str]); 8] = [
        (
            "d2t",
            Box::new(move |t| set(t, 9, 640)),
            &["draft id 9", "640"],
        ),
        (
            "d2t",
            Box::new(move |t| set(t, 9, -10)),
            &["draft id 9", "-10"],
        ),
        (
            "d2t",
            Box::new(move |t| set(t, 9, i64::MAX)),
            &["draft id 9"],
        ),
        // Draft ids 0 and 1 both map to token 1.
        (
            "d2t",
            Box::new(move |t| {
                set(t, 0, 1);
                set(t, 1, 0);
            }),
            &["token id 1 occurs twice"],
        ),
        ("t2d", Box::new(|t| t.data[3] ^= 1), &["d2t", "token id 3"]),
        ("d2t", Box::new(|t| t.dtype = Dtype::F64), &["F64"]),
        (
            "d2t",
            Box::new(|t| {
                t.data.truncate(8 * 255);
                t.shape = vec![255];
            }),
            &["255", "256"],
        ),
        (
            "t2d",
            Box::new(|t| {
                t.data.pop();
                t.shape = vec![639];
            }),
            &["639", "640"],
        ),
    ];
    for (tensor, change, named) in cases {
        let draft = copy("sglang");
        change_tensor(draft.path(), tensor, change);
        let error = refused(&options(draft.path())).to_string();
        for name in [tensor, draft.path().to_str().unwrap()].iter().chain(named) {
            assert!(error.contains(name), "{name}: {error}");
        }
    }
}

#[test]
fn configs_that_cannot_be_used_are_named() {
    let rope = |rope: Value| move |config: &mut Value| config["rope_scaling"] = rope;
    let set = |field: &'static str, value: Value| move |config: &mut Value| config[field] = value;
    type Change = Box<dyn FnOnce(&mut Value)>;
    let cases: Vec<(Change, &[&str])> = vec![
        (
            Box::new(set("architectures", json!(["Eagle3DeepseekForCausalLM"]))),
            &["Eagle3DeepseekForCausalLM", "Eagle3Speculator"],
        ),
        (
            Box::new(rope(json!({"rope_type": "yarn", "factor": 2.0}))),
            &["rope_scaling.rope_type", "yarn"],
        ),
        (
            Box::new(rope(json!({"type": "mrope", "mrope_section": [2, 3, 4]}))),
            &["rope_scaling.mrope_section", "[2, 3, 4]"],
        ),
        (
            Box::new(rope(json!({"mrope_interleaved": true}))),
            &["mrope_section"],
        ),
        (
            Box::new(set(
                "eagle_config",
                json!({"eagle_aux_hidden_state_layer_ids": [0, 1, 4]}),
            )),
            &["eagle_config.eagle_aux_hidden_state_layer_ids", "[0, 1, 4]"],
        ),
        (
            Box::new(set("eagle_config", json!({"use_aux_hidden_state": false}))),
            &["eagle_config.use_aux_hidden_state"],
        ),
        (
            Box::new(set("num_hidden_layers", json!(2))),
            &["num_hidden_layers"],
        ),
        (Box::new(set("norm_output", json!(false))), &["norm_output"]),
        (Box::new(set("fc_norm", json!(true))), &["fc_norm"]),
        (
            Box::new(set("attention_bias", json!(true))),
            &["attention_bias"],
        ),
        (
            Box::new(set("hidden_act", json!("gelu"))),
            &["hidden_act", "gelu"],
        ),
        (
            Box::new(set("draft_vocab_size", json!(641))),
            &["draft_vocab_size", "641"],
        ),
        (
            Box::new(set("draft_vocab_size", json!(0))),
            &["draft_vocab_size", "0"],
        ),
    ];
    for (change, named) in cases {
        let draft = copy("sglang");
        change_config(draft.path(), change);
        let error = refused(&options(draft.path())).to_string();
        for name in ["config.json"].iter().chain(named) {
            assert!(error.contains(name), "{name}: {error}");
        }
    }
    let draft = copy("speculators");
    change_config(draft.path(), |config| config["norm_output"] = true.into());
    let error = refused(&options(draft.path())).to_string();
    assert!(error.contains("norm_output"), "{error}");
    change_config(draft.path(), |config| {
        config["norm_output"] = Value::Null;
        config["transformer_layer_config"]["rms_norm_eps"] = (-1.0).into();
    });
    let error = refused(&options(draft.path())).to_string();
    assert!(
        error.contains("transformer_layer_config.rms_norm_eps"),
        "{error}"
    );
}

#[test]
fn drafts_for_other_targets_are_refused() {
    for (field, value, named) in [
        ("hidden_size", 32, "hidden size"),
        ("target_hidden_size", 128, "target hidden size"),
        ("vocab_size", 641, "vocabulary size"),
    ] {
        let draft = copy("sglang");
        change_config(draft.path(), |config| config[field] = value.into());
        let error = refused(&options(draft.path()));
        assert!(matches!(error, ModelError::DraftMismatch { .. }), "{error}");
        let error = error.to_string();
        assert!(
            error.contains(named) && error.contains(&value.to_string()),
            "{error}"
        );
    }
    // Fewer states than the weights require.
    let draft = copy("vllm-mrope");
    change_config(draft.path(), |config| {
        config["eagle_aux_hidden_state_layer_ids"] = json!([1, 2]);
    });
    let error = refused(&options(draft.path())).to_string();
    assert!(
        error.contains("fc.weight is [64, 192], expected [64, 128]"),
        "{error}"
    );
    let other = EngineOptions {
        target: fixtures().join("models/qwen-untied"),
        ..options(&draft_dir("sglang"))
    };
    let error = refused(&other);
    assert!(matches!(error, ModelError::DraftMismatch { .. }), "{error}");
}

#[test]
fn layer_ids_that_are_ambiguous_can_be_chosen() {
    let draft = copy("sglang");
    change_config(draft.path(), |config| {
        let ids = config["eagle_config"].take();
        config["eagle_aux_hidden_state_layer_ids"] =
            ids["eagle_aux_hidden_state_layer_ids"].clone();
    });
    let mut options = options(draft.path());
    let error = refused(&options);
    assert!(
        matches!(error, ModelError::AmbiguousLayerIds { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("--draft-layer-ids"), "{error}");
    options.draft_layer_ids = LayerIds::Outputs;
    let expected = trace(&self::options(&draft_dir("sglang")));
    assert_eq!(trace(&options), expected);
    options.draft_layer_ids = LayerIds::Inputs;
    let found = trace(&options);
    assert_eq!(found.0, expected.0, "the answer must not depend on it");
    assert_ne!(found.1, expected.1);
}

#[test]
fn tokens_of_a_head_of_its_own_cannot_be_chosen() {
    let dir = draft_dir("sglang");
    let with = |draft_vocab| EngineOptions {
        draft_vocab,
        ..options(&dir)
    };
    assert_eq!(
        trace(&with(DraftVocab::All)),
        trace(&with(DraftVocab::Auto))
    );
    for vocab in [DraftVocab::First(100), DraftVocab::File("list.json".into())] {
        let error = refused(&with(vocab));
        assert!(matches!(error, ModelError::DraftVocab { .. }), "{error}");
    }
    let engine = Engine::load(&options(&dir)).unwrap();
    let error = engine
        .drafter(Method::Eagle2, TreeShape::default())
        .unwrap_err();
    assert!(matches!(error, ModelError::DraftKind { .. }), "{error}");
}

/// If the layer names of a draft match no dialect, the error lists the missing tensors.
#[test]
fn missing_tensors_are_named() {
    let draft = copy("sglang");
    rewrite(draft.path(), |mut tensors| {
        tensors.retain(|tensor| !tensor.name.ends_with("hidden_norm.weight"));
        tensors
    });
    let ModelError::Weights { report, .. } = refused(&options(draft.path())) else {
        panic!("not a weight report");
    };
    assert_eq!(report.missing, ["layers.0.hidden_norm.weight"]);
    fs::remove_file(draft.path().join("config.json")).unwrap();
    let error = refused(&options(draft.path()));
    assert!(matches!(error, ModelError::MissingConfig { .. }), "{error}");
}
