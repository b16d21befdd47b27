//! End, events and failures of a generation.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::cell::{Cell, RefCell};
use std::ops::ControlFlow;
use std::time::Duration;

use vispec_core::testing::{
    CheckingDrafter, ContinuationDrafter, FixedTreeDrafter, TableCache, TableFeatures, TableModel,
};
use vispec_core::{
    AcceptanceRule, BoxError, DecodeError, Drafter, FinishReason, Generation, GenerationConfig,
    GenerationObserver, GenerationStats, HostLogits, KvCache, LogitsError, MatchPicks, NoDraft,
    NodeId, OutputOf, PassInput, PositionUniforms, Proposal, Sampler, Session, TargetLogits,
    TargetModel, TokenId, TokenTree, TreeError, Verdict, Work, generate,
};

const PROMPT: [TokenId; 3] = [0, 1, 0];

fn model() -> TableModel {
    TableModel::random(50, 3, 11)
}

fn answer(n_tokens: usize) -> Vec<TokenId> {
    model().decode_plainly(
        &PROMPT,
        n_tokens,
        &Sampler::Greedy,
        PositionUniforms::new(0),
    )
}

fn config(max_new_tokens: usize, stop_tokens: &[TokenId]) -> GenerationConfig {
    GenerationConfig {
        max_new_tokens,
        stop_tokens: stop_tokens.to_vec(),
    }
}

fn run(
    model: &TableModel,
    drafter: impl Drafter<TableModel>,
    config: GenerationConfig,
) -> Generation {
    let prompt = PROMPT.to_vec();
    generate(
        model,
        drafter,
        MatchPicks::greedy(),
        &prompt,
        config,
        &mut (),
    )
    .expect("nothing can fail")
}

/// The answer ends with a stop token in every place: as first token, among the accepted tokens, and
/// as bonus token.
#[test]
fn a_stop_token_ends_the_answer_exactly() {
    let answer = answer(30);
    for n_draft in [0, 1, 3, 4, 40] {
        for &stop in &answer {
            let end = answer.iter().position(|&token| token == stop).unwrap() + 1;
            let drafter = ContinuationDrafter::new(answer.clone(), n_draft);
            let generation = run(&model(), drafter, config(30, &[1000, stop]));
            assert_eq!(generation.tokens, answer[..end]);
            assert_eq!(generation.finish_reason, FinishReason::Stop);
            let stats = generation.stats;
            let accepted = stats.accepted_per_cycle();
            assert_eq!(stats.new_tokens(), end);
            // After the first token, each cycle has n_draft + 1 tokens; in the last cycle only
            // emitted draft tokens count.
            assert_eq!(accepted.len(), (end - 1).div_ceil(n_draft + 1));
            let cut_bonus = usize::from(!(end - 1).is_multiple_of(n_draft + 1));
            let with_bonus = accepted.iter().sum::<u32>() as usize + accepted.len();
            assert_eq!(with_bonus, end - 1 + cut_bonus);
        }
    }
}

#[test]
fn max_new_tokens_and_context_cut_exactly() {
    let answer = answer(30);
    for n_tokens in 0..20 {
        for n_draft in [0, 1, 4, 40] {
            let drafter = || ContinuationDrafter::new(answer.clone(), n_draft);
            let by_length = run(&model(), drafter(), config(n_tokens, &[]));
            assert_eq!(by_length.tokens, answer[..n_tokens]);
            assert_eq!(by_length.finish_reason, FinishReason::Length);

            if n_tokens > 0 {
                let small = model().with_context_len(PROMPT.len() + n_tokens);
                let by_context = run(&small, drafter(), config(1000, &[]));
                assert_eq!(by_context.tokens, answer[..n_tokens]);
                assert_eq!(by_context.finish_reason, FinishReason::Context);
                let accepted = by_length.stats.accepted_per_cycle();
                assert_eq!(by_context.stats.accepted_per_cycle(), accepted);
            }
        }
    }
}

