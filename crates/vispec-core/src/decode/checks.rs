//! Checks of the results of plug-ins.

use crate::{DecodeError, KvCache, NodeId, TargetLogits, TokenId, TokenTree, TreeError, Verdict};

pub(super) fn check_cache(
    cache: &impl KvCache,
    after: &'static str,
    expected: usize,
) -> Result<(), DecodeError> {
    let found = cache.len();
    if found == expected {
        return Ok(());
    }
    Err(DecodeError::CacheLength {
        after,
        expected,
        found,
    })
}

pub(super) fn check_rows(logits: &impl TargetLogits, expected: usize) -> Result<(), DecodeError> {
    let found = logits.n_rows();
    if found == expected {
        return Ok(());
    }
    Err(DecodeError::LogitsRows { expected, found })
}

pub(super) fn check_tree(
    tree: &TokenTree,
    root: TokenId,
    vocab_size: usize,
) -> Result<(), DecodeError> {
    let found = tree.token(NodeId::ROOT);
    if found != root {
        return Err(TreeError::WrongRoot {
            expected: root,
            found,
        }
        .into());
    }
    let outside = |&(_, &token): &(usize, &TokenId)| token as usize >= vocab_size;
    match tree.tokens().iter().enumerate().skip(1).find(outside) {
        Some((node, &token)) => Err(DecodeError::VocabularyMismatch {
            node,
            token,
            vocab_size,
        }),
        None => Ok(()),
    }
}

pub(super) fn check_verdict(tree: &TokenTree, verdict: &Verdict) -> Result<(), DecodeError> {
    let path = &verdict.path;
    let in_tree = path.iter().all(|node| node.index() < tree.n_nodes());
    let starts_at_root = path.first() == Some(&NodeId::ROOT);
    let is_path = || {
        path.windows(2)
            .all(|pair| tree.parent(pair[1]) == Some(pair[0]))
    };
    if in_tree && starts_at_root && is_path() {
        Ok(())
    } else {
        Err(DecodeError::InvalidVerdict)
    }
}
