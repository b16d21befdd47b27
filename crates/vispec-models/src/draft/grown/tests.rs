//! Tests on a GPU or a software Vulkan device. Without either, they print that they are skipped.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};

use vispec_core::{
    Ask, Beam, DraftModel, GenerationConfig, MatchPicks, PositionUniforms, Sampler, Session,
    TargetModel, TokenId, TokenTree, TreeShape,
};
use vispec_processor::{DecodedImage, ImageOptions, Messages};

use super::*;
use crate::draft::{Draft, DraftVocab, LayerIds};
use crate::prompt::EncodedPrompt;
use crate::read_backs::ReadBacks;
use crate::{DeviceSpec, DtypeChoice, Engine, EngineOptions, KvPrecision, Method};

const LEVELS: usize = 4;
const WIDTH: usize = 5;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

/// Loads a target and a draft on the GPU.
#[expect(clippy::print_stderr, reason = "reports that the test is skipped")]
fn engine(target: &str, draft: &str, draft_vocab: DraftVocab) -> Option<Engine> {
    let Ok(device) = DeviceSpec::Wgpu.open() else {
        eprintln!("skipped: no GPU and no software Vulkan (Mesa)");
        return None;
    };
    let options = EngineOptions {
        target: fixtures().join("models").join(target),
        draft: Some(fixtures().join("drafts").join(draft)),
        draft_vocab,
        draft_layer_ids: LayerIds::Auto,
        device,
        dtype: DtypeChoice::F32,
        kv: KvPrecision::Auto,
    };
    Some(Engine::load(&options).unwrap())
}

/// Encodes a question about a picture.
fn prompt(engine: &Engine) -> EncodedPrompt {
    let picture = std::fs::read_dir(fixtures().join("images")).unwrap();
    let picture = picture.map(|entry| entry.unwrap().path()).min().unwrap();
    let picture = DecodedImage::open(&picture, &ImageOptions::default()).unwrap();
    let messages = Messages::from_prompt(None, "What is there?", 1);
    engine.encode(&messages, &[picture]).unwrap().0
}

fn session(engine: &Engine) -> NeuralDraftSession {
    match engine.draft().unwrap() {
        Draft::Neural(_, draft) => draft.session(),
        Draft::Medusa(_) => unreachable!("a network of another kind"),
    }
}

/// Grows the same tree level by level, expanding the given nodes, and returns the candidates of
/// each level.
fn level_by_level(
    session: &mut NeuralDraftSession,
    (features, next): (Tensor<2>, TokenId),
    grown: &[GrownLevel],
) -> Vec<TopK> {
    let ask = Ask::best(WIDTH);
    let mut last = session.commit(&[], features, next, ask).unwrap();
    let mut found = vec![last.top.clone()];
    let (mut paths, mut n_rows) = (vec![Vec::new()], 0);
    for (level, GrownLevel { expanded, .. }) in grown.iter().skip(1).enumerate() {
        let k = last.top.k;
        let beam = Beam {
            level,
            tokens: expanded
                .iter()
                .map(|&place| last.top.tokens[place])
                .collect(),
            parent_rows: expanded.iter().map(|place| place / k).collect(),
            paths: (n_rows..)
                .zip(expanded)
                .map(|(row, place)| [paths[place / k].clone(), vec![row]].concat())
                .collect(),
        };
        n_rows += expanded.len();
        last = session.expand(&beam, &last.hidden, ask).unwrap();
        paths = beam.paths;
        found.push(last.top.clone());
    }
    found
}

