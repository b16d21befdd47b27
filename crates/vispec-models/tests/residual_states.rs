//! States of the residual stream as features match the reference, regardless of how they are read.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod reference;

use burn::tensor::Tensor;
use reference::eagle3::{PROMPTS, STATES, aux_hidden, prompt};
use reference::{Numbers, assert_close, floats, load, load_with_kv};
use vispec_core::{KvCache, NodeId, PassInput, Prompt, Segment, TargetModel, TokenTree};
use vispec_models::features::{FeatureSpec, SequenceFeatures, read_features};
use vispec_models::{
    ConversationStore, DtypeChoice, EncodedPrompt, Engine, KvPrecision, VlmCache, VlmTarget,
};

fn engine() -> Engine {
    load("qwen-tied", None, DtypeChoice::F32)
}

/// Loads the target with the features that an EAGLE-3 draft reads.
fn target(dtype: DtypeChoice, kv: KvPrecision) -> VlmTarget {
    let dir = reference::fixtures().join("models/qwen-tied");
    let device = reference::test_device().open().unwrap();
    let target = VlmTarget::load(&dir, &device, dtype).unwrap();
    let target = target.with_kv_precision(kv).unwrap();
    target
        .with_features(FeatureSpec::residual(&STATES))
        .unwrap()
}

/// Creates a chain of tokens.
fn chain(tokens: &[u32]) -> TokenTree {
    let mut chain = TokenTree::new(tokens[0]);
    let mut last = NodeId::ROOT;
    for &token in &tokens[1..] {
        last = chain.push(last, token).unwrap();
    }
    chain
}

/// Reads the prompt in parts that end at `ends`, then the answer in chains of three tokens.
fn read(target: &VlmTarget, prompt: &EncodedPrompt, answer: &[u32], ends: &[usize]) -> Vec<f32> {
    let mut cache = target.new_cache().unwrap();
    let mut parts = Vec::new();
    let whole = [prompt.token_ids().len()];
    for &end in ends.iter().chain(&whole) {
        let input = PassInput::Prompt { prompt, end };
        parts = vec![target.read(input, &mut cache).unwrap().features];
    }
    for tokens in answer.chunks(3) {
        parts.push(target.verify(&chain(tokens), &mut cache).unwrap().features);
    }
    floats(&Tensor::cat(parts, 0))
}

#[test]
fn states_are_those_of_the_reference() {
    let engine = engine();
    let target = target(DtypeChoice::F32, KvPrecision::Auto);
    for name in PROMPTS {
        let prompt = prompt(&engine, name);
        let (answer, expected) = aux_hidden(name);
        let answer = &answer[..answer.len() - 1];
        let whole = read(&target, &prompt, answer, &[]);
        assert_close(name, &whole, &expected, 1e-4);
        let parts = read(&target, &prompt, answer, &[1, 20, 38]);
        assert_close(name, &parts, &expected, 1e-4);
        // On the CPU, results are bitwise equal for any parts.
        assert!(
            whole == parts || target.resumable_cache().is_none(),
            "{name}"
        );
    }
}

/// In a shared pass with caches that record different states, each sequence gets the same result as
/// in a separate pass.
#[test]
fn sequences_with_different_states_share_a_pass() {
    let engine = engine();
    for (dtype, kv) in [
        (DtypeChoice::F32, KvPrecision::Auto),
        (DtypeChoice::Bf16, KvPrecision::Bf16),
        ("int8".parse().unwrap(), KvPrecision::Auto),
    ] {
        let target = target(dtype, kv);
        let more = [
            FeatureSpec::last(),
            FeatureSpec::residual(&[0, 4]),
            FeatureSpec::residual(&[2]),
        ];
        let new_caches = || {
            more.iter()
                .map(|more| target.recording_cache(more).unwrap())
        };
        let prompts: Vec<_> = PROMPTS.iter().map(|name| prompt(&engine, name)).collect();
        let tree = chain(&[7, 8, 9]);
        let alone = prompts.iter().zip(new_caches()).map(|(prompt, mut cache)| {
            let read = target.prefill(prompt, &mut cache).unwrap().features;
            let verified = target.verify(&tree, &mut cache).unwrap().features;
            [floats(&read), floats(&verified)]
        });
        let alone: Vec<_> = alone.collect();
        let mut caches: Vec<VlmCache> = new_caches().collect();
        let mut pass = |step: usize| -> Vec<Vec<f32>> {
            let segments = prompts.iter().zip(&mut caches).map(|(prompt, cache)| {
                let end = prompt.token_ids().len();
                let input = match step {
                    0 => PassInput::Prompt { prompt, end },
                    _ => PassInput::Tree(&tree),
                };
                let picks = None;
                Segment {
                    input,
                    cache,
                    picks,
                }
            });
            let outputs = target.forward(&mut segments.collect::<Vec<_>>());
            let outputs = outputs.into_iter().map(|output| output.unwrap().features);
            outputs.map(|features| floats(&features)).collect()
        };
        for step in 0..2 {
            for (together, alone) in pass(step).iter().zip(&alone) {
                let close = together.len() == alone[step].len();
                assert!(close && (*together == alone[step] || target.resumable_cache().is_none()));
            }
        }
    }
}

