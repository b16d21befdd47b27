//! Passes of a draft that several sequences share: the results of each sequence are bitwise equal
//! to those of separate passes.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod reference;

use std::path::Path;

use burn::tensor::Tensor;
use reference::{Numbers, VISPEC, fixtures, floats, image_of, load, shared::Bits};
use vispec_core::{
    Ask, Beam, BoxError, DraftModel, DraftPass, DraftStep, Expansion, KnownPicks, PositionUniforms,
    Prompt, Sampler, TargetModel, TokenId,
};
use vispec_models::draft::{MedusaSession, NeuralDraft, NeuralDraftSession};
use vispec_models::{Draft, DraftKind, DraftVocab, DtypeChoice, EncodedPrompt, Engine, VlmTarget};
use vispec_processor::Messages;

/// The steps of a sequence's draft, cycle by cycle.
struct Script {
    prompt: EncodedPrompt,
    features: Tensor<2>,
    first: TokenId,
    ask: Ask,
    /// The steps that are postponed.
    postpones: Postpones,
    cycles: Vec<Cycle>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Postpones {
    Nothing,
    Prompt,
    FirstCommit,
}

struct Cycle {
    accepted: Vec<TokenId>,
    features: Tensor<2>,
    next: TokenId,
    beams: Vec<Beam>,
}

/// A pass of a sequence.
#[derive(Clone, Copy)]
enum At {
    Commit(usize),
    Expand(usize, usize),
}

/// Result of a pass.
type Given = (Vec<TokenId>, Bits, Bits);

fn prompt(engine: &Engine, model: &str, images: usize, question: &str) -> EncodedPrompt {
    let messages = Messages::from_prompt(None, question, images);
    let image = image_of(&format!("{model}/img-short"));
    engine.encode(&messages, &vec![image; images]).unwrap().0
}

fn token(target: &VlmTarget, numbers: &mut Numbers) -> TokenId {
    TokenId::try_from(numbers.below(target.vocab_size())).unwrap()
}

/// Creates the beams of a tree whose levels have the given widths.
fn beams(target: &VlmTarget, widths: &[usize], numbers: &mut Numbers) -> Vec<Beam> {
    let mut beams: Vec<Beam> = Vec::new();
    let mut n_rows = 0;
    for (level, &width) in widths.iter().enumerate() {
        let mut beam = Beam {
            level,
            ..Beam::default()
        };
        for _ in 0..width {
            let parents = beams.last().map_or(1, |parent| parent.tokens.len());
            let parent = numbers.below(parents);
            let path = beams
                .last()
                .map_or(Vec::new(), |last| last.paths[parent].clone());
            beam.tokens.push(token(target, numbers));
            beam.parent_rows.push(parent);
            beam.paths.push([path, vec![n_rows]].concat());
            n_rows += 1;
        }
        beams.push(beam);
    }
    beams
}

impl Script {
    fn new(
        target: &VlmTarget,
        prompt: EncodedPrompt,
        postpones: Postpones,
        numbers: &mut Numbers,
    ) -> Self {
        let mut cache = target.new_cache().unwrap();
        let features = target.prefill(&prompt, &mut cache).unwrap().features;
        let n_known = prompt.token_ids().len();
        let cycles = (0..4).map(|_| {
            let n_accepted = numbers.below(4);
            // Any hidden states will do.
            let from = numbers.below(n_known - n_accepted);
            let widths: Vec<usize> = (0..numbers.below(4))
                .map(|_| 1 + numbers.below(8))
                .collect();
            Cycle {
                accepted: (0..n_accepted).map(|_| token(target, numbers)).collect(),
                features: features.clone().narrow(0, from, n_accepted + 1),
                next: token(target, numbers),
                beams: beams(target, &widths, numbers),
            }
        });
        let cycles = cycles.collect();
        let seed = numbers.below(100) as u64;
        let sampler = Sampler::new(numbers.below(2) as f32, None, None).unwrap();
        let picks = KnownPicks::new(sampler, PositionUniforms::new(seed));
        Self {
            first: token(target, numbers),
            ask: Ask::best(1 + numbers.below(9)).drawn(picks, 40),
            postpones,
            prompt,
            features,
            cycles,
        }
    }

