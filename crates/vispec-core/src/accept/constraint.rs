//! What an answer may say, where a grammar has a say in it.

use std::fmt;

use crate::{BoxError, NodeId, TokenId, TokenTree};

/// Most tokens that a cycle adds to a tree because they must come. Each is a row of the pass, which
/// costs less than the pass that it saves.
const MAX_FORCED: usize = 32;

/// Tells which tokens may follow what was said, as the parser of a grammar does.
///
/// What it tells is a function of the tokens said so far, however they came to be said; so plain
/// and speculative decoding are constrained alike.
pub trait Constraint: fmt::Debug {
    /// Sets the logits, `[vocab]`, of tokens that may not come next to negative infinity.
    ///
    /// Changes nothing behind a token that ends the sequence.
    ///
    /// # Errors
    /// If there is no telling, for instance because the grammar needs too much work.
    fn mask(&mut self, logits: &mut [f32]) -> Result<(), BoxError>;

    /// Whether `token` may come next; no token may behind one that ends the sequence.
    ///
    /// # Errors
    /// As [`mask`](Self::mask).
    fn allows(&mut self, token: TokenId) -> Result<bool, BoxError>;

    /// Tokens that must come next, one after the other, as far as that is known; a guess is
    /// harmless, because every token is verified.
    ///
    /// # Errors
    /// As [`mask`](Self::mask).
    fn forced(&mut self) -> Result<Vec<TokenId>, BoxError>;

    /// Takes `token`, which may come next, as said.
    ///
    /// # Errors
    /// If it may not come next, and as [`mask`](Self::mask).
    fn advance(&mut self, token: TokenId) -> Result<(), BoxError>;

    /// Takes back the token said last.
    ///
    /// # Errors
    /// If there is none.
    fn retreat(&mut self) -> Result<(), BoxError>;
}

/// What becomes of tokens that a [`Constraint`] leaves no choice about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ForcedTokens {
    /// They are added to the trees that are verified, from which what may not come is dropped.
    Drafted,
    /// They are decoded like all others, and trees stay as they were drafted; so this is plain
    /// decoding with [`NoDraft`](crate::NoDraft).
    Decoded,
}

/// The part of `tree` that may be said, and below the most likely leaf of it what must be said
/// then. The constraint has taken the root as said.
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

/// Whether a node is on the path that takes the draft's best guess at each step.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rank {
    Best,
    Other,
}

/// What is left to do; a tree may be too deep for recursion.
enum Step {
    /// To a node of the drafter's tree, whose parent is there in the shaped one.
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

    /// Plans what is allowed below `node`, which is `place` in the shaped tree and was said last.
    fn expand(&mut self, node: NodeId, place: NodeId, rank: Rank) -> Result<(), BoxError> {
        let mut children = Vec::new();
        for child in self.tree.children(node) {
            if self.constraint.allows(self.tree.token(child))? {
                children.push(child);
            }
        }
        let chance = |child: NodeId| self.tree.log_prob(child).unwrap_or(f32::NEG_INFINITY);
        // The first of equals, as drafters list better ones first.
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

    /// Adds what must be said below `place`.
    fn force(&mut self, mut place: NodeId) -> Result<(), BoxError> {
        for token in self.constraint.forced()?.into_iter().take(MAX_FORCED) {
            place = self.shaped.push(place, token)?;
        }
        Ok(())
    }
}
