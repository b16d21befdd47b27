//! A generation that starts from the cache of an earlier one emits the same tokens.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use proptest::prelude::*;
use vispec_core::testing::{ContinuationDrafter, TableModel};
use vispec_core::{
    GenerationConfig, KvCache as _, MatchPicks, PositionUniforms, Sampler, TargetModel as _,
    TokenId, generate, generate_in,
};

fn config(max_new_tokens: usize) -> GenerationConfig {
    GenerationConfig {
        max_new_tokens,
        stop_tokens: vec![],
    }
}

fn rule(seed: u64) -> MatchPicks {
    let sampler = Sampler::new(1.0, None, None).unwrap();
    MatchPicks::new(sampler, PositionUniforms::new(seed))
}

proptest! {
    /// The second turn repeats the first one up to an arbitrary point and then differs.
    #[test]
    fn a_second_turn_equals_a_fresh_start(
        first in prop::collection::vec(0..20_u32, 1..12),
        second in prop::collection::vec(0..20_u32, 1..8),
        (n_tokens, n_draft, shared, seed) in (1..20_usize, 0..5_usize, 0..40_usize, 0..50_u64),
    ) {
        let model = TableModel::random(20, 2, 3);
        let drafted = model.decode_plainly(
            &first, 30, &Sampler::new(1.0, None, None).unwrap(), PositionUniforms::new(seed),
        );
        let drafter = ContinuationDrafter::new(drafted, n_draft);
        let cache = model.new_cache().unwrap();
        let (answer, mut cache) =
            generate_in(&model, drafter, rule(seed), (&first, cache), config(n_tokens), &mut ())
                .unwrap();
        prop_assert_eq!(answer.stats.reused_prompt_tokens(), 0);
        // Only the last emitted token may be missing from the cache.
        let said: Vec<TokenId> = first.iter().chain(&answer.tokens).copied().collect();
        prop_assert!(cache.len() + 1 == said.len() || cache.len() == said.len());

        let shared = shared.min(cache.len());
        cache.truncate(shared);
        let mut prompt = said[..shared].to_vec();
        prompt.extend(&second);
        let fresh = generate(
            &model, vispec_core::NoDraft, rule(seed), &prompt, config(10), &mut (),
        )
        .unwrap();
        let (resumed, _) = generate_in(
            &model, vispec_core::NoDraft, rule(seed), (&prompt, cache), config(10), &mut (),
        )
        .unwrap();
        prop_assert_eq!(resumed.tokens, fresh.tokens);
        prop_assert_eq!(resumed.stats.reused_prompt_tokens(), shared);
    }
}

/// The last token is read even if the cache holds it, because its logits are needed.
#[test]
fn the_last_token_of_a_prompt_is_always_read() {
    let model = TableModel::random(20, 2, 3);
    let prompt = vec![1, 2, 3];
    let cache = model.new_cache().unwrap();
    let beginning = (&prompt, cache);
    let (once, mut cache) = generate_in(
        &model,
        vispec_core::NoDraft,
        rule(1),
        beginning,
        config(5),
        &mut (),
    )
    .unwrap();
    cache.truncate(3);
    let beginning = (&prompt, cache);
    let (again, _) = generate_in(
        &model,
        vispec_core::NoDraft,
        rule(1),
        beginning,
        config(5),
        &mut (),
    )
    .unwrap();
    assert_eq!(again.tokens, once.tokens);
    assert_eq!(again.stats.reused_prompt_tokens(), 2);
}
