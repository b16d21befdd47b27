//! Acceptance: which draft tokens stay, and which token comes after them.

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

/// What to keep of a verified tree.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Verdict {
    /// Accepted nodes, the root first.
    pub path: Vec<NodeId>,
    /// The target's own token after the path; root of the next tree.
    pub bonus: TokenId,
}

/// Decides what to keep of a verified tree.
///
/// A rule is lossless if the tokens it emits have the law of plain decoding with the same sampler.
pub trait AcceptanceRule {
    /// How tokens will be drawn, if that is known before there are logits and holds whatever is
    /// drafted; drafters are told.
    fn known_picks(&self) -> Option<KnownPicks> {
        None
    }

    /// The first token of the answer, from the one row of logits that the prefill gives.
    ///
    /// `position` is the absolute position of the token being chosen: the prompt's length.
    ///
    /// # Errors
    /// Errors of the logits.
    fn first(
        &mut self,
        logits: &mut dyn TargetLogits,
        position: usize,
    ) -> Result<TokenId, LogitsError>;

    /// The verdict on `tree`, whose node `i` has row `i` of `logits`.
    ///
    /// `position` is the absolute position of the root.
    ///
    /// # Errors
    /// Errors of the logits.
    fn accept(
        &mut self,
        tree: &TokenTree,
        logits: &mut dyn TargetLogits,
        position: usize,
    ) -> Result<Verdict, LogitsError>;

    /// The tree that is verified in place of the drafter's. Rules that know that a token cannot
    /// come drop it, those that know what must come add it; the tokens picked are the same.
    ///
    /// # Errors
    /// Any error of the rule.
    fn shape(&mut self, tree: TokenTree) -> Result<TokenTree, BoxError> {
        Ok(tree)
    }
}

/// Rules behind pointers are rules.
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

/// The default rule, greedy and sampled alike: pick the target's token at the root, and as long as
/// the pick is a child, move there and pick again.
///
/// The number that drives a pick is a function of the seed and of the position of the token
/// picked, so the output equals that of plain decoding with the same seed, token by token.
#[derive(Clone, Debug)]
pub struct MatchPicks {
    sampler: Sampler,
    uniforms: PositionUniforms,
}

impl MatchPicks {
    /// The rule for `sampler`, driven by `uniforms`.
    #[must_use]
    pub fn new(sampler: Sampler, uniforms: PositionUniforms) -> Self {
        Self { sampler, uniforms }
    }

    /// The rule that always takes the most probable token.
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

/// Walks down `tree`, whose root is at `position`, as long as what `pick` gives for a row of logits
/// and the position of the token to be picked is among the children.
fn descend(
    tree: &TokenTree,
    position: usize,
    mut pick: impl FnMut(usize, usize) -> Result<TokenId, LogitsError>,
) -> Result<Verdict, LogitsError> {
    let mut path = vec![NodeId::ROOT];
    let mut node = NodeId::ROOT;
    loop {
        // The path holds the root, so its length is how far behind the root the pick sits.
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
