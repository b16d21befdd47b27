//! Features of whole sequences are the same whether they are recorded while decoding or read
//! afterwards.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod reference;

use burn::tensor::Tensor;
use reference::{image_of, load};
use vispec_core::{
    GenerationConfig, MatchPicks, NodeId, PositionUniforms, Prompt, Sampler, TargetModel, TokenId,
    TokenTree, TreeShape, generate_in,
};
use vispec_models::features::{FeatureSpec, SequenceFeatures, read_features};
use vispec_models::{DtypeChoice, EncodedPrompt, Engine, Method};
use vispec_processor::Messages;

fn prompt(engine: &Engine, model: &str) -> EncodedPrompt {
    let messages = Messages::from_prompt(None, "Describe the image in detail.", 1);
    let image = image_of(&format!("{model}/img-short"));
    engine.encode(&messages, &[image]).unwrap().0
}

fn answered(
    engine: &Engine,
    prompt: &EncodedPrompt,
    method: Method,
    max_new_tokens: usize,
) -> (Vec<TokenId>, SequenceFeatures) {
    let shape = TreeShape::from_upstream(3, 8, 30).unwrap();
    let sampler = Sampler::new(0.0, None, None).unwrap();
    let config = GenerationConfig {
        max_new_tokens,
        stop_tokens: engine.processor().eos_token_ids().iter().copied().collect(),
    };
    let target = engine.target();
    let recording = target.recording_cache(&FeatureSpec::last()).unwrap();
    let (generation, cache) = generate_in(
        target,
        engine.drafter(method, shape).unwrap(),
        MatchPicks::new(sampler, PositionUniforms::new(0)),
        (prompt, recording),
        config,
        &mut (),
    )
    .unwrap();
    let features = SequenceFeatures::of_answer(target, prompt, &generation.tokens, &cache, &[]);
    (generation.tokens, features.unwrap())
}

/// Reads the prompt in one pass, then the answer in one pass over a chain.
fn teacher_forced(engine: &Engine, prompt: &EncodedPrompt, answer: &[TokenId]) -> Vec<f32> {
    let target = engine.target();
    let mut cache = target.new_cache().unwrap();
    let read = target.prefill(prompt, &mut cache).unwrap().features;
    let mut parts = vec![read];
    if let [first, rest @ ..] = answer {
        let mut chain = TokenTree::new(*first);
        let mut last = NodeId::ROOT;
        for &token in rest {
            last = chain.push(last, token).unwrap();
        }
        parts.push(target.verify(&chain, &mut cache).unwrap().features);
    }
    let data = Tensor::cat(parts, 0).try_into_data().unwrap();
    data.as_slice::<f32>().unwrap().to_vec()
}

#[test]
fn recorded_features_are_those_of_reading_the_answer() {
    for (model, draft, method) in [
        ("qwen-tied", "qwen-tied-q2", Method::Vispec),
        ("qwen-untied", "qwen-untied-eagle2", Method::Eagle2),
        ("llava-next", "llava-next-q2", Method::Vispec),
        ("llava-15", "llava-15-q2", Method::Vispec),
    ] {
        let engine = load(model, Some(draft), DtypeChoice::Auto);
        let prompt = prompt(&engine, model);
        let n_prompt = prompt.token_ids().len();
        for max_new_tokens in [1, 2, 60] {
            let (answer, features) = answered(&engine, &prompt, method, max_new_tokens);
            let (plain, plain_features) = answered(&engine, &prompt, Method::None, max_new_tokens);
            assert_eq!(answer, plain, "{model}");
            let read = &answer[..answer.len() - 1];
            assert_eq!(features.token_ids[..n_prompt], *prompt.token_ids());
            assert_eq!(features.token_ids[n_prompt..], *read);
            let run = prompt.image_runs()[0].clone();
            let mask = features.image_mask();
            assert!((0..mask.len()).all(|row| mask[row] == run.contains(&row)));
            let features = features.into_host().unwrap();
            let expected = teacher_forced(&engine, &prompt, read);
            assert_eq!(features.hidden_states, expected, "{model}");
            assert_eq!(features, plain_features.into_host().unwrap(), "{model}");
        }
    }
}

#[test]
fn reading_a_sequence_gives_what_prefill_gives() {
    let engine = load("qwen-tied", None, DtypeChoice::Auto);
    let prompt = prompt(&engine, "qwen-tied");
    let features = read_features(engine.target(), &prompt, &[]).unwrap();
    assert_eq!(features.token_ids, prompt.token_ids());
    let hidden = features.into_host().unwrap().hidden_states;
    assert_eq!(hidden, teacher_forced(&engine, &prompt, &[]));
}
