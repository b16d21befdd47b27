//! Compares each stage with the reference implementation, so that a failure names the stage:
//! pixels, vision features, prefill, draft outputs, trees, masks, retrieve indices, verification.

#![allow(
    clippy::unwrap_used,
    clippy::float_cmp,
    reason = "a test may panic, and whole numbers are compared exactly"
)]

mod reference;

use std::cell::RefCell;

use burn::tensor::Tensor;
use reference::{Array, Case, Tensors, assert_close, floats};
use vispec_core::testing::RetrieveIndices;
use vispec_core::{
    Ask, Beam, BoxError, DraftModel, DynamicTreeDrafter, Expansion, GenerationConfig,
    GenerationObserver, MatchPicks, NodeId, OutputOf, PassInput, PositionUniforms, Sampler,
    TargetLogits, TargetModel, TokenId, TokenTree, TreeShape, Verdict, generate,
};
use vispec_models::draft::NeuralDraftSession;
use vispec_models::{DeviceLogits, Draft, EncodedPrompt, VlmCache, VlmTarget};

const TOLERANCE: f64 = 1e-4;

/// A target that records the hidden states of each verify pass.
struct Watched<'t> {
    target: &'t VlmTarget,
    prefill: RefCell<Vec<(Vec<f32>, Vec<f32>)>>,
    verified: RefCell<Vec<Vec<f32>>>,
}

impl TargetModel for Watched<'_> {
    type Prompt = EncodedPrompt;
    type Cache = VlmCache;
    type Features = Tensor<2>;
    type Logits = DeviceLogits;

    fn vocab_size(&self) -> usize {
        self.target.vocab_size()
    }
    fn context_len(&self) -> usize {
        self.target.context_len()
    }
    fn new_cache(&self) -> Result<VlmCache, BoxError> {
        self.target.new_cache()
    }
    fn read(
        &self,
        input: PassInput<'_, EncodedPrompt>,
        cache: &mut VlmCache,
    ) -> Result<OutputOf<Self>, BoxError> {
        let mut output = self.target.read(input, cache)?;
        let features = floats(&output.features);
        match input {
            PassInput::Prompt { .. } => {
                let logits = output.logits.read_row(0)?.to_vec();
                self.prefill.borrow_mut().push((features, logits));
            }
            PassInput::Tree(_) => self.verified.borrow_mut().push(features),
        }
        Ok(output)
    }
    fn gather_features(&self, f: Tensor<2>, path: &[NodeId]) -> Result<Tensor<2>, BoxError> {
        self.target.gather_features(f, path)
    }
}

/// First pass of a draft in one cycle: its output rows, then the number of cache rows and the next
/// position after the pass.
type DraftPass = (Vec<f32>, (usize, usize));

/// A draft that is inspected after the first pass of each cycle.
struct WatchedDraft<'l, D> {
    session: D,
    after_pass: &'l dyn Fn(&D),
}

impl<'t, D: DraftModel<VlmTarget>> DraftModel<Watched<'t>> for WatchedDraft<'_, D> {
    type Hidden = D::Hidden;

    fn name(&self) -> &str {
        self.session.name()
    }
    fn fixed_levels(&self) -> Option<usize> {
        self.session.fixed_levels()
    }
    fn begin(
        &mut self,
        p: &EncodedPrompt,
        f: Tensor<2>,
        n: TokenId,
        ask: Ask,
    ) -> Result<Expansion<D::Hidden>, BoxError> {
        let rows = self.session.begin(p, f, n, ask)?;
        (self.after_pass)(&self.session);
        Ok(rows)
    }
    fn commit(
        &mut self,
        a: &[TokenId],
        f: Tensor<2>,
        n: TokenId,
        ask: Ask,
    ) -> Result<Expansion<D::Hidden>, BoxError> {
        let rows = self.session.commit(a, f, n, ask)?;
        (self.after_pass)(&self.session);
        Ok(rows)
    }
    fn expand(
        &mut self,
        beam: &Beam,
        parents: &D::Hidden,
        ask: Ask,
    ) -> Result<Expansion<D::Hidden>, BoxError> {
        self.session.expand(beam, parents, ask)
    }
}

