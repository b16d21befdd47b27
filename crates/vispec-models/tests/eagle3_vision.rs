//! EAGLE-3 drafts with ViSpec's vision adaptor: the inputs of their decoder, and that they never
//! change an answer.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod reference;

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Tensor;
use reference::eagle3::{HEADS, HIDDEN, PROMPTS, draft_dir, prompt, vision_draft};
use reference::stored::{Stored, read, rewrite};
use reference::{Decoding, assert_close, fixtures, floats, load_dirs, shape};
use vispec_core::{
    Ask, Batch, DraftModel, Expansion, GenerationConfig, MatchPicks, NodeId, PositionUniforms,
    Prompt, Sampler, Session, TargetModel, TokenId, TokenTree,
};
use vispec_models::draft::{DraftPromptInput, NeuralDraft, NeuralDraftSession};
use vispec_models::{Draft, DtypeChoice, EncodedPrompt, Engine, Method};

fn engine(draft: &Path, dtype: &str) -> Engine {
    let target = fixtures().join("models/qwen-tied");
    load_dirs(target, Some(draft.to_owned()), dtype.parse().unwrap())
}

fn neural(engine: &Engine) -> &NeuralDraft {
    match engine.draft() {
        Some(Draft::Neural(_, draft)) => draft,
        other => panic!("{other:?}"),
    }
}

fn features(engine: &Engine, prompt: &EncodedPrompt) -> Tensor<2> {
    let mut cache = engine.target().new_cache().unwrap();
    engine
        .target()
        .prefill(prompt, &mut cache)
        .unwrap()
        .features
}

/// Weights of a file in f64.
struct Weights(Vec<Stored>);

impl Weights {
    fn get(&self, name: &str) -> Vec<f64> {
        let found = self.0.iter().find(|tensor| tensor.name == name).unwrap();
        found.floats().map(f64::from).collect()
    }

    /// Computes `x weightᵀ` for each row of `x` `[rows, inputs]`.
    fn linear(&self, name: &str, x: &[f64], inputs: usize) -> Vec<f64> {
        let weight = self.get(name);
        let product = |row: &[f64], line: &[f64]| row.iter().zip(line).map(|(a, b)| a * b).sum();
        let rows = x.chunks_exact(inputs);
        rows.flat_map(|row| {
            weight
                .chunks_exact(inputs)
                .map(move |line| product(row, line))
        })
        .collect()
    }

    /// Compresses an image `[image_tokens, hidden]` with the learned queries into
    /// `[queries, hidden]`.
    fn compress(&self, image: &[f64]) -> Vec<f64> {
        let head_dim = HIDDEN / HEADS;
        let keys = self.linear("imadpt.k_proj.weight", image, HIDDEN);
        let values = self.linear("imadpt.v_proj.weight", image, HIDDEN);
        let mut attended = Vec::new();
        for query in self.get("imadpt.q").chunks_exact(HIDDEN) {
            for head in 0..HEADS {
                let part = head * head_dim..(head + 1) * head_dim;
                let score = |key: &[f64]| -> f64 {
                    let pairs = query[part.clone()].iter().zip(&key[part.clone()]);
                    let product: f64 = pairs.map(|(a, b)| a * b).sum();
                    (product / (head_dim as f64).sqrt()).exp()
                };
                let scores: Vec<f64> = keys.chunks_exact(HIDDEN).map(score).collect();
                let sum: f64 = scores.iter().sum();
                for column in part.clone() {
                    let values = values.chunks_exact(HIDDEN).map(|value| value[column]);
                    let weighted = scores.iter().zip(values).map(|(s, v)| s / sum * v);
                    attended.push(weighted.sum());
                }
            }
        }
        self.linear("imadpt.o_proj.weight", &attended, HIDDEN)
    }

    /// Applies a norm of layer 0 to a row.
    fn norm(&self, name: &str, row: &[f64]) -> Vec<f64> {
        let square = row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64;
        let scale = 1.0 / (square + 1e-6).sqrt();
        let weight = self.get(&format!("midlayer.{name}.weight"));
        row.iter().zip(weight).map(|(x, w)| x * scale * w).collect()
    }
}

