//! Drafts of prompt lookup.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use vispec_core::testing::{RetrieveIndices, TableFeatures, TableModel};
use vispec_core::{
    ConfigError, Drafter, GenerationConfig, MatchPicks, NodeId, PromptLookupConfig,
    PromptLookupDrafter, TokenId, TokenTree, generate,
};

fn draft(config: PromptLookupConfig, prompt: &[TokenId], next: TokenId) -> TokenTree {
    let mut drafter = PromptLookupDrafter::new(config).unwrap();
    let drafter: &mut dyn Drafter<TableModel> = &mut drafter;
    let first = drafter.begin(&prompt.to_vec(), TableFeatures::default(), next);
    first.unwrap().finish(drafter).unwrap()
}

fn config(max_tokens: usize, max_branches: usize) -> PromptLookupConfig {
    PromptLookupConfig {
        max_ngram: 3,
        min_ngram: 1,
        max_tokens,
        max_branches,
    }
}

/// Returns the token sequences of the tree's leaves.
fn branches(tree: &TokenTree) -> Vec<Vec<TokenId>> {
    let retrieve = RetrieveIndices::of(tree);
    (0..retrieve.n_leaves())
        .map(|leaf| {
            retrieve
                .path(leaf)
                .skip(1)
                .map(|node| tree.token(node))
                .collect()
        })
        .collect()
}

#[test]
fn a_single_match_is_a_chain() {
    let tree = draft(config(3, 2), &[1, 2, 3, 4, 5, 6, 7, 1], 2);
    assert_eq!(branches(&tree), [[3, 4, 5]]);
    assert_eq!(tree.token(NodeId::ROOT), 2);
}

#[test]
fn no_match_is_no_draft() {
    assert_eq!(draft(config(5, 2), &[1, 2, 3], 9).n_nodes(), 1);
    assert_eq!(draft(config(0, 2), &[1, 2, 1], 2).n_nodes(), 1);
    let long = PromptLookupConfig {
        min_ngram: 3,
        ..config(5, 2)
    };
    assert_eq!(draft(long, &[1, 2, 3, 9], 2).n_nodes(), 1);
}

#[test]
fn longer_matches_come_first_and_branches_share_tokens() {
    // 1 2 is followed by 7 8; 2 alone was last followed by 7 9.
    let prompt = [1, 2, 7, 8, 5, 2, 7, 9, 5, 1];
    let tree = draft(config(6, 2), &prompt, 2);
    assert_eq!(tree.tokens(), [2, 7, 8, 9, 5, 5, 2]);
    assert_eq!(branches(&tree), [vec![7, 9, 5], vec![7, 8, 5, 2]]);
    let single = draft(config(6, 1), &prompt, 2);
    assert_eq!(branches(&single), [[7, 8, 5, 2, 7, 9]]);
}

#[test]
fn the_answer_is_searched_too() {
    // The target counts to 9 and starts again; lookup finds the cycle in the answer.
    let model = TableModel::from_fn(10, |context| {
        let next = (context.last().unwrap() + 1) % 10;
        (0..10)
            .map(|token| if token == next { 5.0 } else { 0.0 })
            .collect()
    });
    let prompt = vec![3];
    let limits = GenerationConfig {
        max_new_tokens: 60,
        stop_tokens: Vec::new(),
    };
    let drafter = PromptLookupDrafter::default();
    let generation = generate(
        &model,
        drafter,
        MatchPicks::greedy(),
        &prompt,
        limits,
        &mut (),
    )
    .unwrap();
    let expected: Vec<TokenId> = (4..64).map(|count| count % 10).collect();
    assert_eq!(generation.tokens, expected);
    assert!(generation.stats.tau() > 2.0, "{}", generation.stats.tau());
}

#[test]
fn settings_are_checked() {
    let error = |config| PromptLookupDrafter::new(config).unwrap_err();
    assert_eq!(
        error(PromptLookupConfig {
            min_ngram: 0,
            ..config(5, 1)
        }),
        ConfigError::NgramRange { min: 0, max: 3 }
    );
    assert_eq!(
        error(PromptLookupConfig {
            min_ngram: 4,
            ..config(5, 1)
        }),
        ConfigError::NgramRange { min: 4, max: 3 }
    );
    assert_eq!(error(config(5, 0)), ConfigError::NoBranch);
}
