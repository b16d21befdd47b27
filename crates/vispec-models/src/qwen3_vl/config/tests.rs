//! Tests of accepted layouts and refused values.

use serde_json::{Value, json};

use super::*;
use crate::qwen2_5_vl::golden::{changed_config, model_dir};

fn read(change: impl FnOnce(&mut Value)) -> Result<Qwen3Config, ModelError> {
    Qwen3Config::read(changed_config("qwen3-tied", change).path())
}

#[test]
fn published_layout() {
    let config = Qwen3Config::read(&model_dir("qwen3-tied")).unwrap();
    let decoder = DecoderConfig {
        hidden: 96,
        intermediate: 192,
        layers: 4,
        heads: 4,
        kv_heads: 2,
        head_dim: 32,
        qkv_bias: Bias::No,
        qk_norm: QkNorm::PerHead,
        rms_eps: 1e-6,
        rope_theta: 5e6,
    };
    assert_eq!(config.decoder(), decoder);
    assert_eq!(config.rotary_sections(), [6, 5, 5]);
    assert_eq!((config.vocab_size, config.context_len()), (640, 4096));
    assert!(config.tie_word_embeddings);
    assert_eq!(config.vision.deepstack_blocks, [1, 2]);
    assert_eq!(config.vision.position_side, 8);
}

#[test]
fn a_missing_field_is_named() {
    for (place, field) in [
        ("", "image_token_id"),
        ("", "vision_config"),
        ("", "text_config"),
        ("text_config", "hidden_size"),
        ("text_config", "max_position_embeddings"),
    ] {
        let error = read(|config| {
            let place = match place {
                "" => config,
                place => &mut config[place],
            };
            place.as_object_mut().unwrap().remove(field);
        })
        .unwrap_err();
        let text = error.to_string();
        assert!(
            matches!(error, ModelError::ConfigSyntax { .. }) && text.contains(field),
            "{field}: {text}"
        );
    }
    let error = read(|config| config["text_config"]["rope_scaling"] = Value::Null).unwrap_err();
    assert!(error.to_string().contains("mrope_section"), "{error}");
}

#[test]
fn impossible_and_unsupported_values_are_named() {
    let cases = [
        ("text_config.hidden_size", json!(0)),
        ("text_config.num_key_value_heads", json!(3)),
        ("text_config.head_dim", json!(15)),
        ("text_config.rms_norm_eps", json!(-1.0)),
        ("text_config.rope_theta", json!(0.0)),
        ("text_config.vocab_size", json!(0)),
        ("image_token_id", json!(640)),
        ("text_config.hidden_act", json!("gelu")),
        ("text_config.attention_bias", json!(true)),
        ("text_config.rope_scaling.mrope_section", json!([6, 5, 6])),
        ("text_config.rope_scaling.mrope_section", json!([4, 6, 6])),
        ("text_config.rope_scaling.mrope_section", json!([16])),
        ("text_config.rope_scaling.mrope_interleaved", json!(false)),
        ("text_config.rope_scaling.rope_type", json!("yarn")),
        ("vision_config.depth", json!(0)),
        ("vision_config.num_heads", json!(5)),
        ("vision_config.in_channels", json!(4)),
        ("vision_config.hidden_act", json!("silu")),
        ("vision_config.out_hidden_size", json!(97)),
        ("vision_config.num_position_embeddings", json!(65)),
        ("vision_config.num_position_embeddings", json!(0)),
        ("vision_config.deepstack_visual_indexes", json!([1, 4])),
        ("vision_config.deepstack_visual_indexes", json!([2, 1])),
        ("vision_config.deepstack_visual_indexes", json!([1, 1])),
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
    // As many levels as the tower has blocks, but fewer layers.
    let error = read(|config| {
        config["text_config"]["num_hidden_layers"] = json!(3);
        config["vision_config"]["deepstack_visual_indexes"] = json!([0, 1, 2, 3]);
    });
    let text = error.unwrap_err().to_string();
    assert!(text.contains("deepstack_visual_indexes"), "{text}");
}

#[test]
fn other_models_are_refused() {
    for change in [
        json!({"architectures": ["Qwen3VLMoeForConditionalGeneration"]}),
        json!({"architectures": [], "model_type": "qwen2_5_vl"}),
    ] {
        let error = read(|config| *config = change).unwrap_err();
        let refused = matches!(error, ModelError::UnsupportedArchitecture { .. });
        assert!(refused, "{error}");
    }
}
