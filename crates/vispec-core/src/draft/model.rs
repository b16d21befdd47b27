//! Interface of a draft network; [`DynamicTreeDrafter`](crate::DynamicTreeDrafter) does the rest.

use crate::{
    BoxError, KnownPick, KnownPicks, LogitsError, Prompt as _, TargetModel, TokenId, TopK,
};

/// The candidates requested from a pass of a draft network.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Ask {
    /// Number of candidates per row.
    pub top_k: usize,
    /// How the target will sample the tokens, if it samples and the numbers are known.
    picks: Option<KnownPicks>,
    /// Position of the requested tokens.
    position: usize,
}

impl Ask {
    /// Requests the `top_k` most probable tokens.
    #[must_use]
    pub const fn best(top_k: usize) -> Self {
        Self {
            top_k,
            picks: None,
            position: 0,
        }
    }

    /// Requests the tokens that the target is most likely to sample at `position`, if `picks` are
    /// known.
    #[must_use]
    pub const fn drawn(self, picks: Option<KnownPicks>, position: usize) -> Self {
        Self {
            picks,
            position,
            ..self
        }
    }

    /// Returns the same request for a position `tokens` later.
    #[must_use]
    pub const fn ahead(self, tokens: usize) -> Self {
        Self {
            position: self.position + tokens,
            ..self
        }
    }

    /// Returns how the target will sample these tokens, if known.
    #[must_use]
    pub fn pick(&self) -> Option<KnownPick> {
        self.picks.map(|picks| picks.at(self.position))
    }

    /// Returns the candidates of rows of logits, `[rows, vocab]`, with columns in token-id order.
    ///
    /// # Errors
    /// [`LogitsError::NonFinite`] if a row holds NaN or +inf, or only -inf.
    ///
    /// # Panics
    /// If `vocab` is 0 or the number of logits is not a multiple of it.
    pub fn rank(&self, logits: &[f32], vocab: usize) -> Result<TopK, LogitsError> {
        match self.pick() {
            Some(pick) => TopK::foreseen(logits, vocab, self.top_k, pick),
            None => TopK::from_logits(logits, vocab, self.top_k),
        }
    }
}

/// Result of one forward pass of a draft model.
#[derive(Clone, PartialEq, Debug)]
pub struct Expansion<H> {
    /// Best next tokens of each row.
    pub top: TopK,
    /// Hidden rows, opaque to this crate; passed back as the parents of the next expansion.
    pub hidden: H,
}

/// One level of a growing tree: the rows of the next forward pass.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Beam {
    /// Number of expansions since `begin` or `commit`: 0 for the rows below the root. All rows sit
    /// at position (committed length + `level`), counted in tokens of the draft's own sequence.
    pub level: usize,
    /// Token of each row.
    pub tokens: Vec<TokenId>,
    /// For each row, the index of its parent among the previous expansion's hidden rows. `begin`
    /// and `commit` leave one hidden row (that of the last position), so all are 0 at level 0.
    pub parent_rows: Vec<usize>,
    /// Rows of the tree cache that each row attends to, in addition to the whole committed cache.
    /// They are counted from the first row expanded since `begin` or `commit`, and listed from
    /// below the root down to the row itself.
    pub paths: Vec<Vec<usize>>,
}

/// A level of a tree that a network grew itself.
#[derive(Clone, PartialEq, Debug)]
pub struct GrownLevel {
    /// Rows of the pass: indices of the expanded candidates in the level above. Empty for the first
    /// level, directly below the root.
    pub expanded: Vec<usize>,
    /// Best next tokens of each row.
    pub top: TopK,
}

/// A pass of a draft network that can share the reads of its weights with other sequences.
#[derive(Debug)]
pub enum DraftStep<'a, F, H> {
    /// See [`DraftModel::commit`].
    Commit {
        /// Draft tokens that the last cycle accepted.
        accepted: &'a [TokenId],
        /// Features of the old root and the accepted tokens.
        features: F,
        /// The next root.
        next: TokenId,
    },
    /// See [`DraftModel::expand`].
    Expand {
        /// Rows of the pass.
        beam: &'a Beam,
        /// Hidden rows of the previous expansion.
        parents: &'a H,
    },
}

/// The part of a draft pass that belongs to one sequence.
#[derive(Debug)]
pub struct DraftPass<'a, F, M, H> {
    /// Network of the sequence.
    pub model: &'a mut M,
    /// Input of the pass.
    pub step: DraftStep<'a, F, H>,
    /// Requested candidates.
    pub ask: Ask,
}

/// [`DraftPass`] of a draft model for a target.
pub type DraftPassOf<'a, T, M> =
    DraftPass<'a, <T as TargetModel>::Features, M, <M as DraftModel<T>>::Hidden>;

