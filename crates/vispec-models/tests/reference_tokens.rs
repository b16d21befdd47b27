//! Every case of the reference implementation, from messages and image to tokens: the same answer
//! as with its plain decoding, and the same number of accepted tokens in each cycle.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod reference;

use std::collections::{BTreeMap, HashMap};

use reference::Case;
use vispec_core::{
    Batch, Generation, GenerationConfig, GenerationStats, MatchPicks, PositionUniforms, Sampler,
    Session, TokenId, TreeShape, generate,
};
use vispec_models::{EncodedPrompt, Engine, Method};

fn shape(case: &Case) -> TreeShape {
    let s = &case.settings;
    TreeShape::from_upstream(s.depth, s.top_k, s.total_token).unwrap()
}

fn config(case: &Case, engine: &Engine) -> GenerationConfig {
    GenerationConfig {
        max_new_tokens: case.settings.max_new_tokens,
        stop_tokens: engine.processor().eos_token_ids().iter().copied().collect(),
    }
}

fn answer(case: &Case, engine: &Engine, prompt: &EncodedPrompt, method: Method) -> Generation {
    let (drafter, config) = (
        engine.drafter(method, shape(case)).unwrap(),
        config(case, engine),
    );
    let rule = MatchPicks::new(Sampler::Greedy, PositionUniforms::new(0));
    generate(engine.target(), drafter, rule, prompt, config, &mut ()).unwrap()
}

#[test]
fn tokens_and_acceptance_are_those_of_the_reference() {
    let mut engines: HashMap<(String, String), Engine> = HashMap::new();
    let cases = Case::all();
    assert_eq!(cases.len(), 50, "cases in fixtures");
    for case in &cases {
        let name = case.name();
        let key = (case.model.clone(), case.draft.clone());
        let engine = engines.entry(key).or_insert_with(|| case.engine());
        let prompt = case.encode(engine);
        assert_eq!(
            vispec_core::Prompt::token_ids(&prompt),
            case.input_ids,
            "{name}: prompt"
        );

        let expected = &case.ar_ids[..case.ar_ids.len().min(case.settings.max_new_tokens)];
        let plain = answer(case, engine, &prompt, Method::None);
        assert_eq!(plain.tokens, expected, "{name}: plain decoding");
        let method = case.method.parse().unwrap();
        let speculative = answer(case, engine, &prompt, method);
        same_as_reference(case, &speculative.tokens, &speculative.stats);
    }
}

/// Asserts that tokens and acceptance lengths equal those of the reference.
fn same_as_reference(case: &Case, tokens: &[TokenId], stats: &GenerationStats) {
    let name = case.name();
    let expected = &case.ar_ids[..case.ar_ids.len().min(case.settings.max_new_tokens)];
    assert_eq!(tokens, expected, "{name}: speculative decoding");
    if !case.draft_sees_what_ours_sees() {
        return;
    }
    let found = stats.accepted_per_cycle();
    // The reference continues after the end of the answer, so its last cycle may accept more
    // tokens, and there may be one more cycle.
    let common = found.len().min(case.acceptance_len.len()) - 1;
    assert_eq!(
        found[..common],
        case.acceptance_len[..common],
        "{name}: acceptance"
    );
    assert!(
        found.len().abs_diff(case.acceptance_len.len()) <= 1,
        "{name}: cycles"
    );
}

/// The same cases, five at a time in shared passes, with prompts read in parts.
#[test]
fn tokens_and_acceptance_are_the_same_in_batches() {
    let mut groups: BTreeMap<(String, String), Vec<Case>> = BTreeMap::new();
    for case in Case::all() {
        let key = (case.model.clone(), case.draft.clone());
        groups.entry(key).or_default().push(case);
    }
    let mut largest = 0;
    for cases in groups.values() {
        let engine = cases[0].engine();
        for cases in cases.chunks(5) {
            let mut batch = Batch::default();
            let mut ids = BTreeMap::new();
            for case in cases {
                let prompt = case.encode(&engine);
                let method = case.method.parse().unwrap();
                let drafter = engine.drafter(method, shape(case)).unwrap();
                let rule = MatchPicks::new(Sampler::Greedy, PositionUniforms::new(0));
                let config = config(case, &engine);
                let session = Session::start(engine.target(), drafter, rule, prompt, config);
                ids.insert(batch.add(session.unwrap(), ()), case);
            }
            while !batch.is_empty() {
                let pass = batch.pass(engine.target(), 53);
                largest = largest.max(pass.rows.sequences);
                for ended in pass.ended {
                    ended.outcome.unwrap();
                    let session = ended.session;
                    same_as_reference(ids[&ended.id], session.tokens(), session.stats());
                }
            }
        }
    }
    assert_eq!(largest, 5, "sequences in a pass");
}
