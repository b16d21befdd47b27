//! Drafters, which propose the next token tree.

mod dynamic_tree;
mod lookup;
mod model;
mod top_k;

pub use dynamic_tree::{DraftError, DynamicTreeDrafter, TreeSize};
pub use lookup::{PromptLookupConfig, PromptLookupDrafter, SuffixStore, SuffixStoreUsage};
pub use model::{Ask, Beam, DraftModel, DraftPass, DraftPassOf, DraftStep, Expansion, GrownLevel};
pub use top_k::TopK;

use crate::panics::guarded;
use crate::{BoxError, KnownPicks, PassLoad, TargetModel, TokenId, TokenTree};

/// Why a cycle verified only the root.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Idle {
    /// No more tokens may be emitted; the last token only goes through the target.
    LastToken,
    /// The drafter had nothing to propose.
    NothingProposed,
    /// No guess was likely enough to be worth the cost of verifying it.
    NotWorthwhile,
    /// Drafting has not paid recently and is paused.
    Paused,
    /// Failing guesses could exceed the permitted loss.
    TooRisky,
}

impl Idle {
    /// All reasons.
    pub const ALL: [Self; 5] = [
        Self::LastToken,
        Self::NothingProposed,
        Self::NotWorthwhile,
        Self::Paused,
        Self::TooRisky,
    ];

    /// Returns the name for reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LastToken => "last_token",
            Self::NothingProposed => "nothing_proposed",
            Self::NotWorthwhile => "not_worthwhile",
            Self::Paused => "paused",
            Self::TooRisky => "too_risky",
        }
    }
}

/// A drafter's proposal for the next tree.
#[derive(Clone, PartialEq, Debug)]
pub enum Proposal {
    /// The tree.
    Tree(TokenTree),
    /// The tree needs passes of a network, which [`Drafter::grow`] runs.
    Growing,
}

impl From<TokenTree> for Proposal {
    fn from(tree: TokenTree) -> Self {
        Self::Tree(tree)
    }
}

impl Proposal {
    /// Lets `drafter`, which made this proposal, grow the tree until it is complete.
    ///
    /// # Errors
    /// Same as [`Drafter::grow`].
    pub fn finish<T: TargetModel>(
        mut self,
        drafter: &mut (impl Drafter<T> + ?Sized),
    ) -> Result<TokenTree, BoxError> {
        loop {
            match self {
                Self::Tree(tree) => return Ok(tree),
                Self::Growing => self = drafter.grow()?,
            }
        }
    }
}

/// Proposes the tree of the next cycle.
///
/// A drafter affects the speed, never the tokens: it does not see the target's logits, and the
/// random numbers that it may see do not depend on its proposals.
pub trait Drafter<T: TargetModel> {
    /// Returns the name for reports, such as `vispec`.
    fn name(&self) -> &str;

    /// Receives how the target will pick tokens; called once, before [`begin`](Self::begin). `None`
    /// if the target picks the most probable token, or if its random numbers are not known in
    /// advance.
    fn note_picks(&mut self, picks: Option<KnownPicks>) {
        let _ = picks;
    }

    /// Receives the load of the target's next pass; called before [`begin`](Self::begin) and
    /// [`advance`](Self::advance) if the pass carries more than this sequence. Drafters that use
    /// measured costs then propose smaller trees.
    fn note_load(&mut self, load: PassLoad) {
        let _ = load;
    }

    /// Starts a generation and proposes the first tree, whose root is `next`.
    ///
    /// `features` are those of every prompt position. State from an earlier generation is dropped.
    ///
    /// # Errors
    /// Any error of the drafter.
    fn begin(
        &mut self,
        prompt: &T::Prompt,
        features: T::Features,
        next: TokenId,
    ) -> Result<Proposal, BoxError>;

    /// Reads the tokens that the last cycle kept and proposes a tree with root `next`.
    ///
    /// `accepted` are the accepted draft tokens, without the old root and without the bonus token,
    /// which is `next`. `features` are those of the old root and the accepted tokens:
    /// `[accepted.len() + 1, hidden]`.
    ///
    /// # Errors
    /// Any error of the drafter.
    fn advance(
        &mut self,
        accepted: &[TokenId],
        features: T::Features,
        next: TokenId,
    ) -> Result<Proposal, BoxError>;

    /// Grows the tree by one step. Only drafters that return [`Proposal::Growing`] implement this.
    ///
    /// # Errors
    /// Any error of the drafter.
    fn grow(&mut self) -> Result<Proposal, BoxError> {
        Err("no tree is growing".into())
    }

    /// Grows the trees of several sequences by one step; all of them must be growing. Drafters of
    /// one network share its pass. By default the drafters run in turn, and a panic fails only its
    /// own drafter.
    fn grow_together(drafters: &mut [&mut Self]) -> Vec<Result<Proposal, BoxError>>
    where
        Self: Sized,
    {
        let drafters = drafters.iter_mut();
        drafters
            .map(|drafter| guarded("drafting", || drafter.grow())?)
            .collect()
    }

    /// Returns why the last tree holds only its root; called only for such trees.
    fn idle(&self) -> Idle {
        Idle::NothingProposed
    }
}

macro_rules! forward_drafter {
    ($($pointer:ty),*) => {$(
        impl<T: TargetModel, D: Drafter<T> + ?Sized> Drafter<T> for $pointer {
            fn name(&self) -> &str {
                (**self).name()
            }

            fn note_picks(&mut self, picks: Option<KnownPicks>) {
                (**self).note_picks(picks);
            }

            fn note_load(&mut self, load: PassLoad) {
                (**self).note_load(load);
            }

            fn begin(
                &mut self,
                prompt: &T::Prompt,
                features: T::Features,
                next: TokenId,
            ) -> Result<Proposal, BoxError> {
                (**self).begin(prompt, features, next)
            }

            fn advance(
                &mut self,
                accepted: &[TokenId],
                features: T::Features,
                next: TokenId,
            ) -> Result<Proposal, BoxError> {
                (**self).advance(accepted, features, next)
            }

            fn grow(&mut self) -> Result<Proposal, BoxError> {
                (**self).grow()
            }

            fn idle(&self) -> Idle {
                (**self).idle()
            }
        }
    )*};
}

forward_drafter!(&mut D, Box<D>);

/// Drafts nothing: each cycle verifies only the root, which is plain decoding.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct NoDraft;

impl<T: TargetModel> Drafter<T> for NoDraft {
    fn name(&self) -> &str {
        "none"
    }

    fn begin(
        &mut self,
        _prompt: &T::Prompt,
        _features: T::Features,
        next: TokenId,
    ) -> Result<Proposal, BoxError> {
        Ok(TokenTree::new(next).into())
    }

    fn advance(
        &mut self,
        _accepted: &[TokenId],
        _features: T::Features,
        next: TokenId,
    ) -> Result<Proposal, BoxError> {
        Ok(TokenTree::new(next).into())
    }
}