/// A cache that records more states than the draft reads contains all of them at the end.
#[test]
fn whole_sequences_have_their_states() {
    let engine = engine();
    let target = target(DtypeChoice::F32, KvPrecision::Auto);
    for name in PROMPTS {
        let prompt = prompt(&engine, name);
        let (answer, expected) = aux_hidden(name);
        let wanted = FeatureSpec::last().and(&FeatureSpec::residual(&[0]));
        let mut cache = target.recording_cache(&wanted).unwrap();
        let features = target.prefill(&prompt, &mut cache).unwrap().features;
        assert_eq!(features.dims()[1], 3 * target.hidden());
        let base = cache.len();
        // The root gets a second child, which is dropped later.
        let mut tree = TokenTree::new(answer[0]);
        tree.push(NodeId::ROOT, answer[1].wrapping_add(1)).unwrap();
        let mut path = vec![NodeId::ROOT];
        for &token in &answer[1..answer.len() - 1] {
            path.push(tree.push(*path.last().unwrap(), token).unwrap());
        }
        let verified = target.verify(&tree, &mut cache).unwrap().features;
        let taken = target.gather_features(verified, &path).unwrap();
        cache.keep_path(base, &path);
        let of_answer = |states: &[usize]| {
            SequenceFeatures::of_answer(&target, &prompt, &answer, &cache, states)
        };
        let states = of_answer(&STATES).unwrap();
        let found = floats(states.residual_states.as_ref().unwrap());
        assert_close(name, &found, &expected, 1e-4);
        assert!(found.ends_with(&floats(&taken)));
        let embeds = of_answer(&[0]).unwrap();
        let state_0 = embeds.residual_states.unwrap();
        assert_eq!(floats(&state_0), floats(&embeds.input_embeds));
        assert!(of_answer(&[]).unwrap().residual_states.is_none());
        let error = of_answer(&[4]).unwrap_err().to_string();
        assert!(error.contains("1, 2, 3, last, 0"), "{error}");

        // Output of the last layer: after the final norm it equals the input of the head.
        let whole = read_features(&target, &prompt, &[4]).unwrap();
        let normed = target.text().finish(whole.residual_states.unwrap());
        assert_eq!(floats(&normed), floats(&whole.hidden_states));
    }
}

#[test]
fn caches_of_other_states_are_refused_or_not_used() {
    let engine = engine();
    let prompt = prompt(&engine, "text-only");
    let plain = load_with_kv("qwen-tied", None, DtypeChoice::F32, KvPrecision::Auto);
    let target = target(DtypeChoice::F32, KvPrecision::Auto);
    let mut cache = plain.target().new_cache().unwrap();
    let error = target.prefill(&prompt, &mut cache).unwrap_err().to_string();
    assert!(
        error.contains("remembers the hidden states last, expected 1, 2, 3"),
        "{error}"
    );
    assert_eq!(cache.len(), 0);
    let error = target
        .recording_cache(&FeatureSpec::residual(&[5]))
        .unwrap_err();
    assert!(error.to_string().contains("no hidden state 5"), "{error}");

    let Some(mut cache) = target.resumable_cache() else {
        return;
    };
    // The states take more bytes per row, and the next turn resumes from them.
    target.prefill(&prompt, &mut cache).unwrap();
    let store = ConversationStore::new(1 << 26);
    store.keep(&prompt, &[], cache);
    let bytes = store.usage().bytes;
    let mut resumed = store.cache_for(&target, &prompt).unwrap();
    assert_eq!(resumed.len(), prompt.token_ids().len() - 1);
    let features = target.prefill(&prompt, &mut resumed).unwrap().features;
    let mut whole = target.new_cache().unwrap();
    let expected = target.prefill(&prompt, &mut whole).unwrap().features;
    assert_eq!(floats(&features), floats(&expected));
    // A target with another draft starts from scratch.
    let other = store.cache_for(plain.target(), &prompt).unwrap();
    assert_eq!(other.len(), 0);
    let mut cache = plain.target().resumable_cache().unwrap();
    plain.target().prefill(&prompt, &mut cache).unwrap();
    let store = ConversationStore::new(1 << 26);
    store.keep(&prompt, &[], cache);
    let more = 2 * target.hidden() * prompt.token_ids().len() * size_of::<f32>();
    assert!(bytes >= store.usage().bytes + more);
    assert_eq!(
        target.feature_bytes_per_row(),
        3 * plain.target().feature_bytes_per_row()
    );
}

/// Reading a prompt in chunks of any size gives the features of the whole prompt.
#[test]
fn chunks_do_not_show() {
    let engine = engine();
    let target = target(DtypeChoice::Bf16, KvPrecision::Bf16);
    if target.resumable_cache().is_none() {
        return;
    }
    let mut numbers = Numbers(3);
    for name in PROMPTS {
        let prompt = prompt(&engine, name);
        let whole = read(&target, &prompt, &[1, 2, 3, 4], &[]);
        for _ in 0..4 {
            let mut ends: Vec<usize> = (0..3)
                .map(|_| 1 + numbers.below(prompt.token_ids().len() - 1))
                .collect();
            ends.sort_unstable();
            ends.dedup();
            let parts = read(&target, &prompt, &[1, 2, 3, 4], &ends);
            assert!(parts == whole, "{name}: {ends:?}");
        }
    }
}