#[derive(Default)]
struct Trees(Vec<(TokenTree, Option<Verdict>)>);

impl GenerationObserver for Trees {
    fn on_draft(&mut self, tree: &TokenTree, _time: std::time::Duration) {
        self.0.push((tree.clone(), None));
    }
    fn on_verify(&mut self, _tree: &TokenTree, verdict: &Verdict, _time: std::time::Duration) {
        self.0.last_mut().unwrap().1 = Some(verdict.clone());
    }
}

#[track_caller]
fn assert_integers(what: &str, found: impl IntoIterator<Item = i64>, expected: &Array) {
    let found: Vec<i64> = found.into_iter().collect();
    let expected: Vec<i64> = expected.values.iter().map(|&v| v as i64).collect();
    assert_eq!(found, expected, "{what}");
}

fn assert_tree(name: &str, round: usize, tree: &TokenTree, tensors: &Tensors) {
    let get = |field: &str| tensors.get(&format!("round{round}.{field}")).unwrap();
    let what = |field: &str| format!("{name}: round {round}: {field}");
    let tokens = tree.tokens().iter().map(|&t| i64::from(t));
    assert_integers(&what("tokens"), tokens, get("draft_tokens"));
    let depths = tree.depths().iter().map(|&d| i64::from(d));
    assert_integers(&what("depths"), depths, get("tree_position_ids"));
    let mask = tree.mask();
    assert_integers(
        &what("mask"),
        mask.as_slice().iter().map(|&m| m.into()),
        get("tree_mask"),
    );
    let retrieve = RetrieveIndices::of(tree);
    let nodes = retrieve.as_slice().iter().copied();
    assert_integers(&what("retrieve indices"), nodes, get("retrieve_indices"));
}

#[expect(clippy::too_many_lines, reason = "one stage after the other")]
fn check(name: &str) {
    let case = Case::read(name);
    let engine = case.engine();
    let tensors = case.tensors();

    let prepared = engine
        .processor()
        .prepare(&case.messages(), &case.images())
        .unwrap();
    if let Some(expected) = tensors.get("pixel_values") {
        assert_close(
            &format!("{name}: pixels"),
            &prepared.images[0].pixels().data,
            &expected.values,
            TOLERANCE,
        );
    }
    if let Some(expected) = tensors.get("vision.features") {
        let features = engine.target().encode_image(&prepared.images[0]).unwrap();
        assert_close(
            &format!("{name}: vision"),
            &floats(&features.tokens),
            &expected.values,
            TOLERANCE,
        );
    }
    let prompt = engine.target().encode(&prepared).unwrap();
    if let Some(expected) = tensors.get("prefill.inputs_embeds") {
        assert_close(
            &format!("{name}: embeds"),
            &floats(prompt.embeds()),
            &expected.values,
            TOLERANCE,
        );
    }

    let draft = Draft::load(&reference::fixtures().join(&case.draft), engine.target()).unwrap();
    let s = &case.settings;
    let shape = TreeShape::from_upstream(s.depth, s.top_k, s.total_token).unwrap();
    let target = Watched {
        target: engine.target(),
        prefill: RefCell::default(),
        verified: RefCell::default(),
    };
    let passes: RefCell<Vec<DraftPass>> = RefCell::default();
    let keep = |session: &NeuralDraftSession| {
        let output = floats(session.last_output().unwrap());
        passes
            .borrow_mut()
            .push((output, session.committed().unwrap()));
    };
    let mut trees = Trees::default();
    match draft {
        Draft::Neural(_, draft) => {
            let model = WatchedDraft {
                session: draft.session(),
                after_pass: &keep,
            };
            run(&target, model, shape, &prompt, &case, &mut trees);
        }
        Draft::Medusa(medusa) => {
            let model = WatchedDraft {
                session: medusa.session(),
                after_pass: &|_| (),
            };
            run(&target, model, shape, &prompt, &case, &mut trees);
        }
    }

    let prefill = target.prefill.borrow();
    let (hidden, logits) = &prefill[0];
    if let Some(expected) = tensors.get("prefill.last_hidden_state") {
        assert_close(
            &format!("{name}: prefill"),
            hidden,
            &expected.values,
            TOLERANCE,
        );
    }
    let expected = tensors.get("prefill.logits_last").unwrap();
    assert_close(
        &format!("{name}: logits"),
        logits,
        &expected.values,
        TOLERANCE,
    );

    if !case.draft_sees_what_ours_sees() {
        return;
    }
    for round in 0..3 {
        if tensors.get(&format!("round{round}.draft_tokens")).is_none() {
            break;
        }
        let (tree, verdict) = &trees.0[round];
        // Medusa has no cache, and only the last row of its outputs is used.
        if case.method != "medusa" {
            let (found, committed) = &passes.borrow()[round];
            assert_draft_pass(name, round, found, *committed, &tensors);
        }
        assert_tree(name, round, tree, &tensors);
        let hidden = tensors.get(&format!("round{round}.target_hidden")).unwrap();
        let verified = &target.verified.borrow()[round];
        assert_close(
            &format!("{name}: round {round}: verify"),
            verified,
            &hidden.values,
            TOLERANCE,
        );
        let accepted = tensors.get(&format!("round{round}.accept_length")).unwrap();
        assert_eq!(
            verdict.as_ref().unwrap().path.len() as f64 - 1.0,
            accepted.values[0]
        );
    }
}

