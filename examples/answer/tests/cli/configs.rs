//! Configs that are missing, unreadable, incomplete or absurd, and drafts that do not match.

use serde_json::{Value, json};

use crate::files::Copy;
use crate::program::{Program, draft, model};

fn refuse_target(what: &str, copy: &Copy, names: &[&str]) {
    Program::generate_in(copy.dir())
        .prompt("hi")
        .run()
        .assert_refused(what, 1, names);
}

fn refuse_draft(what: &str, target: &str, copy: &Copy, names: &[&str]) {
    Program::generate(target)
        .path("--draft", copy.dir())
        .prompt("hi")
        .run()
        .assert_refused(what, 1, names);
}

/// Returns the value at a path such as `vision_config.patch_size`; a missing value is created as
/// `null`.
fn field<'v>(config: &'v mut Value, path: &str) -> &'v mut Value {
    path.split('.').fold(config, |value, key| &mut value[key])
}

#[test]
fn files_that_are_missing() {
    for file in ["config.json", "preprocessor_config.json", "tokenizer.json"] {
        let copy = Copy::of(&model("qwen-tied"));
        copy.remove(file);
        refuse_target(file, &copy, &[file, "no such file"]);
    }
    let copy = Copy::of(&draft("qwen-tied-q2"));
    copy.remove("config.json");
    refuse_draft(
        "config",
        "qwen-tied",
        &copy,
        &["config.json", "no such file", "trained with"],
    );
}

#[test]
fn files_that_are_not_json() {
    let contents: [(&str, &[u8]); 5] = [
        ("empty", b""),
        ("text", b"hello"),
        ("cut", b"{\"architectures\": ["),
        ("not UTF-8", b"{\"architectures\": [\"\xff\xfe\"]}"),
        ("a number", b"3"),
    ];
    for (what, bytes) in contents {
        for file in ["config.json", "preprocessor_config.json", "tokenizer.json"] {
            let copy = Copy::of(&model("qwen-tied"));
            copy.write(file, bytes);
            refuse_target(&format!("{what}: {file}"), &copy, &[file]);
        }
        let copy = Copy::of(&draft("qwen-tied-q2"));
        copy.write("config.json", bytes);
        refuse_draft(what, "qwen-tied", &copy, &["config.json"]);
    }
}

#[test]
fn other_architectures_are_refused() {
    let copy = Copy::of(&model("qwen-tied"));
    copy.edit_json("config.json", |config| {
        config["architectures"] = json!(["MagicForConditionalGeneration"]);
        config["model_type"] = json!("magic");
    });
    refuse_target(
        "magic",
        &copy,
        &["config.json", "MagicForConditionalGeneration", "Qwen2_5_VL"],
    );
    let copy = Copy::of(&model("llava-15"));
    copy.edit_json("config.json", |config| {
        config["text_config"]["model_type"] = json!("mamba");
    });
    refuse_target("mamba", &copy, &["config.json", "mamba", "llama"]);
}

/// Fields without which a model cannot be built.
#[test]
fn fields_that_are_missing_are_named() {
    let required = [
        ("qwen-tied", "vision_config"),
        ("qwen-tied", "hidden_size"),
        ("qwen-tied", "num_hidden_layers"),
        ("qwen-tied", "num_attention_heads"),
        ("qwen-tied", "vocab_size"),
        ("qwen-tied", "rms_norm_eps"),
        ("llava-next", "image_token_index"),
    ];
    for (name, field) in required {
        let copy = Copy::of(&model(name));
        copy.edit_json("config.json", |config| {
            config.as_object_mut().unwrap().remove(field).unwrap();
        });
        refuse_target(field, &copy, &["config.json", field]);
    }
    for field in [
        "hidden_size",
        "intermediate_size",
        "num_attention_heads",
        "vocab_size",
    ] {
        let copy = Copy::of(&draft("qwen-tied-q2"));
        copy.edit_json("config.json", |config| {
            config.as_object_mut().unwrap().remove(field).unwrap();
        });
        refuse_draft(field, "qwen-tied", &copy, &["config.json", field]);
    }
}

