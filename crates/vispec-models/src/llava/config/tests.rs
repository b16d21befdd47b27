//! Tests of accepted layouts and refused values.

use serde_json::{Value, json};

use super::*;
use crate::llava::ClipActivation;
use crate::nn::QkNorm;
use crate::qwen2_5_vl::golden::{changed_config, model_dir};

fn read(model: &str, change: impl FnOnce(&mut Value)) -> Result<LlavaConfig, ModelError> {
    LlavaConfig::read(changed_config(model, change).path())
}

#[test]
fn both_families() {
    let llava = LlavaConfig::read(&model_dir("llava-15")).unwrap();
    assert_eq!(llava.family, LlavaFamily::Llava);
    assert_eq!((llava.feature_layers, llava.vision.layers), (3, 4));
    assert_eq!(llava.vision.grid_side(), 6);
    assert_eq!((llava.vocab_size(), llava.context_len()), (608, 4096));
    assert!(!llava.tie_word_embeddings());
    let next = LlavaConfig::read(&model_dir("llava-next")).unwrap();
    let LlavaFamily::LlavaNext { resolutions } = &next.family else {
        panic!()
    };
    assert_eq!(resolutions[3], ImageSize::new(168, 56));
    assert_eq!((next.decoder().hidden, next.decoder().head_dim), (80, 20));
}

#[test]
fn published_files_rely_on_defaults() {
    let config = read("llava-15", |config| {
        config["image_token_index"] = json!(32000);
        config["text_config"] = json!({
            "_name_or_path": "lmsys/vicuna-7b-v1.5",
            "architectures": ["LlamaForCausalLM"],
            "max_position_embeddings": 4096,
            "model_type": "llama",
            "pad_token_id": 0,
            "rms_norm_eps": 1e-05,
            "torch_dtype": "float16",
            "vocab_size": 32064
        });
        config["vision_config"] = json!({"model_type": "clip_vision_model"});
    })
    .unwrap();
    let decoder = DecoderConfig {
        hidden: 4096,
        intermediate: 11008,
        layers: 32,
        heads: 32,
        kv_heads: 32,
        head_dim: 128,
        qkv_bias: Bias::No,
        qk_norm: QkNorm::No,
        rms_eps: 1e-5,
        rope_theta: 10_000.0,
    };
    assert_eq!(config.decoder(), decoder);
    let vision = ClipConfig {
        hidden: 768,
        intermediate: 3072,
        layers: 12,
        heads: 12,
        image_size: 224,
        patch_size: 32,
        activation: ClipActivation::QuickGelu,
        norm_eps: 1e-5,
    };
    assert_eq!(config.vision, vision);
}

#[test]
fn almost_everything_can_be_left_out() {
    let config = read("llava-next", |config| {
        *config = json!({"model_type": "llava_next"})
    })
    .unwrap_err();
    // The default image token lies just past the default vocabulary.
    assert!(
        matches!(config, ModelError::ConfigValue { field, .. } if field == "image_token_index")
    );
    let config = read("llava-next", |config| {
        *config = json!({"model_type": "llava_next", "text_config": {"vocab_size": 32064}});
    })
    .unwrap();
    let LlavaFamily::LlavaNext { resolutions } = &config.family else {
        panic!()
    };
    assert_eq!(resolutions.len(), 5);
    assert_eq!((config.vision.layers, config.vision.grid_side()), (24, 24));
    assert_eq!(
        (config.feature_layers, config.selection),
        (23, FeatureSelection::Patches)
    );
    assert!((config.decoder().rms_eps - 1e-6).abs() < 1e-12);
}

#[test]
fn newer_names_say_the_same() {
    let config = read("llava-15", |config| {
        let fields = config.as_object_mut().unwrap();
        let token = fields.remove("image_token_index").unwrap();
        fields.insert("image_token_id".into(), token);
        let text = config["text_config"].as_object_mut().unwrap();
        text.remove("rope_scaling");
        text.remove("rope_theta");
        text.insert(
            "rope_parameters".into(),
            json!({"rope_theta": 20000.0, "rope_type": "default"}),
        );
    })
    .unwrap();
    assert!((config.decoder().rope_theta - 20_000.0).abs() < 1e-9);
}