    /// Returns the tokens of the prompt and the answer.
    fn known(&self) -> Vec<TokenId> {
        let answer = self.cycles.iter().flat_map(|cycle| {
            let accepted = cycle.accepted.iter().copied();
            accepted.chain([cycle.next])
        });
        let prompt = self.prompt.token_ids().iter().copied();
        prompt.chain([self.first]).chain(answer).collect()
    }

    fn passes(&self) -> Vec<At> {
        let mut passes = Vec::new();
        let skipped = usize::from(self.postpones == Postpones::FirstCommit);
        for (cycle, found) in self.cycles.iter().enumerate().skip(skipped) {
            passes.push(At::Commit(cycle));
            passes.extend((0..found.beams.len()).map(|beam| At::Expand(cycle, beam)));
        }
        passes
    }

    /// Runs the steps before the first shared pass.
    fn begin<M: DraftModel<VlmTarget>>(&self, model: &mut M) -> Option<Expansion<M::Hidden>> {
        let features = self.features.clone();
        if self.postpones == Postpones::Prompt {
            model
                .postpone_prompt(&self.prompt, features, self.first)
                .unwrap();
            return None;
        }
        let begun = model.begin(&self.prompt, features, self.first, self.ask);
        if self.postpones == Postpones::FirstCommit {
            let cycle = &self.cycles[0];
            let features = cycle.features.clone();
            model
                .postpone(&cycle.accepted, features, cycle.next)
                .unwrap();
        }
        Some(begun.unwrap())
    }

