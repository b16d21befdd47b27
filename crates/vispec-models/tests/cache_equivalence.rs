//! Caches: verifying a tree gives the same results as decoding each of its paths, and after a cycle
//! the caches equal those of reading the same tokens from scratch.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod reference;

use burn::tensor::{Int, Tensor, TensorData};
use reference::{
    Numbers, TARGETS, VISPEC, assert_close, fixtures, floats, image_of, load, load_with_kv,
};
use vispec_core::{
    Ask, Beam, BoxError, DraftModel, KvCache, NodeId, Prompt, TargetLogits, TargetModel, TokenId,
    TokenTree,
};
use vispec_models::draft::{NeuralDraft, NeuralDraftSession};
use vispec_models::{Draft, DtypeChoice, EncodedPrompt, Engine, KvPrecision, VlmCache, VlmTarget};
use vispec_processor::{Messages, Positions, PreparedPrompt};

const TOLERANCE: f64 = 1e-4;

fn prepared(engine: &Engine, target: &str) -> PreparedPrompt {
    let messages = Messages::from_prompt(None, "Describe the image briefly.", 1);
    let image = image_of(&format!("{target}/img-short"));
    engine.processor().prepare(&messages, &[image]).unwrap()
}

/// Appends text tokens to the prompt.
fn extended(mut prompt: PreparedPrompt, tokens: &[TokenId]) -> PreparedPrompt {
    let n_before = i64::try_from(prompt.token_ids.len()).unwrap();
    let delta = prompt.rope_delta;
    let new = (n_before + delta..).take(tokens.len());
    let new: Vec<u32> = new.map(|p| u32::try_from(p).unwrap()).collect();
    match &mut prompt.positions {
        Positions::Sequential(index) => index.extend(&new),
        Positions::Multimodal {
            temporal,
            height,
            width,
        } => [temporal, height, width]
            .into_iter()
            .for_each(|axis| axis.extend(&new)),
    }
    prompt.token_ids.extend(tokens);
    prompt
}

/// Creates a random tree of `n_nodes` nodes; a small `fan_out` makes it deep.
fn random_tree(numbers: &mut Numbers, n_nodes: usize, fan_out: usize, vocab: usize) -> TokenTree {
    let mut tree = TokenTree::new(token(numbers, vocab));
    while tree.n_nodes() < n_nodes {
        let recent = tree.n_nodes().min(fan_out);
        let parent = tree.n_nodes() - 1 - numbers.below(recent);
        // A sibling may already have the same token.
        let _ = tree.push(NodeId::from_index(parent), token(numbers, vocab));
    }
    tree
}

fn token(numbers: &mut Numbers, vocab: usize) -> TokenId {
    TokenId::try_from(numbers.below(vocab)).unwrap()
}

/// Runs a pass over `tree` and returns the logits, one row per node, and the features.
fn verify(
    target: &VlmTarget,
    tree: &TokenTree,
    cache: &mut VlmCache,
) -> (Vec<Vec<f32>>, Tensor<2>) {
    let mut output = target.verify(tree, cache).unwrap();
    let rows = (0..tree.n_nodes()).map(|row| output.logits.read_row(row).unwrap().to_vec());
    (rows.collect(), output.features)
}

/// Decodes `tokens` one by one and returns the logits after each.
fn decode(target: &VlmTarget, tokens: &[TokenId], cache: &mut VlmCache) -> Vec<Vec<f32>> {
    let one = |&token: &TokenId| {
        let base = cache.len();
        let (mut rows, _) = verify(target, &TokenTree::new(token), cache);
        cache.keep_path(base, &[NodeId::ROOT]);
        rows.remove(0)
    };
    tokens.iter().map(one).collect()
}

