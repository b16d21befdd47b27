//! Acceptance: which draft tokens are kept, and which token follows them.

mod adjusted;
mod constraint;
mod rejection;

pub use adjusted::{AdjustedPicks, PickLog, PickedLogProbs};
pub use constraint::{Constraint, ForcedTokens};
pub use rejection::{Chance, RecursiveRejection};

use crate::{
    BoxError, KnownPicks, LogitsError, NodeId, PositionUniforms, Sampler, TargetLogits, TokenId,
    TokenTree,
};

/// The accepted path of a verified tree and its bonus token.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Verdict {
    /// Accepted nodes, the root first.
    pub path: Vec<NodeId>,
    /// The target's own token after the path; the root of the next tree.
    pub bonus: TokenId,
}

/// Decides which part of a verified tree to keep.
///
/// A rule is lossless if its tokens have the distribution of plain decoding with the same sampler.
pub trait AcceptanceRule {
    /// Returns how tokens will be sampled, if that is known before the logits and does not depend
    /// on the draft. Drafters receive this information.
    fn known_picks(&self) -> Option<KnownPicks> {
        None
    }

    /// Picks the first token of the answer from the single row of logits of the prefill.
    ///
    /// `position` is the absolute position of the token to be chosen: the prompt's length.
    ///
    /// # Errors
    /// Any error of the logits.
    fn first(
        &mut self,
        logits: &mut dyn TargetLogits,
        position: usize,
    ) -> Result<TokenId, LogitsError>;

    /// Returns the verdict on `tree`; row `i` of `logits` belongs to node `i`.
    ///
    /// `position` is the absolute position of the root.
    ///
    /// # Errors
    /// Any error of the logits.
    fn accept(
        &mut self,
        tree: &TokenTree,
        logits: &mut dyn TargetLogits,
        position: usize,
    ) -> Result<Verdict, LogitsError>;

    /// Returns the tree to verify in place of the drafter's. A rule may drop tokens that cannot
    /// come next and add tokens that must; the picked tokens stay the same.
    ///
    /// # Errors
    /// Any error of the rule.
    fn shape(&mut self, tree: TokenTree) -> Result<TokenTree, BoxError> {
        Ok(tree)
    }
}

/// Implements the trait for pointers to rules.
macro_rules! forward_rule {
    ($($pointer:ty),*) => {$(
        impl<A: AcceptanceRule + ?Sized> AcceptanceRule for $pointer {
            fn known_picks(&self) -> Option<KnownPicks> {
                (**self).known_picks()
            }

            fn first(
                &mut self,
                logits: &mut dyn TargetLogits,
                position: usize,
            ) -> Result<TokenId, LogitsError> {
                (**self).first(logits, position)
            }

            fn accept(
                &mut self,
                tree: &TokenTree,
                logits: &mut dyn TargetLogits,
                position: usize,
            ) -> Result<Verdict, LogitsError> {
                (**self).accept(tree, logits, position)
            }

            fn shape(&mut self, tree: TokenTree) -> Result<TokenTree, BoxError> {
                (**self).shape(tree)
            }
        }
    )*};
}

forward_rule!(&mut A, Box<A>);

/// The default rule, for greedy and sampled decoding: pick the target's token at the root; while
/// the pick is a child of the node, move to that child and pick again.
///
/// The random number of a pick is a function of the seed and of the token's position, so the output
/// equals that of plain decoding with the same seed, token by token.
#[derive(Clone, Debug)]
pub struct MatchPicks {
    sampler: Sampler,
    uniforms: PositionUniforms,
}

impl MatchPicks {
    /// Creates the rule for `sampler` with the random numbers of `uniforms`.
    #[must_use]
    pub fn new(sampler: Sampler, uniforms: PositionUniforms) -> Self {
        Self { sampler, uniforms }
    }

    /// Creates the rule that always picks the most probable token.
    #[must_use]
    pub fn greedy() -> Self {
        Self::new(Sampler::Greedy, PositionUniforms::new(0))
    }
}

impl AcceptanceRule for MatchPicks {
    fn known_picks(&self) -> Option<KnownPicks> {
        KnownPicks::new(self.sampler, self.uniforms)
    }

    fn first(
        &mut self,
        logits: &mut dyn TargetLogits,
        position: usize,
    ) -> Result<TokenId, LogitsError> {
        logits.pick(0, &self.sampler, self.uniforms.at(position))
    }

    fn accept(
        &mut self,
        tree: &TokenTree,
        logits: &mut dyn TargetLogits,
        position: usize,
    ) -> Result<Verdict, LogitsError> {
        descend(tree, position, |row, position| {
            logits.pick(row, &self.sampler, self.uniforms.at(position))
        })
    }
}

/// Walks down `tree`, whose root is at `position`, while the picked token is among the children.
/// `pick` receives a row of logits and the position of the token to pick.
fn descend(
    tree: &TokenTree,
    position: usize,
    mut pick: impl FnMut(usize, usize) -> Result<TokenId, LogitsError>,
) -> Result<Verdict, LogitsError> {
    let mut path = vec![NodeId::ROOT];
    let mut node = NodeId::ROOT;
    loop {
        // The path includes the root, so its length is the distance of the pick from the root.
        let pick = pick(node.index(), position + path.len())?;
        match tree.child_with(node, pick) {
            Some(child) => {
                path.push(child);
                node = child;
            }
            None => return Ok(Verdict { path, bonus: pick }),
        }
    }
}