#[test]
fn trees_that_grow_on_a_gpu_are_those_grown_level_by_level() {
    for (target, draft, vocab) in [
        ("qwen-tied", "qwen-tied-q2", DraftVocab::All),
        // The tokens of the prompt are added to those of the list.
        ("qwen-tied", "qwen-tied-q2", DraftVocab::First(200)),
        ("qwen-untied", "qwen-untied-eagle2", DraftVocab::Auto),
        // A draft with its own output head and its own tokens.
        ("qwen-tied", "qwen-tied-eagle3-vllm-mrope", DraftVocab::Auto),
    ] {
        let Some(engine) = engine(target, draft, vocab) else {
            return;
        };
        let (target, prompt) = (engine.target(), prompt(&engine));
        let mut cache = target.new_cache().unwrap();
        let features = target.prefill(&prompt, &mut cache).unwrap().features;
        let root = target.verify(&TokenTree::new(7), &mut cache).unwrap();
        let [mut by_itself, mut by_levels] = [session(&engine), session(&engine)];
        let ask = Ask::best(WIDTH);
        for session in [&mut by_itself, &mut by_levels] {
            session.begin(&prompt, features.clone(), 7, ask).unwrap();
        }
        assert!(by_itself.grows_by_itself(WIDTH));
        let before = ReadBacks::of_this_thread().count;
        let levels = (LEVELS, ask);
        let grown = by_itself
            .grow(&[], root.features.clone(), 9, levels)
            .unwrap();
        assert_eq!(ReadBacks::of_this_thread().count - before, 1, "reads");

        let found = level_by_level(&mut by_levels, (root.features, 9), &grown);
        assert_eq!(grown.len(), LEVELS);
        for (level, (grown, found)) in grown.iter().zip(&found).enumerate() {
            assert_eq!(grown.top.tokens, found.tokens, "{draft}, level {level}");
            for (a, b) in grown.top.log_probs.iter().zip(&found.log_probs) {
                assert!((a - b).abs() < 1e-4, "{draft}, level {level}: {a}, {b}");
            }
            let n_expanded = if level == 0 { 0 } else { WIDTH };
            assert_eq!(grown.expanded.len(), n_expanded);
        }
        assert_eq!(by_itself.committed(), by_levels.committed());
    }
}

/// Returns the answer and the number of read-backs in each step of the session.
fn answered(engine: &Engine, method: Method, sampler: Sampler) -> (Vec<TokenId>, Vec<usize>) {
    let prompt = prompt(engine);
    let shape = TreeShape::from_upstream(LEVELS - 1, WIDTH, 12).unwrap();
    let drafter = engine.drafter(method, shape).unwrap();
    let rule = MatchPicks::new(sampler, PositionUniforms::new(4));
    let config = GenerationConfig {
        max_new_tokens: 24,
        ..GenerationConfig::default()
    };
    let mut session = Session::start(engine.target(), drafter, rule, &prompt, config).unwrap();
    let mut reads = Vec::new();
    loop {
        let before = ReadBacks::of_this_thread().count;
        if session.step(engine.target(), &mut ()).unwrap().is_none() {
            break;
        }
        reads.push(ReadBacks::of_this_thread().count - before);
    }
    (session.tokens().to_vec(), reads)
}

/// A cycle reads back the draft's tree and the target's choice. The first cycle, after the prompt,
/// reads each level of the tree.
#[test]
fn a_cycle_on_a_gpu_reads_twice() {
    let Some(engine) = engine("qwen-tied", "qwen-tied-q2", DraftVocab::All) else {
        return;
    };
    for sampler in [Sampler::Greedy, Sampler::new(1.0, None, None).unwrap()] {
        let (plain, reads) = answered(&engine, Method::None, sampler);
        assert_eq!(plain.len(), 24);
        assert!(reads.iter().all(|&reads| reads == 1), "{reads:?}");
        let (drafted, reads) = answered(&engine, Method::Vispec, sampler);
        assert_eq!(drafted, plain, "{sampler:?}");
        assert!(reads.len() > 3, "{reads:?}");
        // One read for the prompt's token, then one per level of the first tree and one for the
        // target's choice; the last token needs no tree.
        assert_eq!(reads[..2], [1, LEVELS + 1]);
        let cycles = &reads[2..reads.len() - 1];
        assert!(cycles.iter().all(|&reads| reads == 2), "{reads:?}");
    }
}