/// A network that scores continuations level by level.
///
/// It keeps a committed cache and, while a tree grows, the rows of the tree after it.
pub trait DraftModel<T: TargetModel> {
    /// Hidden rows between two expansions.
    type Hidden;

    /// Returns the name for reports, such as `vispec`.
    fn name(&self) -> &str;

    /// Returns the number of levels if the network fixes it (one per Medusa head), regardless of
    /// the shape.
    fn fixed_levels(&self) -> Option<usize> {
        None
    }

    /// Returns the cost of reading `prompt`, as a number of tokens read one by one. It is smaller
    /// than the prompt length if the network compresses some tokens.
    fn tokens_to_read(&self, prompt: &T::Prompt) -> usize {
        prompt.token_ids().len()
    }

    /// Drops all state, reads the prompt and the first token, and returns the best continuations of
    /// the last position (one row).
    ///
    /// Position `s` of the draft pairs the target's features of token `s` with token `s + 1`; the
    /// last token is `next`.
    ///
    /// # Errors
    /// Any error of the model.
    fn begin(
        &mut self,
        prompt: &T::Prompt,
        features: T::Features,
        next: TokenId,
        ask: Ask,
    ) -> Result<Expansion<Self::Hidden>, BoxError>;

    /// Records the input of [`begin`](Self::begin) without scoring, in a cycle that drafts nothing.
    /// The next `commit` catches up.
    ///
    /// # Errors
    /// Any error of the model.
    fn postpone_prompt(
        &mut self,
        prompt: &T::Prompt,
        features: T::Features,
        next: TokenId,
    ) -> Result<(), BoxError> {
        self.begin(prompt, features, next, Ask::best(1)).map(drop)
    }

    /// Drops the rows left by `expand`, appends `accepted.len() + 1` pairs of features (old root
    /// and accepted tokens) and tokens (accepted tokens and `next`), and returns the best
    /// continuations of the last position (one row).
    ///
    /// # Errors
    /// Any error of the model.
    fn commit(
        &mut self,
        accepted: &[TokenId],
        features: T::Features,
        next: TokenId,
        ask: Ask,
    ) -> Result<Expansion<Self::Hidden>, BoxError>;

    /// Records the input of [`commit`](Self::commit) without scoring, in a cycle that drafts
    /// nothing. The next `commit` catches up.
    ///
    /// # Errors
    /// Any error of the model.
    fn postpone(
        &mut self,
        accepted: &[TokenId],
        features: T::Features,
        next: TokenId,
    ) -> Result<(), BoxError> {
        self.commit(accepted, features, next, Ask::best(1))
            .map(drop)
    }

    /// Grows one level: appends the rows of `beam` to the tree cache and returns the best
    /// continuations of each.
    ///
    /// `parents` are the hidden rows of the previous expansion.
    ///
    /// # Errors
    /// Any error of the model.
    fn expand(
        &mut self,
        beam: &Beam,
        parents: &Self::Hidden,
        ask: Ask,
    ) -> Result<Expansion<Self::Hidden>, BoxError>;

    /// Returns whether the network grows trees of a fixed shape itself ([`grow`](Self::grow)), with
    /// up to `width` expanded nodes per level. Networks on a GPU do, so that the host need not read
    /// every level.
    fn grows_by_itself(&self, width: usize) -> bool {
        let _ = width;
        false
    }

    /// Does the work of [`commit`](Self::commit) and `levels - 1` calls of
    /// [`expand`](Self::expand). Each level expands the best `ask.top_k` candidates of the previous
    /// level, ranked by the sum of log-probabilities from the root.
    ///
    /// # Errors
    /// Any error of the model, or if the model does not [grow trees itself](Self::grows_by_itself).
    fn grow(
        &mut self,
        accepted: &[TokenId],
        features: T::Features,
        next: TokenId,
        (levels, ask): (usize, Ask),
    ) -> Result<Vec<GrownLevel>, BoxError> {
        let _ = (accepted, features, next, levels, ask);
        Err("the draft model does not grow trees itself".into())
    }

    /// Runs one pass for several sequences and returns one result per sequence, like
    /// [`commit`](Self::commit) or [`expand`](Self::expand). By default the sequences run one after
    /// the other.
    ///
    /// The result of a sequence must not depend on the others.
    fn forward(
        passes: Vec<DraftPassOf<'_, T, Self>>,
    ) -> Vec<Result<Expansion<Self::Hidden>, BoxError>>
    where
        Self: Sized,
    {
        let run = |pass: DraftPassOf<'_, T, Self>| match pass.step {
            DraftStep::Commit {
                accepted,
                features,
                next,
            } => pass.model.commit(accepted, features, next, pass.ask),
            DraftStep::Expand { beam, parents } => pass.model.expand(beam, parents, pass.ask),
        };
        passes.into_iter().map(run).collect()
    }
}
