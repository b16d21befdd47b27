//! EAGLE-3 drafts of all dialects match the reference implementation and never change an answer.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod reference;

use std::fs;
use std::path::Path;

use burn::tensor::{Tensor, TensorData};
use reference::eagle3::{
    DIALECTS, aux_hidden_of, case, draft_dir, prompt, prompt_of, prompts, states, target,
};
use reference::{
    Array, Decoding, Tensors, assert_close, copy_of, fixtures, floats, load_dirs, shape,
};
use vispec_core::testing::RetrieveIndices;
use vispec_core::{
    Ask, Beam, DraftModel, DynamicTreeDrafter, Expansion, GenerationConfig, GenerationObserver,
    MatchPicks, NodeId, PositionUniforms, Sampler, TargetModel, TokenId, TokenTree, generate,
};
use vispec_models::draft::{NeuralDraft, NeuralDraftSession};
use vispec_models::features::FeatureSpec;
use vispec_models::{
    Draft, DraftEmbeds, DraftReading, DtypeChoice, EncodedPrompt, Engine, Method, ModelError,
    PositionsOf,
};

const TOLERANCE: f64 = 1e-4;
const N_DRAFT: usize = 256;

fn engine(draft: &Path) -> Engine {
    engine_of("sglang", draft)
}

/// Loads a draft together with the target of a dialect.
fn engine_of(dialect: &str, draft: &Path) -> Engine {
    let target = fixtures().join("models").join(target(dialect));
    load_dirs(target, Some(draft.to_owned()), DtypeChoice::F32)
}

fn neural(engine: &Engine) -> &NeuralDraft {
    match engine.draft() {
        Some(Draft::Neural(_, draft)) => draft,
        other => panic!("{other:?}"),
    }
}

/// Asserts that the log-probabilities of the tokens match the reference logits of the draft's ids.
#[track_caller]
fn assert_scores(what: &str, found: &Expansion<Tensor<2>>, logits: &Array, ids: &[TokenId]) {
    assert_eq!(found.top.tokens.len(), ids.len(), "{what}");
    let largest = logits.values.iter().fold(f64::MIN, |a, &b| a.max(b));
    let sum: f64 = logits.values.iter().map(|v| (v - largest).exp()).sum();
    let expected: Vec<f64> = logits
        .values
        .iter()
        .map(|v| v - largest - sum.ln())
        .collect();
    let mut by_id = vec![f32::NAN; ids.len()];
    for (token, log_prob) in found.top.tokens.iter().zip(&found.top.log_probs) {
        by_id[ids.iter().position(|id| id == token).unwrap()] = *log_prob;
    }
    assert_close(what, &by_id, &expected, TOLERANCE);
}

/// Asserts that `found` equals the reference tensor, or ends with it if only the last rows were
/// stored.
#[track_caller]
fn assert_rows(what: &str, found: &[f32], expected: &Array) {
    let from = found.len() - expected.values.len();
    assert_close(what, &found[from..], &expected.values, TOLERANCE);
}

/// Returns the target's token for each draft id.
fn draft_ids(dir: &Path) -> Vec<TokenId> {
    let tensors = reference::stored::read(&dir.join("model.safetensors"));
    let table = tensors.iter().find(|tensor| tensor.name == "d2t").unwrap();
    let offsets = table.data.chunks_exact(8);
    let offsets = offsets.map(|b| i64::from_le_bytes(b.try_into().unwrap()));
    (0i64..)
        .zip(offsets)
        .map(|(id, offset)| TokenId::try_from(id + offset).unwrap())
        .collect()
}

struct Case<'a> {
    what: String,
    tensors: &'a Tensors,
    ids: &'a [TokenId],
}

impl Case<'_> {
    fn get(&self, name: &str) -> &Array {
        let found = self.tensors.get(name);
        found.unwrap_or_else(|| panic!("{}: {name}", self.what))
    }

    /// Expands a chain of the best tokens after a pass and compares each step with the reference.
    fn assert_steps(
        &self,
        session: &mut NeuralDraftSession,
        begun: Expansion<Tensor<2>>,
        steps: &[usize],
        prefix: &str,
    ) {
        let mut last = begun;
        for level in 0..3 {
            let step = level + 1;
            let token = last.top.tokens[0];
            if self.tensors.get(&format!("step{step}.input_id")).is_some() && prefix.is_empty() {
                let input = self.get(&format!("step{step}.input_id")).values[0];
                assert_eq!(token, input as TokenId);
            }
            let beam = Beam {
                level,
                tokens: vec![token],
                parent_rows: vec![0],
                paths: vec![(0..=level).collect()],
            };
            last = session
                .expand(&beam, &last.hidden, Ask::best(N_DRAFT))
                .unwrap();
            let what = |field: &str| format!("{}: {prefix}step {step}: {field}", self.what);
            if steps.contains(&step)
                && let Some(hidden) = self
                    .tensors
                    .get(&format!("{prefix}step{step}.draft_hidden"))
            {
                assert_close(
                    &what("hidden"),
                    &floats(&last.hidden),
                    &hidden.values,
                    TOLERANCE,
                );
            }
            if let Some(logits) = self
                .tensors
                .get(&format!("{prefix}step{step}.draft_logits"))
            {
                assert_scores(&what("scores"), &last, logits, self.ids);
            }
        }
    }
}