/// A limit changes only the last cycle: earlier cycles accept the same tokens as an unlimited run.
#[test]
fn a_limit_leaves_earlier_cycles_alone() {
    let answer = answer(60);
    let tree = FixedTreeDrafter::new(vec![(0, answer[1]), (1, answer[2]), (2, answer[3]), (0, 7)]);
    let free = run(&model(), tree.clone(), config(60, &[])).stats;
    for n_tokens in 1..40 {
        let limited = run(&model(), tree.clone(), config(n_tokens, &[])).stats;
        let n_full = limited.n_cycles().saturating_sub(1);
        assert_eq!(
            limited.accepted_per_cycle()[..n_full],
            free.accepted_per_cycle()[..n_full]
        );
    }
}

#[test]
fn nothing_is_drafted_for_the_last_token() {
    let prompt = PROMPT.to_vec();
    let model = model();
    let start = |max_new_tokens| {
        let drafter = CheckingDrafter::new(NoDraft);
        let config = config(max_new_tokens, &[]);
        Session::start(&model, drafter, MatchPicks::greedy(), &prompt, config).unwrap()
    };
    let mut session = start(3);
    assert_eq!(session.work().unwrap(), Work::Prompt { left: PROMPT.len() });
    let step = session.step(&model, &mut ()).unwrap().unwrap();
    assert_eq!((step.tokens, step.accepted), (answer(1), 0));
    assert_eq!(
        session.drafter().n_trees(),
        0,
        "the first token needs no draft"
    );
    let step = session.step(&model, &mut ()).unwrap().unwrap();
    assert_eq!((step.tokens, step.accepted), (answer(2)[1..].to_vec(), 0));
    session.step(&model, &mut ()).unwrap();
    assert_eq!(session.tokens(), answer(3));
    assert_eq!(
        (session.finish_reason(), session.drafter().n_trees()),
        (None, 2)
    );
    // The last cycle passes the last token through the target and emits nothing.
    let step = session.step(&model, &mut ()).unwrap().unwrap();
    assert_eq!((step.tokens, step.accepted), (Vec::new(), 0));
    assert_eq!(step.finish_reason, Some(FinishReason::Length));
    assert_eq!(session.drafter().n_trees(), 2);
    assert_eq!(session.step(&model, &mut ()).unwrap(), None);
    assert_eq!(session.tokens(), answer(3));

    let session = start(0);
    assert_eq!(
        (session.tokens(), session.finish_reason()),
        (&[][..], Some(FinishReason::Length))
    );
}

/// Records every event.
#[derive(Default)]
struct Recorder {
    events: Vec<String>,
    tokens: Vec<TokenId>,
    cancel_after: Option<usize>,
}

impl GenerationObserver for Recorder {
    fn on_prefill(&mut self, prompt_tokens: usize, _: Duration) {
        self.events.push(format!("prefill {prompt_tokens}"));
    }

    fn on_draft(&mut self, tree: &TokenTree, _: Duration) {
        self.events.push(format!("draft {}", tree.n_nodes()));
    }

    fn on_verify(&mut self, tree: &TokenTree, verdict: &Verdict, _: Duration) {
        self.events.push(format!(
            "verify {} of {}",
            verdict.path.len(),
            tree.n_nodes()
        ));
    }

