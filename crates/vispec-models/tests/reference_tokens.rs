//! Every case of the reference implementation, from messages and image to tokens: the same answer
//! as its plain decoding, and the same number of accepted tokens in each cycle.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod reference;

use std::collections::HashMap;

use reference::Case;
use vispec_core::{
    Generation, GenerationConfig, MatchPicks, PositionUniforms, Sampler, TreeShape, generate,
};
use vispec_models::{EncodedPrompt, Engine, Method};

fn answer(case: &Case, engine: &Engine, prompt: &EncodedPrompt, method: Method) -> Generation {
    let s = &case.settings;
    let shape = TreeShape::from_upstream(s.depth, s.top_k, s.total_token).unwrap();
    let config = GenerationConfig {
        max_new_tokens: s.max_new_tokens,
        stop_tokens: engine.processor().eos_token_ids().iter().copied().collect(),
    };
    let drafter = engine.drafter(method, shape).unwrap();
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
        assert_eq!(speculative.tokens, expected, "{name}: speculative decoding");

        if case.draft_sees_what_ours_sees() {
            let found = speculative.stats.accepted_per_cycle();
            // The reference goes on after the end of the answer, so its last cycle may accept more,
            // and there may be one more.
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
    }
}
