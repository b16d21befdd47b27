//! Qwen3-VL targets match the reference implementation, regardless of how their prompts are split.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod reference;

use burn::tensor::Tensor;
use reference::qwen3::{Case, MODELS, engine};
use reference::{Array, Decoding, Numbers, Tensors, assert_close, floats, load, shape};
use vispec_core::{
    KvCache as _, NodeId, PassInput, Prompt as _, Sampler, TargetLogits as _, TargetModel as _,
    TokenTree,
};
use vispec_models::features::{FeatureSpec, read_features};
use vispec_models::{DtypeChoice, EncodedPrompt, ImageFeatures, Method, ModelError, VlmTarget};

const TOLERANCE: f64 = 1e-4;

#[test]
fn prompts_are_those_of_the_reference() {
    for model in MODELS {
        let engine = engine(model, DtypeChoice::F32);
        for case in Case::of_images(model) {
            let prompt = case.prepare(&engine);
            assert_eq!(prompt.token_ids, case.input_ids, "{}", case.name);
            assert_eq!(
                prompt.positions.axes(),
                &*case.position_ids,
                "{}",
                case.name
            );
            assert_eq!(prompt.rope_delta, case.rope_delta, "{}", case.name);
        }
    }
}

#[test]
fn greedy_answers_are_those_of_the_reference() {
    for model in MODELS {
        let engine = engine(model, DtypeChoice::F32);
        for case in Case::of_images(model) {
            let prompt = case.encode(&engine);
            let decoding = Decoding::greedy(case.ar_ids.len());
            let found = decoding.answer(&engine, &prompt, Method::None, shape(0, 1, 1));
            assert_eq!(found.tokens, case.ar_ids, "{}", case.name);
        }
    }
}

/// Asserts that `found` `[rows, width]` equals the reference tensor, or ends with it if only the
/// last rows were stored.
#[track_caller]
fn assert_rows(what: &str, found: &Tensor<2>, expected: &Array) {
    let found = floats(found);
    let from = found.len() - expected.values.len();
    assert_close(what, &found[from..], &expected.values, TOLERANCE);
}

fn assert_images(case: &Case, features: &[ImageFeatures], tensors: &Tensors) {
    let joined = |parts: Vec<Tensor<2>>| Tensor::cat(parts, 0);
    let tokens = features.iter().map(|image| image.tokens.clone());
    if let Some(expected) = tensors.get("vision.image_features") {
        let what = format!("{}: tokens", case.name);
        assert_rows(&what, &joined(tokens.collect()), expected);
    }
    for level in 0..features.first().map_or(0, |image| image.levels.len()) {
        let Some(expected) = tensors.get(&format!("vision.image_deepstack_{level}")) else {
            continue;
        };
        let values = features.iter().map(|image| image.levels[level].clone());
        let what = format!("{}: level {level}", case.name);
        assert_rows(&what, &joined(values.collect()), expected);
    }
}

/// The input states of layers include the values that were added after the previous layer.
#[test]
fn stages_are_those_of_the_reference() {
    for model in MODELS {
        let engine = engine(model, DtypeChoice::F32);
        let target = engine.target();
        let layers = target.n_layers();
        for case in Case::of_images(model) {
            if !case.has_our_pixels() {
                // The tokens of these cases are compared in another test.
                continue;
            }
            let (prepared, tensors) = (case.prepare(&engine), case.tensors());
            if let Some(expected) = tensors.get("pixel_values") {
                let pixels = &prepared.images[0].pixels().data;
                assert_close(&case.name, pixels, &expected.values, TOLERANCE);
            }
            let encode = |image| target.encode_image(image).unwrap();
            let features: Vec<_> = prepared.images.iter().map(encode).collect();
            assert_images(&case, &features, &tensors);
            let prompt = target.merge(&prepared, features).unwrap();
            let numbers: Vec<usize> = (0..=layers).collect();
            let read = read_features(target, &prompt, &numbers).unwrap();
            let states = read.residual_states.unwrap();
            let state = |number: usize| {
                let width = target.hidden();
                states.clone().narrow(1, number * width, width)
            };
            let check = |name: String, found: &Tensor<2>| {
                if let Some(expected) = tensors.get(&name) {
                    assert_rows(&format!("{}: {name}", case.name), found, expected);
                }
            };
            check("prefill.inputs_embeds".to_owned(), prompt.embeds());
            for layer in 0..layers {
                check(format!("prefill.layer{layer}_in"), &state(layer));
            }
            let last = format!("prefill.layer{}_out", layers - 1);
            check(last, &state(layers));
            let hidden = &read.hidden_states;
            check("prefill.last_hidden_state".to_owned(), hidden);
            let logits = target.text().head().forward(hidden.clone());
            check("prefill.logits".to_owned(), &logits);
            check("prefill.logits_last".to_owned(), &logits);
        }
    }
}