fn assert_draft_pass(
    name: &str,
    round: usize,
    found: &[f32],
    (rows, next_position): (usize, usize),
    tensors: &Tensors,
) {
    let get = |field: &str| tensors.get(&format!("round{round}.{field}")).unwrap();
    let kv = get("draft_kv");
    assert_eq!(
        rows as f64, kv.values[0],
        "{name}: round {round}: draft cache"
    );
    if kv.values[1] >= 0.0 {
        assert_eq!(next_position as f64, kv.values[1], "{name}: next position");
    }
    assert_draft_output(
        &format!("{name}: round {round}: draft output"),
        found,
        get("draft_out_hidden"),
    );
}

fn run<'t, D: DraftModel<Watched<'t>>>(
    target: &Watched<'t>,
    model: D,
    shape: TreeShape,
    prompt: &EncodedPrompt,
    case: &Case,
    trees: &mut Trees,
) {
    let config = GenerationConfig {
        max_new_tokens: case.settings.max_new_tokens,
        stop_tokens: Vec::new(),
    };
    let rule = MatchPicks::new(Sampler::Greedy, PositionUniforms::new(0));
    generate(
        target,
        DynamicTreeDrafter::new(model, shape),
        rule,
        prompt,
        config,
        trees,
    )
    .unwrap();
}

/// The reference leaves zeros in the rows of image tokens that compression removed; this
/// implementation has no such rows.
fn assert_draft_output(what: &str, found: &[f32], expected: &Array) {
    let kept: Vec<f64> = expected
        .values
        .chunks_exact(expected.shape[1])
        .filter(|row| row.iter().any(|v| *v != 0.0))
        .flatten()
        .copied()
        .collect();
    assert_close(what, found, &kept, TOLERANCE);
}

#[test]
fn qwen_with_an_image() {
    check("qwen-untied/img-short");
    check("qwen-untied/img-large");
}

#[test]
fn qwen_with_four_queries() {
    check("qwen-tied/q4-img-short");
    check("qwen-tied/q4-text-only");
}

#[test]
fn qwen_over_several_turns() {
    check("qwen-tied/multi-turn");
}

#[test]
fn llava_next_with_tiles() {
    check("llava-next/img-large");
}

#[test]
fn llava_with_and_without_an_image() {
    check("llava-15/img-short");
    check("llava-15/text-only");
}

#[test]
fn eagle2_reads_images_uncompressed() {
    check("qwen-untied/eagle2-img-short");
}

#[test]
fn medusa_grows_the_trees_of_the_reference() {
    check("qwen-untied/medusa-img-short");
}
