//! Constraints on the tokens of an answer, such as a grammar.

use std::fmt;

use crate::{BoxError, NodeId, TokenId, TokenTree};

/// Maximum number of forced tokens that a cycle adds to a tree. Each is a row of the pass, which
/// costs less than the pass it saves.
const MAX_FORCED: usize = 32;

/// Determines which tokens may come next, as the parser of a grammar does.
///
/// The result depends only on the tokens so far, not on how they were produced, so plain and
/// speculative decoding are constrained alike.
pub trait Constraint: fmt::Debug {
    /// Sets the logits, `[vocab]`, of tokens that are not allowed next to negative infinity.
    ///
    /// Changes nothing after a token that ends the sequence.
    ///
    /// # Errors
    /// If the allowed tokens cannot be determined, for instance because the grammar needs too much
    /// work.
    fn mask(&mut self, logits: &mut [f32]) -> Result<(), BoxError>;

    /// Returns `true` if `token` may come next. No token may follow one that ends the sequence.
    ///
    /// # Errors
    /// Same as [`mask`](Self::mask).
    fn allows(&mut self, token: TokenId) -> Result<bool, BoxError>;

    /// Returns the tokens that must come next, in order, as far as known. A wrong guess is
    /// harmless, because every token is verified.
    ///
    /// # Errors
    /// Same as [`mask`](Self::mask).
    fn forced(&mut self) -> Result<Vec<TokenId>, BoxError>;

    /// Appends `token`, which must be allowed next.
    ///
    /// # Errors
    /// If `token` is not allowed next; otherwise the same as [`mask`](Self::mask).
    fn advance(&mut self, token: TokenId) -> Result<(), BoxError>;

    /// Removes the last token.
    ///
    /// # Errors
    /// If there is no token.
    fn retreat(&mut self) -> Result<(), BoxError>;
}

/// Treatment of tokens that a [`Constraint`] forces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ForcedTokens {
    /// Forced tokens are added to the trees to be verified, and tokens that are not allowed are
    /// dropped.
    Drafted,
    /// Forced tokens are decoded like all others, and trees stay as drafted; with
    /// [`NoDraft`](crate::NoDraft) this is plain decoding.
    Decoded,
}

/// Returns the allowed part of `tree`, with the forced tokens appended below its most likely leaf.
/// The constraint has already advanced past the root.
pub(super) fn shape(
    constraint: &mut dyn Constraint,
    tree: &TokenTree,
) -> Result<TokenTree, BoxError> {
    let mut walk = Walk {
        constraint,
        tree,
        shaped: TokenTree::with_capacity(tree.token(NodeId::ROOT), tree.n_nodes()),
        steps: Vec::new(),
    };
    walk.expand(NodeId::ROOT, NodeId::ROOT, Rank::Best)?;
    while let Some(step) = walk.steps.pop() {
        match step {
            Step::Down { node, parent, rank } => walk.down(node, parent, rank)?,
            Step::Up => walk.constraint.retreat()?,
        }
    }
    Ok(walk.shaped)
}

/// Whether a node is on the path of the draft's best guess at each step.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rank {
    Best,
    Other,
}

/// A pending step; a tree may be too deep for recursion.
enum Step {
    /// Descends to a node of the drafter's tree; `parent` is its parent in the shaped tree.
    Down {
        node: NodeId,
        parent: NodeId,
        rank: Rank,
    },
    Up,
}

struct Walk<'a> {
    constraint: &'a mut dyn Constraint,
    tree: &'a TokenTree,
    shaped: TokenTree,
    steps: Vec<Step>,
}

impl Walk<'_> {
    fn down(&mut self, node: NodeId, parent: NodeId, rank: Rank) -> Result<(), BoxError> {
        let token = self.tree.token(node);
        let place = match self.tree.log_prob(node) {
            Some(log_prob) => self.shaped.push_scored(parent, token, log_prob)?,
            None => self.shaped.push(parent, token)?,
        };
        self.constraint.advance(token)?;
        self.steps.push(Step::Up);
        self.expand(node, place, rank)
    }

    /// Schedules the allowed children of `node`, which is `place` in the shaped tree and the last
    /// token taken by the constraint.
    fn expand(&mut self, node: NodeId, place: NodeId, rank: Rank) -> Result<(), BoxError> {
        let mut children = Vec::new();
        for child in self.tree.children(node) {
            if self.constraint.allows(self.tree.token(child))? {
                children.push(child);
            }
        }
        let chance = |child: NodeId| self.tree.log_prob(child).unwrap_or(f32::NEG_INFINITY);
        // Keeps the first among equals, since drafters list better children first.
        let better = |best: NodeId, child: NodeId| {
            if chance(child) > chance(best) {
                child
            } else {
                best
            }
        };
        let Some(best) = children.iter().copied().reduce(better) else {
            return match rank {
                Rank::Best => self.force(place),
                Rank::Other => Ok(()),
            };
        };
        for node in children.into_iter().rev() {
            let rank = if node == best { rank } else { Rank::Other };
            let parent = place;
            self.steps.push(Step::Down { node, parent, rank });
        }
        Ok(())
    }

    /// Adds the forced tokens below `place`.
    fn force(&mut self, mut place: NodeId) -> Result<(), BoxError> {
        for token in self.constraint.forced()?.into_iter().take(MAX_FORCED) {
            place = self.shaped.push(place, token)?;
        }
        Ok(())
    }
}