/// Reads a prompt in parts that end at `ends`, then a tree, and returns their logits and features.
fn read(target: &VlmTarget, prompt: &EncodedPrompt, ends: &[usize]) -> (Vec<f32>, Vec<f32>) {
    let mut cache = target.new_cache().unwrap();
    let whole = [prompt.token_ids().len()];
    let mut output = None;
    for &end in ends.iter().chain(&whole) {
        let input = PassInput::Prompt { prompt, end };
        output = Some(target.read(input, &mut cache).unwrap());
    }
    let mut output = output.unwrap();
    let mut logits = output.logits.read_row(0).unwrap().to_vec();
    let mut tree = TokenTree::new(5);
    for token in [7, 9] {
        tree.push(NodeId::ROOT, token).unwrap();
    }
    let mut verified = target.verify(&tree, &mut cache).unwrap();
    for row in 0..3 {
        logits.extend_from_slice(verified.logits.read_row(row).unwrap());
    }
    assert_eq!(cache.len(), whole[0] + 3);
    (logits, floats(&output.features))
}

/// Parts may end inside images; the values that are added after the first layers are split
/// accordingly.
#[test]
fn a_prompt_in_parts_is_the_prompt() {
    let mut numbers = Numbers(11);
    for model in MODELS {
        for dtype in ["f32", "bf16", "int8", "int4"] {
            let engine = engine(model, dtype.parse().unwrap());
            let target = engine.target();
            for case in ["multi-turn", "two-images"] {
                let prompt = Case::read(&format!("{model}/{case}")).encode(&engine);
                let run = prompt.image_runs()[0].clone();
                let whole = read(target, &prompt, &[]);
                let n_tokens = prompt.token_ids().len();
                let within = run.start + 1;
                let mut cuts = vec![vec![within, within + 1], vec![run.end], vec![run.start]];
                cuts.push(vec![1 + numbers.below(n_tokens - 1)]);
                for ends in cuts {
                    let parts = read(target, &prompt, &ends);
                    // Devices do not guarantee bitwise equality.
                    if target.resumable_cache().is_some() {
                        assert!(parts == whole, "{model}, {dtype}, {case}, {ends:?}");
                    }
                }
                // The values that are added at images affect the result.
                let plain = EncodedPrompt::new(
                    prompt.token_ids().to_vec(),
                    prompt.embeds().clone(),
                    prompt.image_runs().to_vec(),
                    (prompt.positions().clone(), prompt.rope_delta()),
                );
                assert_ne!(read(target, &plain, &[]).0, whole.0);
            }
        }
    }
}

/// Compares greedy and sampled (T = 1) answers for one image, for two images, and for an image in a
/// later turn.
#[test]
fn speculation_changes_no_token() {
    let draft = "qwen3-untied-eagle3-vllm-mrope-qwen3vl";
    for dtype in ["f32", "bf16", "int8", "int4"] {
        let engine = load("qwen3-untied", Some(draft), dtype.parse().unwrap());
        for case in Case::of_images("qwen3-untied") {
            let prompt = case.encode(&engine);
            for sampler in [Sampler::Greedy, Sampler::new(1.0, None, None).unwrap()] {
                let decoding = Decoding {
                    sampler,
                    seed: 7,
                    max_new_tokens: 24,
                };
                let tree = shape(3, 8, 30);
                let plain = decoding.answer(&engine, &prompt, Method::None, tree);
                for method in [
                    Method::Eagle3,
                    Method::PromptLookup,
                    Method::Eagle3.with_lookup(),
                ] {
                    let found = decoding.answer(&engine, &prompt, method, tree);
                    let what = format!("{dtype}, {}, {method}, {sampler:?}", case.name);
                    assert_eq!(found.tokens, plain.tokens, "{what}");
                }
            }
        }
    }
}

#[test]
fn images_of_another_target_are_refused() {
    let engine = engine("qwen3-tied", DtypeChoice::F32);
    let prepared = Case::read("qwen3-tied/img-small").prepare(&engine);
    let features = engine.target().encode_image(&prepared.images[0]).unwrap();
    let plain = ImageFeatures::from(features.tokens);
    let error = engine.target().merge(&prepared, vec![plain]).unwrap_err();
    assert!(
        matches!(
            error,
            ModelError::ImageLevels {
                found: 0,
                expected: 2
            }
        ),
        "{error}"
    );
}

#[test]
fn a_target_without_such_layers_has_no_levels() {
    let engine = load("qwen-untied", None, DtypeChoice::F32);
    assert_eq!(engine.target().image_bytes_per_row(), 0);
    let engine = self::engine("qwen3-untied", DtypeChoice::F32);
    assert_eq!(engine.target().image_bytes_per_row(), 3 * 64 * 4);
    let missing = FeatureSpec::residual(&[6]);
    assert!(engine.target().recording_cache(&missing).is_err());
}