/// Compressed tokens serve as both embedding and hidden state; in text rows, the vector of the most
/// recent image is added to the hidden state.
#[test]
fn rows_are_what_the_adaptor_says() {
    for n_queries in [1, 3] {
        let dir = vision_draft("sglang", n_queries);
        let weights = Weights(read(&dir.path().join("model.safetensors")));
        let engine = engine(dir.path(), "f32");
        let draft = neural(&engine);
        assert_eq!(engine.draft().unwrap().n_queries(), Some(n_queries));
        let prompt = prompt(&engine, "img-short");
        let n = prompt.token_ids().len();
        let hidden = draft.network().fuse_target(features(&engine, &prompt));
        let pictures = prompt.embeds().clone().narrow(0, 1, n - 1);
        let tokens: Vec<TokenId> = prompt.token_ids()[1..].iter().copied().chain([7]).collect();
        let embedding = engine.target().text().embedding();
        let embeds = embedding.forward(&tokens, hidden.dtype()).unwrap();
        let run = prompt.image_runs()[0].clone();
        let image = run.start - 1..run.end - 1;
        let read = draft.network().read_prompt(DraftPromptInput {
            embeds: &embeds,
            pictures: &pictures,
            hidden: &hidden,
            images: std::slice::from_ref(&image),
        });

        let wide = |tensor: &Tensor<2>| -> Vec<f64> {
            floats(tensor).into_iter().map(f64::from).collect()
        };
        let (embeds, hidden) = (wide(&embeds), wide(&hidden));
        let picture = &wide(&pictures)[image.start * HIDDEN..image.end * HIDDEN];
        let compressed = weights.compress(picture);
        let (image_tokens, global) = compressed.split_at((n_queries - 1) * HIDDEN);
        let (mut residual, mut given) = (Vec::new(), Vec::new());
        let mut push = |embed: &[f64], hidden: &[f64]| {
            residual.extend_from_slice(hidden);
            given.extend(weights.norm("input_layernorm", embed));
            given.extend(weights.norm("hidden_norm", hidden));
        };
        for row in (0..n).filter(|row| !image.contains(row) || *row == image.start) {
            let columns = row * HIDDEN..(row + 1) * HIDDEN;
            if row == image.start {
                for token in image_tokens.chunks_exact(HIDDEN) {
                    push(token, token);
                }
                continue;
            }
            let in_force = if row < image.start {
                &[0.0; HIDDEN][..]
            } else {
                global
            };
            let both = [&hidden[columns.clone()], in_force].concat();
            let fused = weights.linear("img_fc.weight", &both, 2 * HIDDEN);
            push(&embeds[columns], &fused);
        }
        assert_close("residual", &floats(&read.rows.residual), &residual, 1e-4);
        assert_close("given", &floats(&read.rows.given.unwrap()), &given, 1e-4);
        // The last positions of the uncompressed image.
        let places = (0..image.start).chain(image.end - (n_queries - 1)..n);
        assert!(
            read.positions
                .iter()
                .copied()
                .eq(places.map(|place| place as i64))
        );
        assert_close("global", &floats(&read.image.unwrap()), global, 1e-4);
    }
}

/// An adaptor that is not used, or that adds nothing, does not change the draft's output.
#[test]
fn text_without_an_image_is_drafted_as_without_vision() {
    let dir = vision_draft("sglang", 2);
    rewrite(dir.path(), |mut tensors| {
        let fusion = tensors
            .iter_mut()
            .find(|tensor| tensor.name == "img_fc.weight");
        let identity = (0..2 * HIDDEN * HIDDEN).map(|at| at / (2 * HIDDEN) == at % (2 * HIDDEN));
        let identity: Vec<f32> = identity.map(|on| f32::from(u8::from(on))).collect();
        *fusion.unwrap() = Stored::of_floats("img_fc.weight", &[HIDDEN, 2 * HIDDEN], &identity);
        tensors
    });
    let begin = |dir: &Path| {
        let engine = engine(dir, "f32");
        let prompt = prompt(&engine, "text-only");
        let mut session = neural(&engine).session();
        let begun = session
            .begin(&prompt, features(&engine, &prompt), 5, Ask::best(8))
            .unwrap();
        (begun.top, floats(&begun.hidden))
    };
    assert_eq!(begin(dir.path()), begin(&draft_dir("sglang")));
}

#[test]
fn answers_are_those_of_plain_decoding() {
    for (dialect, n_queries, dtype) in [
        ("sglang", 2, "f32"),
        ("sglang", 1, "bf16"),
        ("vllm-mrope", 4, "f32"),
        ("speculators-norm-before-fc", 2, "int8"),
    ] {
        let dir = vision_draft(dialect, n_queries);
        let engine = engine(dir.path(), dtype);
        let mut accepted = 0;
        for name in PROMPTS {
            let prompt = prompt(&engine, name);
            for (sampler, method) in [
                (Sampler::Greedy, Method::Eagle3),
                (Sampler::Greedy, Method::Eagle3.with_lookup()),
                (Sampler::new(1.0, None, None).unwrap(), Method::Eagle3),
            ] {
                let decoding = Decoding {
                    sampler,
                    seed: 4,
                    max_new_tokens: 24,
                };
                let tree = shape(3, 8, 30);
                let plain = decoding.answer(&engine, &prompt, Method::None, tree);
                let found = decoding.answer(&engine, &prompt, method, tree);
                let what = format!("{dialect}, {dtype}, {name}, {method}, {sampler:?}");
                assert_eq!(found.tokens, plain.tokens, "{what}");
                accepted += found.stats.accepted_per_cycle().iter().sum::<u32>();
            }
        }
        assert!(accepted > 0, "{dialect}: nothing was accepted");
    }
}