    fn on_tokens(&mut self, tokens: &[TokenId]) -> ControlFlow<()> {
        self.events.push(format!("tokens {}", tokens.len()));
        self.tokens.extend_from_slice(tokens);
        match self.cancel_after {
            Some(n_tokens) if self.tokens.len() >= n_tokens => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }

    fn on_finish(&mut self, reason: FinishReason, stats: &GenerationStats) {
        self.events
            .push(format!("finish {reason} after {}", stats.new_tokens()));
        assert!(stats.decode_time() >= stats.draft_time() + stats.verify_time());
    }
}

#[test]
fn observers_see_everything_in_order() {
    let prompt = PROMPT.to_vec();
    let mut recorder = Recorder::default();
    let drafter = ContinuationDrafter::new(answer(10), 3);
    let rule = MatchPicks::greedy();
    let generation = generate(
        &model(),
        drafter,
        rule,
        &prompt,
        config(6, &[]),
        &mut recorder,
    )
    .unwrap();
    let expected = [
        "prefill 3",
        "tokens 1",
        "draft 4",
        "verify 4 of 4",
        "tokens 4",
        "draft 2",
        "verify 2 of 2",
        "tokens 1",
        "finish length after 6",
    ];
    assert_eq!(recorder.events, expected);
    assert_eq!(recorder.tokens, generation.tokens);
}

#[test]
fn an_observer_can_cancel() {
    let prompt = PROMPT.to_vec();
    for (cancel_after, n_kept) in [(1, 1), (2, 5), (5, 5), (6, 9)] {
        let mut recorder = Recorder {
            cancel_after: Some(cancel_after),
            ..Recorder::default()
        };
        let drafter = ContinuationDrafter::new(answer(30), 3);
        let rule = MatchPicks::greedy();
        let generation = generate(
            &model(),
            drafter,
            rule,
            &prompt,
            config(30, &[]),
            &mut recorder,
        )
        .unwrap();
        assert_eq!(generation.finish_reason, FinishReason::Cancelled);
        assert_eq!(generation.tokens, answer(n_kept));
        assert_eq!(
            recorder.events.last().unwrap(),
            &format!("finish cancelled after {n_kept}")
        );
    }
    // An answer that has already ended is not reported as cancelled.
    let mut recorder = Recorder {
        cancel_after: Some(1),
        ..Recorder::default()
    };
    let rule = MatchPicks::greedy();
    let generation = generate(
        &model(),
        NoDraft,
        rule,
        &prompt,
        config(10, &answer(1)),
        &mut recorder,
    )
    .unwrap();
    assert_eq!(generation.finish_reason, FinishReason::Stop);
}

#[test]
fn statistics_add_up() {
    let drafter = || ContinuationDrafter::new(answer(30), 3);
    let one = run(&model(), drafter(), config(10, &[])).stats;
    assert_eq!(
        (one.prompt_tokens(), one.new_tokens(), one.n_cycles()),
        (3, 10, 3)
    );
    assert_eq!(one.accepted_per_cycle(), [3, 3, 1]);
    assert_eq!(one.accepted_histogram(), [0, 1, 0, 2]);
    assert!((one.tau() - 7.0 / 3.0).abs() < 1e-12);
    assert!((one.tokens_per_cycle() - 10.0 / 3.0).abs() < 1e-12);
    assert!(one.decode_tokens_per_second() > 0.0);
    let two = run(&model(), NoDraft, config(4, &[])).stats;
    let sum = one.clone() + two.clone();
    assert_eq!(
        (sum.prompt_tokens(), sum.new_tokens(), sum.n_cycles()),
        (6, 14, 7)
    );
    assert_eq!(sum.accepted_histogram(), [4, 1, 0, 2]);
    assert_eq!(sum.decode_time(), one.decode_time() + two.decode_time());
    assert_eq!(sum.other_time(), one.other_time() + two.other_time());

    let none = GenerationStats::default();
    assert!(none.tau().abs() < 1e-12 && none.tokens_per_cycle().abs() < 1e-12);
    assert!(none.decode_tokens_per_second().abs() < 1e-12);
    assert!(none.accepted_histogram().is_empty());
}

/// A target that breaks one part of its contract from its second verify pass on.
struct Broken {
    inner: TableModel,
    fault: Fault,
    n_passes: Cell<usize>,
    log: RefCell<Vec<usize>>,
}

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    PrefillNan,
    VerifyNan,
    VerifyInfinity,
    VerifyFails,
    TooFewRows,
    CacheKeepsNothing,
}

impl Broken {
    fn new(fault: Fault) -> Self {
        Self {
            inner: model(),
            fault,
            n_passes: Cell::new(0),
            log: RefCell::default(),
        }
    }
}

impl TargetModel for Broken {
    type Prompt = Vec<TokenId>;
    type Cache = TableCache;
    type Features = TableFeatures;
    type Logits = HostLogits;