#[test]
fn layers_are_counted_from_either_end() {
    let layers = |layer: i64| {
        read("llava-15", |config| {
            config["vision_feature_layer"] = json!(layer)
        })
        .map(|config| config.feature_layers)
    };
    let expected = [(-5, 0), (-2, 3), (-1, 4), (0, 0), (4, 4)];
    for (layer, n_layers) in expected {
        assert_eq!(layers(layer).unwrap(), n_layers, "{layer}");
    }
    for layer in [-6, 5, i64::MIN, i64::MAX] {
        assert!(layers(layer).is_err(), "{layer}");
    }
}

#[test]
fn impossible_and_unsupported_values_are_named() {
    let cases = [
        ("image_token_index", json!(608)),
        ("projector_hidden_act", json!("relu")),
        ("vision_feature_layer", json!([-2, -5])),
        ("vision_feature_select_strategy", json!("full")),
        ("vision_feature_select_strategy", json!("some")),
        ("image_grid_pinpoints", json!([])),
        ("image_grid_pinpoints", json!([[56, 0]])),
        ("image_grid_pinpoints", json!([[56, 57]])),
        ("image_grid_pinpoints", json!([[56, 56u64 << 50]])),
        ("text_config.hidden_size", json!(0)),
        ("text_config.num_attention_heads", json!(0)),
        ("text_config.num_key_value_heads", json!(3)),
        ("text_config.attention_bias", json!(true)),
        ("text_config.mlp_bias", json!(true)),
        ("text_config.hidden_act", json!("gelu")),
        ("text_config.vocab_size", json!(0)),
        ("vision_config.model_type", json!("siglip_vision_model")),
        ("vision_config.hidden_act", json!("relu")),
        ("vision_config.hidden_size", json!(0)),
        ("vision_config.num_hidden_layers", json!(0)),
        ("vision_config.num_attention_heads", json!(5)),
        ("vision_config.num_channels", json!(1)),
        ("vision_config.image_size", json!(0)),
        ("vision_config.patch_size", json!(0)),
        ("vision_config.patch_size", json!(15)),
        ("vision_config.layer_norm_eps", json!(0.0)),
    ];
    for (field, value) in cases {
        let what = format!("{field} = {value}");
        let error = read("llava-next", |config| {
            let place = field.split('.').fold(config, |place, key| &mut place[key]);
            *place = value;
        })
        .unwrap_err();
        match error {
            ModelError::ConfigValue { field: named, .. } => assert_eq!(named, field, "{what}"),
            other => panic!("{what}: {other}"),
        }
    }
    let scaled = json!({"type": "linear", "factor": 2.0});
    let error = read("llava-15", |config| {
        config["text_config"]["rope_scaling"] = scaled
    });
    assert!(matches!(error, Err(ModelError::ConfigValue { .. })));
}

#[test]
fn other_models_are_refused() {
    let mistral = read("llava-next", |config| {
        config["text_config"]["model_type"] = json!("mistral")
    });
    assert!(
        matches!(mistral, Err(ModelError::UnsupportedArchitecture { found, .. })
        if found == "text model mistral")
    );
    let video = read("llava-next", |config| {
        config["architectures"] = json!(["LlavaNextVideoForConditionalGeneration"]);
    });
    assert!(matches!(
        video,
        Err(ModelError::UnsupportedArchitecture { .. })
    ));
}

#[test]
fn full_features_keep_the_class_token() {
    let config = read("llava-15", |config| {
        config["vision_feature_select_strategy"] = json!("full");
    });
    assert_eq!(config.unwrap().selection, FeatureSelection::ClassAndPatches);
}
