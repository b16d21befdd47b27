//! Tests of accepted layouts and refused values.

use serde_json::{Value, json};

use super::*;
use crate::qwen2_5_vl::golden::{changed_config, model_dir};

fn read(change: impl FnOnce(&mut Value)) -> Result<QwenConfig, ModelError> {
    QwenConfig::read(changed_config("qwen-tied", change).path())
}

fn original() -> QwenConfig {
    QwenConfig::read(&model_dir("qwen-tied")).unwrap()
}

/// Asserts that a config equals the original except for its path.
#[track_caller]
fn assert_same(found: &QwenConfig) {
    let expected = original();
    assert_eq!(found.decoder(), expected.decoder());
    assert_eq!(found.rotary_sections(), expected.rotary_sections());
    assert_eq!(found.context_len(), expected.context_len());
    assert_eq!(found.vocab_size, expected.vocab_size);
    assert_eq!(found.tie_word_embeddings, expected.tie_word_embeddings);
}

#[test]
fn published_layout() {
    let config = original();
    let decoder = DecoderConfig {
        hidden: 64,
        intermediate: 160,
        layers: 4,
        heads: 4,
        kv_heads: 2,
        head_dim: 16,
        qkv_bias: Bias::Yes,
        qk_norm: QkNorm::No,
        rms_eps: 1e-6,
        rope_theta: 1e6,
    };
    assert_eq!(config.decoder(), decoder);
    assert_eq!(config.rotary_sections(), [2, 3, 3]);
    assert_eq!((config.vocab_size, config.context_len()), (640, 4096));
    assert!(config.tie_word_embeddings);
    assert_eq!(config.vision.full_attention_blocks, [1, 3]);
    assert_eq!(config.vision.window_tokens(), 4);
}

#[test]
fn newer_layouts_say_the_same() {
    let nested = read(|config| {
        let fields = config.as_object_mut().unwrap();
        let outside = [
            "architectures",
            "model_type",
            "vision_config",
            "image_token_id",
            "tie_word_embeddings",
        ];
        let mut text = fields.clone();
        text.retain(|name, _| !outside.contains(&name.as_str()));
        fields.retain(|name, _| outside.contains(&name.as_str()));
        let theta = text.remove("rope_theta").unwrap();
        text.remove("rope_scaling");
        text.insert(
            "rope_parameters".into(),
            json!({"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": theta}),
        );
        text.insert("layer_types".into(), json!(["full_attention"]));
        fields.insert("text_config".into(), text.into());
    });
    assert_same(&nested.unwrap());
    assert_same(
        &read(|config| {
            config["rope_scaling"] =
                json!({"type": "default", "rope_type": "default", "mrope_section": [2, 3, 3]});
        })
        .unwrap(),
    );
}

#[test]
fn vision_fields_at_their_defaults_can_be_left_out() {
    let config = read(|config| {
        config["vision_config"] = json!({"hidden_size": 1280, "out_hidden_size": 64});
    });
    let vision = config.unwrap().vision;
    assert_eq!(
        (
            vision.tower.depth,
            vision.tower.heads,
            vision.tower.intermediate
        ),
        (32, 16, 3420)
    );
    assert_eq!(vision.full_attention_blocks, [7, 15, 23, 31]);
    assert_eq!(vision.window_tokens(), 4);
}

#[test]
fn a_missing_field_is_named() {
    let required = [
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "max_position_embeddings",
        "rms_norm_eps",
        "image_token_id",
        "vision_config",
    ];
    for field in required {
        let error = read(|config| {
            config.as_object_mut().unwrap().remove(field);
        })
        .unwrap_err();
        assert!(
            matches!(error, ModelError::ConfigSyntax { .. }),
            "{field}: {error}"
        );
        let text = error.to_string();
        assert!(
            text.contains("config.json") && text.contains(field),
            "{field}: {text}"
        );
    }
    let error = read(|config| config["rope_scaling"] = Value::Null).unwrap_err();
    assert!(error.to_string().contains("mrope_section"), "{error}");
}

#[test]
fn a_missing_or_broken_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = QwenConfig::read(dir.path()).unwrap_err();
    assert!(matches!(error, ModelError::MissingConfig { .. }), "{error}");
    std::fs::write(dir.path().join("config.json"), "{\"architectures\": [").unwrap();
    let error = QwenConfig::read(dir.path()).unwrap_err();
    assert!(matches!(error, ModelError::ConfigSyntax { .. }), "{error}");
    std::fs::write(dir.path().join("config.json"), [0xff, 0xfe]).unwrap();
    let error = QwenConfig::read(dir.path()).unwrap_err();
    assert!(error.to_string().contains("config.json"), "{error}");
}

#[test]
fn impossible_and_unsupported_values_are_named() {
    let cases = [
        ("hidden_size", json!(0)),
        ("hidden_size", json!(1u64 << 40)),
        ("intermediate_size", json!(0)),
        ("num_hidden_layers", json!(0)),
        ("num_hidden_layers", json!(5000)),
        ("num_attention_heads", json!(0)),
        ("num_attention_heads", json!(5)),
        ("num_key_value_heads", json!(0)),
        ("num_key_value_heads", json!(3)),
        ("num_key_value_heads", json!(8)),
        ("head_dim", json!(0)),
        ("head_dim", json!(15)),
        ("rms_norm_eps", json!(-1.0)),
        ("rope_theta", json!(0.0)),
        ("vocab_size", json!(0)),
        ("max_position_embeddings", json!(0)),
        ("image_token_id", json!(640)),
        ("hidden_act", json!("gelu")),
        ("use_sliding_window", json!(true)),
        (
            "layer_types",
            json!(["full_attention", "sliding_attention"]),
        ),
        ("rope_scaling.mrope_section", json!([2, 3, 4])),
        ("rope_scaling.mrope_section", json!([8])),
        ("rope_scaling.mrope_section", json!([u64::MAX, 9, 0])),
        ("rope_scaling.type", json!("yarn")),
        ("vision_config.depth", json!(0)),
        ("vision_config.hidden_size", json!(0)),
        ("vision_config.num_heads", json!(0)),
        ("vision_config.num_heads", json!(3)),
        ("vision_config.num_heads", json!(32)),
        ("vision_config.patch_size", json!(0)),
        ("vision_config.spatial_merge_size", json!(0)),
        ("vision_config.temporal_patch_size", json!(0)),
        ("vision_config.window_size", json!(27)),
        ("vision_config.in_channels", json!(4)),
        ("vision_config.out_hidden_size", json!(65)),
        ("vision_config.hidden_act", json!("gelu")),
    ];
    for (field, value) in cases {
        let what = format!("{field} = {value}");
        let error = read(|config| {
            let place = field.split('.').fold(config, |place, key| &mut place[key]);
            *place = value;
        })
        .unwrap_err();
        match error {
            ModelError::ConfigValue { field: named, .. } => assert_eq!(named, field, "{what}"),
            other => panic!("{what}: {other}"),
        }
    }
}

#[test]
fn other_models_are_refused() {
    for change in [
        json!({"architectures": ["Qwen2VLForConditionalGeneration"]}),
        json!({"architectures": [], "model_type": "qwen2_vl"}),
        json!({}),
    ] {
        let error = read(|config| *config = change).unwrap_err();
        assert!(
            matches!(error, ModelError::UnsupportedArchitecture { .. }),
            "{error}"
        );
    }
}