    fn vocab_size(&self) -> usize {
        self.inner.vocab_size()
    }

    fn context_len(&self) -> usize {
        self.inner.context_len()
    }

    fn new_cache(&self) -> Result<TableCache, BoxError> {
        self.inner.new_cache()
    }

    fn read(
        &self,
        input: PassInput<'_, Vec<TokenId>>,
        cache: &mut TableCache,
    ) -> Result<OutputOf<Self>, BoxError> {
        let mut output = self.inner.read(input, cache)?;
        let PassInput::Tree(tree) = input else {
            if self.fault == Fault::PrefillNan {
                output.logits = HostLogits::new(vec![f32::NAN; 50], 50);
            }
            return Ok(output);
        };
        self.n_passes.set(self.n_passes.get() + 1);
        self.log.borrow_mut().push(tree.n_nodes());
        if self.n_passes.get() < 2 {
            return Ok(output);
        }
        let mut rows: Vec<f32> = (0..tree.n_nodes())
            .flat_map(|row| output.logits.row(row).to_vec())
            .collect();
        match self.fault {
            Fault::None | Fault::PrefillNan => {}
            Fault::VerifyNan => rows[50 + 7] = f32::NAN,
            Fault::VerifyInfinity => rows[0] = f32::INFINITY,
            Fault::VerifyFails => return Err("out of memory".into()),
            Fault::TooFewRows => rows.truncate(50),
            Fault::CacheKeepsNothing => cache.truncate(1),
        }
        output.logits = HostLogits::new(rows, 50);
        Ok(output)
    }

    fn gather_features(
        &self,
        features: TableFeatures,
        path: &[NodeId],
    ) -> Result<TableFeatures, BoxError> {
        self.inner.gather_features(features, path)
    }
}

#[test]
fn a_broken_target_is_a_typed_error() {
    let prompt = PROMPT.to_vec();
    let error = |fault| {
        let drafter = ContinuationDrafter::new(answer(30), 2);
        let rule = MatchPicks::greedy();
        generate(
            &Broken::new(fault),
            drafter,
            rule,
            &prompt,
            config(20, &[]),
            &mut (),
        )
        .unwrap_err()
    };
    assert!(matches!(
        error(Fault::PrefillNan),
        DecodeError::NonFiniteLogits { cycle: 0, row: 0 }
    ));
    assert!(matches!(
        error(Fault::VerifyNan),
        DecodeError::NonFiniteLogits { cycle: 2, row: 1 }
    ));
    assert!(matches!(
        error(Fault::VerifyInfinity),
        DecodeError::NonFiniteLogits { cycle: 2, row: 0 }
    ));
    let failed = error(Fault::VerifyFails);
    assert!(matches!(failed, DecodeError::Target(_)));
    assert_eq!(
        std::error::Error::source(&failed).unwrap().to_string(),
        "out of memory"
    );
    assert!(matches!(
        error(Fault::TooFewRows),
        DecodeError::LogitsRows {
            expected: 3,
            found: 1
        }
    ));
    assert!(matches!(
        error(Fault::CacheKeepsNothing),
        DecodeError::CacheLength {
            after: "verify",
            expected: 9,
            found: 1
        }
    ));
}

#[test]
fn a_failed_session_stays_failed_and_keeps_its_tokens() {
    let prompt = PROMPT.to_vec();
    let target = Broken::new(Fault::VerifyFails);
    let rule = MatchPicks::greedy();
    let mut session = Session::start(&target, NoDraft, rule, &prompt, config(20, &[])).unwrap();
    session.step(&target, &mut ()).unwrap();
    session.step(&target, &mut ()).unwrap();
    assert!(session.step(&target, &mut ()).is_err());
    assert!(matches!(
        session.step(&target, &mut ()),
        Err(DecodeError::SessionFailed)
    ));
    assert_eq!(session.tokens(), answer(2));
    assert_eq!(session.finish_reason(), None);
}