    fn step<'a, H>(&'a self, at: At, parents: Option<&'a H>) -> DraftStep<'a, Tensor<2>, H> {
        match at {
            At::Commit(cycle) => {
                let cycle = &self.cycles[cycle];
                DraftStep::Commit {
                    accepted: &cycle.accepted,
                    features: cycle.features.clone(),
                    next: cycle.next,
                }
            }
            At::Expand(cycle, beam) => DraftStep::Expand {
                beam: &self.cycles[cycle].beams[beam],
                parents: parents.unwrap(),
            },
        }
    }
}

/// Hidden rows that can be compared.
trait Rows {
    fn bits(&self) -> Bits;
}

impl Rows for Tensor<2> {
    fn bits(&self) -> Bits {
        Bits::of(&floats(self))
    }
}

impl Rows for () {
    fn bits(&self) -> Bits {
        Bits::of(&[])
    }
}

fn given<H: Rows>(expansion: &Expansion<H>) -> Given {
    let top = &expansion.top;
    assert_eq!(top.tokens.len(), top.log_probs.len());
    let log_probs = Bits::of(&top.log_probs);
    (top.tokens.clone(), log_probs, expansion.hidden.bits())
}

/// Runs one pass after the other, through the methods for a single sequence.
fn alone<M: DraftModel<VlmTarget, Hidden: Rows>>(script: &Script, mut model: M) -> Vec<Given> {
    let mut last = script.begin(&mut model).map(|begun| begun.hidden);
    let mut found = Vec::new();
    for at in script.passes() {
        let expansion = match script.step(at, last.as_ref()) {
            DraftStep::Commit {
                accepted,
                features,
                next,
            } => model.commit(accepted, features, next, script.ask),
            DraftStep::Expand { beam, parents } => model.expand(beam, parents, script.ask),
        };
        let expansion = expansion.unwrap();
        found.push(given(&expansion));
        last = Some(expansion.hidden);
    }
    found
}

/// Runs all scripts to their ends, in shared passes of randomly chosen sequences.
fn together<M: DraftModel<VlmTarget, Hidden: Rows>>(
    scripts: &[Script],
    mut models: Vec<M>,
    numbers: &mut Numbers,
) -> Vec<Vec<Given>> {
    let mut last: Vec<Option<M::Hidden>> = Vec::new();
    for (script, model) in scripts.iter().zip(&mut models) {
        last.push(script.begin(model).map(|begun| begun.hidden));
    }
    let mut found: Vec<Vec<Given>> = scripts.iter().map(|_| Vec::new()).collect();
    let mut shared = 0;
    loop {
        let unfinished = |index: &usize| found[*index].len() < scripts[*index].passes().len();
        let mut chosen: Vec<usize> = (0..scripts.len()).filter(unfinished).collect();
        if chosen.is_empty() {
            break;
        }
        let all = chosen.len();
        chosen.retain(|_| all < 2 || numbers.below(4) > 0);
        shared += usize::from(chosen.len() > 1);
        let passes = models.iter_mut().enumerate();
        let passes = passes.filter(|(index, _)| chosen.contains(index));
        let passes = passes.map(|(index, model)| DraftPass {
            model,
            step: scripts[index].step(
                scripts[index].passes()[found[index].len()],
                last[index].as_ref(),
            ),
            ask: scripts[index].ask,
        });
        let expansions = M::forward(passes.collect());
        for (index, expansion) in chosen.into_iter().zip(expansions) {
            let expansion = expansion.unwrap();
            found[index].push(given(&expansion));
            last[index] = Some(expansion.hidden);
        }
    }
    assert!(shared > 3, "{shared} passes were shared");
    found
}

fn scripts(engine: &Engine, model: &str, numbers: &mut Numbers) -> Vec<Script> {
    let target = engine.target();
    let asked = [
        (1, "Describe the image briefly.", Postpones::Nothing),
        (0, "What is two plus three?", Postpones::Nothing),
        (2, "Which of these is larger?", Postpones::Prompt),
        (1, "Where is the circle?", Postpones::FirstCommit),
        (0, "Tell me a long story about squares.", Postpones::Prompt),
    ];
    asked
        .into_iter()
        .map(|(images, question, postpones)| {
            let prompt = prompt(engine, model, images, question);
            Script::new(target, prompt, postpones, numbers)
        })
        .collect()
}

fn draft(engine: &Engine, name: &str) -> Draft {
    Draft::load(&fixtures().join("drafts").join(name), engine.target()).unwrap()
}

fn neural(draft: &Draft) -> &NeuralDraft {
    match draft {
        Draft::Neural(_, draft) => draft,
        Draft::Medusa(_) => panic!("not a network"),
    }
}

#[test]
fn a_sequence_is_given_what_it_is_given_alone() {
    let mut numbers = Numbers(21);
    let eagle = [
        ("qwen-untied", "qwen-untied-eagle2"),
        ("qwen-tied", "qwen-tied-eagle3-sglang"),
        ("qwen-tied", "qwen-tied-eagle3-vllm-mrope"),
    ];
    for (model, name) in VISPEC.into_iter().chain(eagle) {
        for dtype in ["f32", "bf16", "f16", "int8", "int4"] {
            // 80 inputs are not a multiple of 32.
            if dtype.starts_with("int") && model == "llava-next" {
                continue;
            }
            let engine = load(model, Some(name), dtype.parse().unwrap());
            let scripts = scripts(&engine, model, &mut numbers);
            let whole = draft(&engine, name);
            // A draft's own head has fixed tokens.
            let own_head = whole.kind() == DraftKind::Eagle3;
            let part = if own_head {
                draft(&engine, name)
            } else {
                let vocab = DraftVocab::First(60);
                let part = whole.clone();
                part.restricted(&vocab, Path::new("."), engine.target())
                    .unwrap()
            };
            // The last two have another head, so that two kinds of passes are requested together.
            let sessions = || -> Vec<NeuralDraftSession> {
                let of = |index| if index < 3 { &whole } else { &part };
                (0..5).map(|index| neural(of(index)).session()).collect()
            };
            let alone: Vec<_> = scripts
                .iter()
                .zip(sessions())
                .map(|(script, session)| alone(script, session))
                .collect();
            for round in 0..2 {
                let found = together(&scripts, sessions(), &mut numbers);
                assert!(found == alone, "{model}, {name}, {dtype}, round {round}");
            }
            // Only tokens of the vocabulary part and tokens that have appeared are proposed.
            for (script, given) in scripts.iter().zip(&alone).skip(3) {
                if own_head {
                    continue;
                }
                let known = script.known();
                let tokens = given.iter().flat_map(|(tokens, ..)| tokens);
                assert!(
                    tokens
                        .clone()
                        .all(|token| *token < 60 || known.contains(token))
                );
                assert!(
                    tokens.clone().any(|token| *token >= 60),
                    "nothing was added"
                );
            }
        }
    }
}

#[test]
fn medusa_guesses_for_several_sequences_as_for_one() {
    let mut numbers = Numbers(22);
    for dtype in ["f32", "bf16", "int8"] {
        let engine = load("qwen-untied", None, dtype.parse().unwrap());
        let mut scripts = scripts(&engine, "qwen-untied", &mut numbers);
        let Draft::Medusa(medusa) = draft(&engine, "qwen-untied-medusa") else {
            panic!("no heads")
        };
        let levels = DraftModel::<VlmTarget>::fixed_levels(&medusa.session()).unwrap();
        for cycle in scripts.iter_mut().flat_map(|script| &mut script.cycles) {
            cycle.beams.truncate(levels - 1);
        }
        let sessions = || -> Vec<MedusaSession> { (0..5).map(|_| medusa.session()).collect() };
        let alone: Vec<_> = scripts
            .iter()
            .zip(sessions())
            .map(|(script, session)| alone(script, session))
            .collect();
        assert!(
            together(&scripts, sessions(), &mut numbers) == alone,
            "{dtype}"
        );
    }
}

/// The comparisons above can fail: changing one accepted token of one sequence changes the results
/// of that sequence, and nothing else.
#[test]
fn a_change_shows_in_its_own_sequence_and_in_no_other() {
    let engine = load("qwen-untied", None, DtypeChoice::F32);
    let whole = draft(&engine, "qwen-untied-q2");
    let run = |changed: Option<usize>| {
        let mut numbers = Numbers(23);
        let mut scripts = scripts(&engine, "qwen-untied", &mut numbers);
        if let Some(changed) = changed {
            scripts[changed].cycles[0].next ^= 1;
        }
        let sessions = (0..5).map(|_| neural(&whole).session()).collect();
        together(&scripts, sessions, &mut numbers)
    };
    let before = run(None);
    for changed in [0, 2, 3] {
        let after = run(Some(changed));
        for (index, (before, after)) in before.iter().zip(&after).enumerate() {
            assert_eq!(before != after, index == changed, "{changed}: {index}");
        }
    }
}

#[test]
fn a_broken_sequence_fails_alone() {
    let mut numbers = Numbers(24);
    let engine = load("qwen-untied", None, DtypeChoice::F32);
    let target = engine.target();
    let whole = draft(&engine, "qwen-untied-q2");
    let scripts = scripts(&engine, "qwen-untied", &mut numbers);
    let script = &scripts[0];
    let cycle = &script.cycles[0];
    let mut sessions: Vec<_> = (0..4).map(|_| neural(&whole).session()).collect();
    // The third session has not read a prompt.
    for index in [0, 1, 3] {
        script.begin(&mut sessions[index]);
    }
    let unknown = TokenId::try_from(target.vocab_size()).unwrap();
    let step = |next, features: &Tensor<2>| DraftStep::Commit {
        accepted: &cycle.accepted[..],
        features: features.clone(),
        next,
    };
    let too_few = Tensor::cat(vec![cycle.features.clone(), cycle.features.clone()], 0);
    let steps = [
        step(cycle.next, &cycle.features),
        step(unknown, &cycle.features),
        step(cycle.next, &cycle.features),
        step(cycle.next, &too_few),
    ];
    let passes = sessions
        .iter_mut()
        .zip(steps)
        .map(|(model, step)| DraftPass {
            model,
            step,
            ask: script.ask,
        });
    let results = NeuralDraftSession::forward(passes.collect());
    let message = |result: &Result<_, BoxError>| match result {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    };
    let messages: Vec<String> = results.iter().map(message).collect();
    assert!(messages[0].is_empty(), "{messages:?}");
    assert!(
        messages[1].contains("outside the vocabulary"),
        "{messages:?}"
    );
    assert!(
        messages[2].contains("has not read a prompt"),
        "{messages:?}"
    );
    assert!(messages[3].contains("hidden states"), "{messages:?}");
    let expected = alone(script, neural(&whole).session()).remove(0);
    assert!(given(results[0].as_ref().unwrap()) == expected);
    // The failed sessions continue as if the failed step had never been requested.
    for index in [1, 3] {
        let features = cycle.features.clone();
        let model = &mut sessions[index];
        let commit = model.commit(&cycle.accepted, features, cycle.next, script.ask);
        assert!(given(&commit.unwrap()) == expected, "{index}");
    }
}
