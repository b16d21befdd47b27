//! Drafters: whatever proposes the next tree of tokens.

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

/// Why a cycle verified the root alone.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Idle {
    /// Nothing may be emitted any more: the last token only goes through the target.
    LastToken,
    /// The drafter had nothing to propose.
    NothingProposed,
    /// No guess was likely enough for what verifying it costs.
    NotWorthwhile,
    /// Drafting has not paid lately, and is tried again later.
    Paused,
    /// If the next guesses failed, more would be lost than may be.
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

    /// Name for reports.
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

/// What a drafter has of the next tree.
#[derive(Clone, PartialEq, Debug)]
pub enum Proposal {
    /// The tree.
    Tree(TokenTree),
    /// It needs passes of a network, which [`Drafter::grow`] runs.
    Growing,
}

impl From<TokenTree> for Proposal {
    fn from(tree: TokenTree) -> Self {
        Self::Tree(tree)
    }
}

impl Proposal {
    /// Has `drafter`, which gave this, grow the tree to its end.
    ///
    /// # Errors
    /// As [`Drafter::grow`].
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
/// A drafter can change how fast tokens come, never which: it does not see the target's logits, and
/// the random numbers that it may see are the same whatever it proposes.
pub trait Drafter<T: TargetModel> {
    /// Name for reports, such as `vispec`.
    fn name(&self) -> &str;

    /// Says how the target will pick; called once, before [`begin`](Self::begin). `None` if it takes the
    /// most probable token, or if the numbers that it draws with are not known beforehand.
    fn note_picks(&mut self, picks: Option<KnownPicks>) {
        let _ = picks;
    }

    /// Says what else the next pass of the target carries; called before [`begin`](Self::begin) and
    /// [`advance`](Self::advance) if it is not this sequence alone. Drafters that go by measured
    /// costs propose less then.
    fn note_load(&mut self, load: PassLoad) {
        let _ = load;
    }

    /// Starts a generation and proposes the first tree, whose root is `next`.
    ///
    /// `features` are those of every prompt position; whatever an earlier generation left in the
    /// drafter is dropped.
    ///
    /// # Errors
    /// Any error of the drafter.
    fn begin(
        &mut self,
        prompt: &T::Prompt,
        features: T::Features,
        next: TokenId,
    ) -> Result<Proposal, BoxError>;

    /// Takes in what the last cycle kept and proposes a tree with root `next`.
    ///
    /// `accepted` are the draft tokens accepted, without the old root and without the bonus token,
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

    /// One step of a tree that is growing; only drafters that give [`Proposal::Growing`] have any.
    ///
    /// # Errors
    /// Any error of the drafter.
    fn grow(&mut self) -> Result<Proposal, BoxError> {
        Err("no tree is growing".into())
    }

    /// One step of several sequences' trees, all of them growing; drafters of one network share its
    /// pass. By default they take turns, and a drafter that panics fails alone.
    fn grow_together(drafters: &mut [&mut Self]) -> Vec<Result<Proposal, BoxError>>
    where
        Self: Sized,
    {
        let drafters = drafters.iter_mut();
        drafters
            .map(|drafter| guarded("drafting", || drafter.grow())?)
            .collect()
    }

    /// Why the last tree holds only its root; asked for such trees only.
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

/// Drafts nothing: each cycle verifies the root alone, which is plain decoding.
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