#[test]
fn nothing_is_verified_after_the_end() {
    let prompt = PROMPT.to_vec();
    let target = Broken::new(Fault::None);
    let stop = answer(7)[6];
    let drafter = ContinuationDrafter::new(answer(30), 3);
    let rule = MatchPicks::greedy();
    let generation = generate(
        &target,
        drafter,
        rule,
        &prompt,
        config(30, &[stop]),
        &mut (),
    )
    .unwrap();
    assert_eq!(generation.tokens, answer(7));
    assert_eq!(*target.log.borrow(), [4, 4]);
}

/// A drafter that returns a given tree.
struct Careless(fn(TokenId) -> Result<TokenTree, BoxError>);

impl<T: TargetModel> Drafter<T> for Careless {
    fn name(&self) -> &str {
        "careless"
    }

    fn begin(
        &mut self,
        _: &T::Prompt,
        _: T::Features,
        next: TokenId,
    ) -> Result<Proposal, BoxError> {
        Ok((self.0)(next)?.into())
    }

    fn advance(
        &mut self,
        _: &[TokenId],
        _: T::Features,
        next: TokenId,
    ) -> Result<Proposal, BoxError> {
        Ok((self.0)(next)?.into())
    }
}

/// A rule that returns an invalid path.
struct Jumping;

impl AcceptanceRule for Jumping {
    fn first(&mut self, _: &mut dyn TargetLogits, _: usize) -> Result<TokenId, LogitsError> {
        Ok(0)
    }

    fn accept(
        &mut self,
        _: &TokenTree,
        _: &mut dyn TargetLogits,
        _: usize,
    ) -> Result<Verdict, LogitsError> {
        Ok(Verdict {
            path: vec![NodeId::ROOT, NodeId::from_index(2)],
            bonus: 0,
        })
    }
}

#[test]
fn broken_prompts_drafters_and_rules_are_typed_errors() {
    let start = |prompt: Vec<TokenId>, drafter: Careless| {
        let rule = MatchPicks::greedy();
        generate(
            &model().with_context_len(8),
            drafter,
            rule,
            &prompt,
            config(20, &[]),
            &mut (),
        )
        .unwrap_err()
    };
    let fine = || Careless(|root| Ok(TokenTree::new(root)));
    assert!(matches!(start(vec![], fine()), DecodeError::EmptyPrompt));
    for prompt_tokens in [8, 9] {
        assert!(matches!(
            start(vec![0; prompt_tokens], fine()),
            DecodeError::PromptTooLong { context_len: 8, .. }
        ));
    }
    let outside = Careless(|root| {
        let mut tree = TokenTree::new(root);
        tree.push(NodeId::ROOT, 50)?;
        Ok(tree)
    });
    assert!(matches!(
        start(vec![0], outside),
        DecodeError::VocabularyMismatch {
            node: 1,
            token: 50,
            vocab_size: 50
        }
    ));
    let wrong_root = Careless(|root| Ok(TokenTree::new(root + 1)));
    assert!(matches!(
        start(vec![0], wrong_root),
        DecodeError::Tree(TreeError::WrongRoot { .. })
    ));
    let fails = Careless(|_| Err("no draft".into()));
    assert!(matches!(start(vec![0], fails), DecodeError::Draft(_)));

    let prompt = PROMPT.to_vec();
    let chain = FixedTreeDrafter::new(vec![(0, 1), (1, 2)]);
    let error = generate(&model(), chain, Jumping, &prompt, config(9, &[]), &mut ()).unwrap_err();
    assert!(matches!(error, DecodeError::InvalidVerdict));
}

#[test]
fn one_drafter_serves_many_generations() {
    let prompt = PROMPT.to_vec();
    let mut drafter = CheckingDrafter::new(ContinuationDrafter::new(answer(30), 3));
    for n_tokens in [5, 12, 30] {
        let rule = MatchPicks::greedy();
        let config = config(n_tokens, &[]);
        let boxed: Box<dyn Drafter<TableModel> + '_> = Box::new(&mut drafter);
        let generation = generate(&model(), boxed, rule, &prompt, config, &mut ()).unwrap();
        assert_eq!(generation.tokens, answer(n_tokens));
    }
}