/// Sequences with and without images share passes, and their prompts are read in parts.
#[test]
fn answers_are_the_same_in_batches() {
    let dir = vision_draft("sglang", 3);
    let engine = engine(dir.path(), "f32");
    let config = || GenerationConfig {
        max_new_tokens: 24,
        stop_tokens: engine.processor().eos_token_ids().iter().copied().collect(),
    };
    let tree = shape(3, 8, 30);
    let mut batch = Batch::default();
    let mut expected = BTreeMap::new();
    for name in PROMPTS {
        let prompt = prompt(&engine, name);
        let drafter = engine.drafter(Method::Eagle3, tree).unwrap();
        let alone = Decoding::greedy(24).answer(&engine, &prompt, Method::Eagle3, tree);
        let rule = MatchPicks::new(Sampler::Greedy, PositionUniforms::new(0));
        let session = Session::start(engine.target(), drafter, rule, prompt, config());
        expected.insert(batch.add(session.unwrap(), ()), alone);
    }
    let mut largest = 0;
    while !batch.is_empty() {
        let pass = batch.pass(engine.target(), 23);
        largest = largest.max(pass.rows.sequences);
        for ended in pass.ended {
            ended.outcome.unwrap();
            let alone = &expected[&ended.id];
            assert_eq!(ended.session.tokens(), alone.tokens);
            let accepted = ended.session.stats().accepted_per_cycle();
            assert_eq!(accepted, alone.stats.accepted_per_cycle());
        }
    }
    assert_eq!(largest, 3);
}

/// The output of a draft depends only on the committed tokens, not on whether they were committed
/// together, in parts, or with the prompt postponed.
#[test]
fn a_prompt_and_its_continuation_may_come_in_parts() {
    let dir = vision_draft("sglang", 3);
    let engine = engine(dir.path(), "f32");
    let (target, draft) = (engine.target(), neural(&engine));
    for name in PROMPTS {
        let prompt = prompt(&engine, name);
        let mut cache = target.new_cache().unwrap();
        let read = target.prefill(&prompt, &mut cache).unwrap().features;
        let tokens: [TokenId; 5] = [11, 12, 13, 14, 15];
        let mut chain = TokenTree::new(tokens[0]);
        let mut last = NodeId::ROOT;
        for &token in &tokens[1..4] {
            last = chain.push(last, token).unwrap();
        }
        let states = target.verify(&chain, &mut cache).unwrap().features;
        let part = |from: usize, n: usize| states.clone().narrow(0, from, n);
        let given = |session: &NeuralDraftSession, end: Expansion<Tensor<2>>| {
            (session.committed(), end.top, floats(&end.hidden))
        };

        let mut whole = draft.session();
        whole
            .begin(&prompt, read.clone(), tokens[0], Ask::best(4))
            .unwrap();
        let end = whole
            .commit(&tokens[1..4], part(0, 4), tokens[4], Ask::best(4))
            .unwrap();
        let expected = given(&whole, end);
        let (rows, next) = expected.0.unwrap();
        let image_tokens: usize = prompt.image_runs().iter().map(ExactSizeIterator::len).sum();
        assert_eq!(next, prompt.token_ids().len() + 4);
        assert_eq!(rows, next - image_tokens + 2 * prompt.image_runs().len());

        let mut parts = draft.session();
        parts.postpone_prompt(&prompt, read, tokens[0]).unwrap();
        parts
            .commit(&tokens[1..2], part(0, 2), tokens[2], Ask::best(4))
            .unwrap();
        parts.postpone(&[], part(2, 1), tokens[3]).unwrap();
        let end = parts
            .commit(&[], part(3, 1), tokens[4], Ask::best(4))
            .unwrap();
        assert_eq!(given(&parts, end), expected, "{name}");
    }
}

/// Features of another target, or of the same target for another draft, are refused.
#[test]
fn features_of_another_width_are_refused() {
    let engine = engine(&draft_dir("sglang"), "f32");
    let plain = reference::load("qwen-tied", None, DtypeChoice::F32);
    let prompt = prompt(&engine, "text-only");
    let mut session = neural(&engine).session();
    let error = session
        .begin(&prompt, features(&plain, &prompt), 5, Ask::best(4))
        .unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("width 64, expected 192") && error.contains("1, 2, 3"),
        "{error}"
    );
    session
        .begin(&prompt, features(&engine, &prompt), 5, Ask::best(4))
        .unwrap();
    let one = features(&plain, &prompt).narrow(0, 0, 1);
    let error = session
        .commit(&[], one, 6, Ask::best(4))
        .unwrap_err()
        .to_string();
    assert!(error.contains("expected 192"), "{error}");
}