#[test]
fn absurd_values_are_named() {
    let huge = json!(1u64 << 60);
    let cases = [
        ("qwen-tied", "hidden_size", json!(0)),
        ("qwen-tied", "hidden_size", json!(-64)),
        ("qwen-tied", "hidden_size", json!("wide")),
        ("qwen-tied", "hidden_size", huge.clone()),
        ("qwen-tied", "num_hidden_layers", huge.clone()),
        ("qwen-tied", "num_attention_heads", json!(0)),
        ("qwen-tied", "num_attention_heads", json!(7)),
        ("qwen-tied", "num_key_value_heads", json!(3)),
        ("qwen-tied", "vocab_size", huge.clone()),
        ("qwen-tied", "rms_norm_eps", json!(-1.0)),
        ("qwen-tied", "rope_theta", json!(0.0)),
        ("qwen-tied", "max_position_embeddings", json!(0)),
        ("qwen-tied", "vision_config.patch_size", json!(0)),
        ("qwen-tied", "vision_config.patch_size", huge.clone()),
        ("qwen-tied", "vision_config.depth", huge.clone()),
        ("qwen-tied", "vision_config.num_heads", json!(5)),
        ("qwen-tied", "vision_config.spatial_merge_size", json!(0)),
        ("qwen-tied", "image_token_id", json!(4_000_000_000u32)),
        ("llava-15", "text_config.num_hidden_layers", huge.clone()),
        ("llava-15", "vision_config.image_size", huge.clone()),
        ("llava-15", "vision_config.num_attention_heads", json!(0)),
        ("llava-15", "vision_feature_layer", json!(900)),
        ("llava-next", "image_grid_pinpoints", json!([[0, 0]])),
        (
            "llava-next",
            "image_grid_pinpoints",
            json!([[huge.clone(), 56]]),
        ),
    ];
    for (name, path, value) in cases {
        let copy = Copy::of(&model(name));
        copy.edit_json("config.json", |config| *field(config, path) = value.clone());
        let last = path.rsplit('.').next().unwrap();
        let what = format!("{name}: {path} = {value}");
        let outcome = Program::generate_in(copy.dir()).prompt("hi").run();
        outcome.assert_refused(&what, 1, &["config.json"]);
        // A value of the wrong type is located by line and column instead.
        let is_placed = outcome.stderr.contains(last) || outcome.stderr.contains("line 1");
        assert!(is_placed, "{what}: {}", outcome.stderr);
    }
}

/// More or wider layers than in the file: the error names the tensors, and no memory is allocated.
#[test]
fn a_config_of_a_larger_model_names_the_tensors() {
    let cases = [
        ("num_hidden_layers", json!(1000), "missing"),
        ("intermediate_size", json!(1 << 20), "misshapen"),
        ("vocab_size", json!(1 << 24), "misshapen"),
    ];
    for (path, value, kind) in cases {
        let copy = Copy::of(&model("qwen-tied"));
        copy.edit_json("config.json", |config| *field(config, path) = value.clone());
        refuse_target(path, &copy, &[kind, copy.dir().to_str().unwrap()]);
    }
}

#[test]
fn a_draft_of_another_target_is_refused() {
    // Hidden size and vocabulary size, both from the config.
    for (target, name, quantity) in [
        ("qwen-tied", "qwen-untied-q2", "hidden size"),
        ("qwen-tied", "llava-next-q2", ""),
        ("llava-15", "llava-next-q2", ""),
    ] {
        let copy = Copy::of(&draft(name));
        refuse_draft(name, target, &copy, &["does not fit", quantity]);
    }
    let copy = Copy::of(&draft("qwen-tied-q2"));
    copy.edit_json("config.json", |config| config["vocab_size"] = json!(9999));
    refuse_draft(
        "vocabulary",
        "qwen-tied",
        &copy,
        &["vocabulary size is 9999", "does not fit"],
    );
    // A matching config with weights that do not match.
    let copy = Copy::of(&draft("qwen-tied-q2"));
    let other = std::fs::read(draft("llava-15-q2").join("model.safetensors")).unwrap();
    copy.write("model.safetensors", &other);
    refuse_draft(
        "weights",
        "qwen-tied",
        &copy,
        &["weights do not fit the config"],
    );
}

#[test]
fn a_target_is_no_draft_and_a_draft_no_target() {
    let target = Copy::of(&model("qwen-tied"));
    refuse_draft(
        "target as draft",
        "qwen-tied",
        &target,
        &[target.dir().to_str().unwrap()],
    );
    let copy = Copy::of(&draft("qwen-tied-q2"));
    refuse_target("draft as target", &copy, &[copy.dir().to_str().unwrap()]);
}