fn begin(
    draft: &NeuralDraft,
    engine: &Engine,
    prompt: &EncodedPrompt,
    next: TokenId,
) -> (NeuralDraftSession, Expansion<Tensor<2>>, Tensor<2>) {
    let mut cache = engine.target().new_cache().unwrap();
    let features = engine
        .target()
        .prefill(prompt, &mut cache)
        .unwrap()
        .features;
    let mut session = draft.session();
    let begun = session
        .begin(prompt, features.clone(), next, Ask::best(N_DRAFT))
        .unwrap();
    (session, begun, features)
}

#[test]
fn stages_are_those_of_the_reference() {
    for dialect in DIALECTS {
        let dir = draft_dir(dialect);
        let engine = engine_of(dialect, &dir);
        let draft = neural(&engine);
        let states = states(dialect);
        assert_eq!(draft.features(), &FeatureSpec::residual(&states));
        assert_eq!(engine.draft().unwrap().vocab_len(), Some(N_DRAFT));
        let ids = draft_ids(&dir);
        let mut n_fused = 0;
        for name in prompts(dialect) {
            let (_, tensors) = case(dialect, name);
            let case = Case {
                what: format!("{dialect}, {name}"),
                tensors: &tensors,
                ids: &ids,
            };
            let prompt = prompt_of(dialect, &engine, name);
            let (answer, aux) = aux_hidden_of(dialect, name);
            let (mut session, begun, features) = begin(draft, &engine, &prompt, answer[0]);
            if let Some(expected) = tensors.get("fc_out") {
                let fused = floats(&draft.network().fuse_target(features));
                assert_close(&case.what, &fused, &expected.values, TOLERANCE);
                n_fused += 1;
            }
            let output = floats(session.last_output().unwrap());
            assert_rows(&case.what, &output, case.get("draft_hidden"));
            assert_scores(&case.what, &begun, case.get("draft_logits_last"), &ids);
            let best = begun.top.tokens[..10].iter().map(|&token| f64::from(token));
            assert!(best.eq(case.get("top10_target_ids").values.iter().copied()));
            case.assert_steps(&mut session, begun, &[1, 2, 3], "");

            // Commit the target's states of three more tokens; the rows of drafted tokens are
            // dropped.
            let inputs: Vec<TokenId> = case
                .get("extend.input_ids")
                .values
                .iter()
                .map(|&id| id as TokenId)
                .collect();
            let width = states.len() * engine.target().hidden();
            // For some prompts only the rows of the answer were stored.
            let first = aux.len() - (answer.len() - 1) * width;
            let aux = aux[first..first + 3 * width].iter().map(|&v| v as f32);
            let aux = TensorData::new(aux.collect::<Vec<_>>(), [3, width]);
            let aux = Tensor::from_data(aux, engine.target().device());
            let extended = session
                .commit(&inputs[..2], aux, inputs[2], Ask::best(N_DRAFT))
                .unwrap();
            let output = floats(session.last_output().unwrap());
            let expected = case.get("extend.draft_hidden");
            assert_close(&case.what, &output, &expected.values, TOLERANCE);
            let logits = case.get("extend.draft_logits");
            assert_scores(&case.what, &extended, logits, &ids);
        }
        assert_eq!(n_fused, 1, "{dialect}");
    }
}

/// Copies a draft and changes its config.
fn with_config(dialect: &str, change: impl FnOnce(&mut serde_json::Value)) -> tempfile::TempDir {
    let copy = copy_of(&format!("drafts/qwen-tied-eagle3-{dialect}"));
    let path = copy.path().join("config.json");
    let mut config = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut config);
    fs::write(path, config.to_string()).unwrap();
    copy
}