fn tokens_of(tree: &TokenTree, path: &[NodeId]) -> Vec<TokenId> {
    path.iter().map(|&node| tree.token(node)).collect()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

/// The comparison is bitwise. Exact equality is the reason why speculative answers equal plain ones
/// without special treatment of near-ties.
#[test]
fn a_tree_is_verified_as_its_paths_are_decoded() {
    let mut numbers = Numbers(1);
    for name in TARGETS {
        let wide =
            ["f32", "bf16", "f16", "int8", "int4", "int4:32"].map(|d| (d, KvPrecision::Auto));
        let half = ["f32", "bf16"].map(|dtype| (dtype, KvPrecision::Bf16));
        for (dtype, kv) in wide.into_iter().chain(half) {
            // 80 inputs are not a multiple of 32.
            if dtype.starts_with("int") && name == "llava-next" {
                continue;
            }
            let dtype: DtypeChoice = dtype.parse().unwrap();
            let engine = load_with_kv(name, None, dtype, kv);
            let target = engine.target();
            let prompt = target.encode(&prepared(&engine, name)).unwrap();
            let mut before = target.new_cache().unwrap();
            target.prefill(&prompt, &mut before).unwrap();
            for (n_nodes, fan_out) in [(1, 1), (7, 7), (30, 4), (30, 30), (61, 20), (200, 60)] {
                let tree = random_tree(&mut numbers, n_nodes, fan_out, target.vocab_size());
                let (rows, _) = verify(target, &tree, &mut before.clone());
                let has_child = |node: &NodeId| tree.children(*node).next().is_some();
                let leaves: Vec<NodeId> = tree.nodes().filter(|node| !has_child(node)).collect();
                for &leaf in leaves.iter().step_by(leaves.len().div_ceil(8)) {
                    let path = tree.path(leaf);
                    let alone = decode(target, &tokens_of(&tree, &path), &mut before.clone());
                    for (node, expected) in path.iter().zip(alone) {
                        assert!(
                            rows[node.index()] == expected,
                            "{name}, {dtype:?}, {kv:?}: node {} of {n_nodes} differs",
                            node.index()
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_kept_path_leaves_what_a_fresh_prefill_leaves() {
    let mut numbers = Numbers(2);
    for name in TARGETS {
        let engine = load(name, None, DtypeChoice::F32);
        let target = engine.target();
        let prepared = prepared(&engine, name);
        let prompt = target.encode(&prepared).unwrap();
        let mut cache = target.new_cache().unwrap();
        target.prefill(&prompt, &mut cache).unwrap();
        let mut committed = Vec::new();
        for _cycle in 0..4 {
            let tree = random_tree(&mut numbers, 24, 12, target.vocab_size());
            let base = cache.len();
            verify(target, &tree, &mut cache);
            let path = tree.path(NodeId::from_index(numbers.below(24)));
            cache.keep_path(base, &path);
            committed.extend(tokens_of(&tree, &path));
            assert_eq!(cache.len(), prepared.token_ids.len() + committed.len());

            let next = token(&mut numbers, target.vocab_size());
            let found = decode(target, &[next], &mut cache.clone()).remove(0);
            committed.push(next);
            let fresh = extended(prepared.clone(), &committed);
            committed.pop();
            let fresh = target.encode(&fresh).unwrap();
            let mut output = target
                .prefill(&fresh, &mut target.new_cache().unwrap())
                .unwrap();
            let expected = wide(output.logits.read_row(0).unwrap());
            assert_close(name, &found, &expected, TOLERANCE);
        }
    }
}

/// Caches grow in steps of 256 rows. Growing must not lose or move a row.
#[test]
fn growing_keeps_every_row() {
    let mut numbers = Numbers(3);
    for name in TARGETS {
        let engine = load(name, None, DtypeChoice::F32);
        let target = engine.target();
        let prepared = prepared(&engine, name);
        let prompt = target.encode(&prepared).unwrap();
        let vocab = target.vocab_size();
        let n_before = prepared.token_ids.len();
        let long: Vec<TokenId> = (0..600).map(|_| token(&mut numbers, vocab)).collect();
        let mut cache = target.new_cache().unwrap();
        target.prefill(&prompt, &mut cache).unwrap();
        for end in [255, 256, 257, 400, 513] {
            let done = cache.len() - n_before;
            let found = decode(target, &long[done..end], &mut cache).pop().unwrap();
            let fresh = target
                .encode(&extended(prepared.clone(), &long[..end]))
                .unwrap();
            let mut output = target
                .prefill(&fresh, &mut target.new_cache().unwrap())
                .unwrap();
            let expected = wide(output.logits.read_row(0).unwrap());
            assert_close(&format!("{name} after {end}"), &found, &expected, TOLERANCE);
        }
        // A tree across a growth step is as exact as any other.
        let mut small = target.new_cache().unwrap();
        target.prefill(&prompt, &mut small).unwrap();
        decode(target, &long[..512 - n_before - 10], &mut small);
        let tree = random_tree(&mut numbers, 30, 10, vocab);
        let path = tree.path(NodeId::from_index(29));
        let alone = decode(target, &tokens_of(&tree, &path), &mut small.clone());
        let (rows, _) = verify(target, &tree, &mut small);
        for (node, expected) in path.iter().zip(alone) {
            assert!(
                rows[node.index()] == expected,
                "{name}: node {}",
                node.index()
            );
        }
    }
}

fn neural(engine: &Engine, name: &str) -> NeuralDraft {
    let dir = fixtures().join("drafts").join(name);
    match Draft::load(&dir, engine.target()).unwrap() {
        Draft::Neural(_, draft) => draft,
        Draft::Medusa(_) => panic!("{name} is not a network"),
    }
}

fn rows(features: &Tensor<2>, range: std::ops::Range<usize>) -> Tensor<2> {
    let idx: Vec<i64> = range.map(|row| i64::try_from(row).unwrap()).collect();
    let n_rows = idx.len();
    let idx = TensorData::new(idx, [n_rows]);
    let idx = Tensor::<1, Int>::from_data(idx, &features.device());
    features.clone().select(0, idx)
}

/// Grows two levels of a tree, whose rows the next commit must drop.
fn expand(session: &mut NeuralDraftSession, hidden: &Tensor<2>) -> Result<(), BoxError> {
    let first = Beam {
        level: 0,
        tokens: vec![3, 4, 5],
        parent_rows: vec![0, 0, 0],
        paths: vec![vec![0], vec![1], vec![2]],
    };
    let next = session.expand(&first, hidden, Ask::best(4))?;
    let second = Beam {
        level: 1,
        tokens: vec![6, 7, 8],
        parent_rows: vec![0, 0, 2],
        paths: vec![vec![0, 3], vec![0, 4], vec![2, 5]],
    };
    session.expand(&second, &next.hidden, Ask::best(4))?;
    Ok(())
}

/// The draft's output after a cycle depends only on the committed tokens, not on the tree that was
/// grown before or on whether the tokens were committed together.
#[test]
fn a_draft_commits_as_if_it_read_everything_anew() {
    let drafts = VISPEC.into_iter().chain([
        ("qwen-untied", "qwen-untied-eagle2"),
        ("qwen-tied", "qwen-tied-q4"),
        ("qwen-tied", "qwen-tied-eagle3-sglang"),
        ("qwen-tied", "qwen-tied-eagle3-vllm-mrope"),
        ("qwen-tied", "qwen-tied-eagle3-speculators-norm-before-fc"),
    ]);
    for (name, draft) in drafts {
        let engine = load(name, Some(draft), DtypeChoice::F32);
        let (target, draft) = (engine.target(), neural(&engine, draft));
        let prepared = prepared(&engine, name);
        let n_tokens = prepared.token_ids.len();
        // The prompt, then `first`, which the target chose, then the tokens that later cycles
        // commit.
        let first = 40;
        let later: Vec<TokenId> = vec![41, 50, 60, 70, 71, 80];
        let all: Vec<TokenId> = [first].into_iter().chain(later.clone()).collect();
        let whole = target.encode(&extended(prepared.clone(), &all)).unwrap();
        let features = target
            .prefill(&whole, &mut target.new_cache().unwrap())
            .unwrap()
            .features;

        let start = |prompt: &EncodedPrompt, n: usize, next| {
            let mut session = draft.session();
            let begun = session
                .begin(prompt, rows(&features, 0..n), next, Ask::best(8))
                .unwrap();
            (session, begun.hidden)
        };
        let prompt = target.encode(&prepared).unwrap();
        let commit = |grow: bool| {
            let (mut session, mut hidden) = start(&prompt, n_tokens, first);
            for range in [0..1, 1..4, 4..6] {
                if grow {
                    expand(&mut session, &hidden).unwrap();
                }
                let tokens = &later[range.clone()];
                let (accepted, next) = tokens.split_at(tokens.len() - 1);
                let seen = rows(&features, n_tokens + range.start..n_tokens + range.end);
                hidden = session
                    .commit(accepted, seen, next[0], Ask::best(8))
                    .unwrap()
                    .hidden;
            }
            (session.committed(), floats(&hidden))
        };
        let (grown, quiet) = (commit(true), commit(false));
        assert!(grown == quiet, "{name}: rows of a tree remain in the cache");

        // Everything in one prompt, with the last token as the one that the target chose.
        let read = [&[first][..], &later[..later.len() - 1]].concat();
        let longer = target.encode(&extended(prepared, &read)).unwrap();
        let next = later[later.len() - 1];
        let (session, hidden) = start(&longer, longer.token_ids().len(), next);
        assert_eq!(session.committed(), grown.0, "{name}");
        assert_close(name, &grown.1, &wide(&floats(&hidden)), TOLERANCE);
    }
}