/// Positions follow the rule of the dialect, and the rule affects the results.
#[test]
fn positions_are_those_of_the_dialect() {
    // SGLang's draft as vLLM would serve it, and a `speculators` draft in SGLang's dialect.
    let temporal = with_config("sglang", |config| {
        config["architectures"][0] = "Eagle3Qwen2_5vlForCausalLM".into();
    });
    let sequential = with_config("speculators", |config| {
        let mut layer = config["transformer_layer_config"].take();
        for (field, value) in [
            (
                "architectures",
                serde_json::json!(["LlamaForCausalLMEagle3"]),
            ),
            ("norm_before_residual", true.into()),
            ("draft_vocab_size", N_DRAFT.into()),
            (
                "eagle_config",
                serde_json::json!({"eagle_aux_hidden_state_layer_ids": [0, 1, 2]}),
            ),
        ] {
            layer[field] = value;
        }
        *config = layer;
    });
    for (dialect, variant, copy) in [
        ("sglang", "positions_temporal", &temporal),
        ("speculators", "positions_sequential", &sequential),
    ] {
        let engine = engine(copy.path());
        let ids = draft_ids(copy.path());
        for name in ["img-short", "multi-turn"] {
            let (found, tensors) = case(dialect, name);
            assert!(found.variants.iter().any(|known| known == variant));
            let case = Case {
                what: format!("{dialect}, {name}, {variant}"),
                tensors: &tensors,
                ids: &ids,
            };
            let prompt = prompt(&engine, name);
            let draft = neural(&engine);
            let (mut session, begun, _) = begin(draft, &engine, &prompt, found.ar_ids[0]);
            let prefix = format!("variant.{variant}.");
            let output = floats(session.last_output().unwrap());
            let expected = case.get(&format!("{prefix}draft_hidden"));
            assert_rows(&case.what, &output, expected);
            let usual = case.get("draft_hidden");
            assert_eq!(usual.shape, expected.shape);
            let differs = expected.values.iter().zip(&usual.values);
            assert!(differs.into_iter().any(|(a, b)| (a - b).abs() > 1e-2));
            let logits = case.get(&format!("{prefix}draft_logits_last"));
            assert_scores(&case.what, &begun, logits, &ids);
            case.assert_steps(&mut session, begun, &[1], &prefix);
        }
    }
}

/// Other ways in which engines read a prompt with the same draft.
#[test]
fn other_ways_to_read_a_prompt_are_those_of_the_reference() {
    let shifted = DraftReading {
        positions: PositionsOf::Next,
        ..DraftReading::default()
    };
    let features = DraftReading {
        embeds: DraftEmbeds::Target,
        ..DraftReading::default()
    };
    let mut compared = 0;
    for (variant, reading) in [
        ("positions_mrope_shifted", shifted),
        ("embeds_image_features", features),
    ] {
        for dialect in DIALECTS {
            let dir = draft_dir(dialect);
            for name in prompts(dialect) {
                let (found, tensors) = case(dialect, name);
                if !found.variants.iter().any(|known| known == variant) {
                    continue;
                }
                let engine = engine_of(dialect, &dir)
                    .with_draft_reading(reading)
                    .unwrap();
                let ids = draft_ids(&dir);
                let case = Case {
                    what: format!("{dialect}, {name}, {variant}"),
                    tensors: &tensors,
                    ids: &ids,
                };
                let prompt = prompt_of(dialect, &engine, name);
                let draft = neural(&engine);
                let (mut session, begun, _) = begin(draft, &engine, &prompt, found.ar_ids[0]);
                let prefix = format!("variant.{variant}.");
                let output = floats(session.last_output().unwrap());
                assert_rows(
                    &case.what,
                    &output,
                    case.get(&format!("{prefix}draft_hidden")),
                );
                let logits = case.get(&format!("{prefix}draft_logits_last"));
                assert_scores(&case.what, &begun, logits, &ids);
                case.assert_steps(&mut session, begun, &[1], &prefix);
                compared += 1;
                let decoding = Decoding::greedy(24);
                let tree = shape(3, 8, 30);
                let plain = decoding.answer(&engine, &prompt, Method::None, tree);
                let drafted = decoding.answer(&engine, &prompt, Method::Eagle3, tree);
                assert_eq!(drafted.tokens, plain.tokens, "{}", case.what);
            }
        }
    }
    assert!(compared > 4, "{compared}");
    let other = reference::load("qwen-tied", Some("qwen-tied-q2"), DtypeChoice::F32);
    let error = other.with_draft_reading(shifted).unwrap_err();
    assert!(matches!(error, ModelError::DraftKind { .. }), "{error}");
    let none = reference::load("qwen-tied", None, DtypeChoice::F32);
    assert!(none.with_draft_reading(shifted).is_err());
}

#[derive(Default)]
struct Trees(Vec<TokenTree>);

impl GenerationObserver for Trees {
    fn on_draft(&mut self, tree: &TokenTree, _time: std::time::Duration) {
        self.0.push(tree.clone());
    }
}

/// The only tree in which two siblings have scores that differ by just 5e-7, which is less than the
/// effect of another summation order. These siblings may therefore be swapped.
const TIED: (&str, usize, [usize; 2]) = ("speculators, text-only", 1, [12, 13]);

fn assert_tree(what: &str, round: usize, tree: &TokenTree, tensors: &Tensors) {
    if (what, round) == (TIED.0, TIED.1) {
        let mut tokens: Vec<f64> = tree.tokens().iter().map(|&t| f64::from(t)).collect();
        let [first, second] = TIED.2;
        let expected = tensors.get(&format!("round{round}.draft_tokens")).unwrap();
        if tokens != expected.values {
            tokens.swap(first, second);
        }
        assert_eq!(tokens, expected.values, "{what}");
        let parent = |node| tree.parent(NodeId::from_index(node));
        assert_eq!(parent(first), parent(second));
        return;
    }
    let same = |field: &str, found: Vec<f64>| {
        let expected = tensors.get(&format!("round{round}.{field}")).unwrap();
        assert_eq!(found, expected.values, "{what}: round {round}: {field}");
    };
    same(
        "draft_tokens",
        tree.tokens().iter().map(|&t| f64::from(t)).collect(),
    );
    same(
        "tree_position_ids",
        tree.depths().iter().map(|&d| f64::from(d)).collect(),
    );
    let mask = tree.mask();
    same(
        "tree_mask",
        mask.as_slice()
            .iter()
            .map(|&m| f64::from(u8::from(m)))
            .collect(),
    );
    let retrieve = RetrieveIndices::of(tree);
    same(
        "retrieve_indices",
        retrieve
            .as_slice()
            .iter()
            .map(|&node| node as f64)
            .collect(),
    );
}

#[test]
fn trees_acceptance_and_tokens_are_those_of_the_reference() {
    for dialect in DIALECTS {
        let engine = engine_of(dialect, &draft_dir(dialect));
        for name in prompts(dialect) {
            let what = format!("{dialect}, {name}");
            let (case, tensors) = case(dialect, name);
            assert!(case.acceptance_stable_under_noise, "{what}");
            let mut trees = Trees::default();
            let drafter = DynamicTreeDrafter::new(neural(&engine).session(), shape(3, 4, 16));
            let config = GenerationConfig {
                max_new_tokens: case.ar_ids_continued.len() + 8,
                stop_tokens: Vec::new(),
            };
            let rule = MatchPicks::new(Sampler::Greedy, PositionUniforms::new(0));
            let prompt = prompt_of(dialect, &engine, name);
            let target = engine.target();
            let found = generate(target, drafter, rule, &prompt, config, &mut trees).unwrap();
            let n_known = case.ar_ids_continued.len();
            assert_eq!(found.tokens[..n_known], case.ar_ids_continued, "{what}");
            let accepted = found.stats.accepted_per_cycle();
            let accepted = accepted.iter().map(|&n| n as usize);
            let accepted: Vec<usize> = accepted.take(case.acceptance_len.len()).collect();
            assert_eq!(accepted, case.acceptance_len, "{what}");
            for round in 0..3 {
                assert_tree(&what, round, &trees.0[round], &tensors);
            }
        }
    }
}

/// Compares greedy and sampled (T = 1) answers, with fixed trees, with and without lookup.
#[test]
fn answers_are_those_of_plain_decoding() {
    for dialect in DIALECTS {
        let engine = engine_of(dialect, &draft_dir(dialect));
        assert_eq!(engine.default_method(), Method::Eagle3);
        for name in prompts(dialect) {
            let prompt = prompt_of(dialect, &engine, name);
            for sampler in [Sampler::Greedy, Sampler::new(1.0, None, None).unwrap()] {
                let decoding = Decoding {
                    sampler,
                    seed: 3,
                    max_new_tokens: 32,
                };
                let tree = shape(3, 8, 30);
                let plain = decoding.answer(&engine, &prompt, Method::None, tree);
                for method in [Method::Eagle3, Method::Eagle3.with_lookup()] {
                    let found = decoding.answer(&engine, &prompt, method, tree);
                    let what = format!("{dialect}, {name}, {method}, {sampler:?}");
                    assert_eq!(found.tokens, plain.tokens, "{what}");
                }
            }
        }
    }
}
