//! What a neural drafter must supply; [`DynamicTreeDrafter`](crate::DynamicTreeDrafter) does the
//! rest.

use crate::{
    BoxError, KnownPick, KnownPicks, LogitsError, Prompt as _, TargetModel, TokenId, TopK,
};

/// What is asked of a pass of a draft network.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Ask {
    /// Candidates per row.
    pub top_k: usize,
    /// How the target will draw the tokens, if it draws and the numbers are known.
    picks: Option<KnownPicks>,
    /// Position of the tokens that are asked for.
    position: usize,
}

impl Ask {
    /// The `top_k` most probable tokens.
    #[must_use]
    pub const fn best(top_k: usize) -> Self {
        Self {
            top_k,
            picks: None,
            position: 0,
        }
    }

    /// The same, if `picks` are known: those that the target is most likely to draw at `position`.
    #[must_use]
    pub const fn drawn(self, picks: Option<KnownPicks>, position: usize) -> Self {
        Self {
            picks,
            position,
            ..self
        }
    }

    /// The same for tokens that come `tokens` later.
    #[must_use]
    pub const fn ahead(self, tokens: usize) -> Self {
        Self {
            position: self.position + tokens,
            ..self
        }
    }

    /// How the target will draw these tokens, if it is known.
    #[must_use]
    pub fn pick(&self) -> Option<KnownPick> {
        self.picks.map(|picks| picks.at(self.position))
    }

    /// The candidates of rows of logits, `[rows, vocab]`, whose columns are tokens in the order of
    /// ids.
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
    /// Hidden rows, opaque to this crate; handed back as the parents of the next expansion.
    pub hidden: H,
}

/// One level of a growing tree: the rows of the next forward pass.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Beam {
    /// Expansions since `begin` or `commit`: 0 for the rows below the root. All rows sit at
    /// position (committed length + `level`), counted in tokens of the draft's own stream.
    pub level: usize,
    /// Token of each row.
    pub tokens: Vec<TokenId>,
    /// Row of the previous expansion's hidden rows that each row comes from. `begin` and `commit`
    /// leave one hidden row (that of the last position), so at level 0 all are 0.
    pub parent_rows: Vec<usize>,
    /// Rows of the tree cache that each row attends to, besides the whole committed cache: counted
    /// from the first row expanded since `begin` or `commit`, from below the root down, ending
    /// with the row itself.
    pub paths: Vec<Vec<usize>>,
}

/// A level of a tree that a network grew by itself.
#[derive(Clone, PartialEq, Debug)]
pub struct GrownLevel {
    /// Rows of the pass: which candidates of the level above it expanded, by their places there. None
    /// in the first level, which is that below the root.
    pub expanded: Vec<usize>,
    /// Best next tokens of each row.
    pub top: TopK,
}

/// A pass of a draft network that can share its weights' reads with those of other sequences.
#[derive(Debug)]
pub enum DraftStep<'a, F, H> {
    /// As [`DraftModel::commit`].
    Commit {
        /// Draft tokens that the last cycle accepted.
        accepted: &'a [TokenId],
        /// Features of the old root and the accepted tokens.
        features: F,
        /// The next root.
        next: TokenId,
    },
    /// As [`DraftModel::expand`].
    Expand {
        /// Rows of the pass.
        beam: &'a Beam,
        /// Hidden rows of the expansion before.
        parents: &'a H,
    },
}

/// The part of a draft pass that belongs to one sequence.
#[derive(Debug)]
pub struct DraftPass<'a, F, M, H> {
    /// The sequence's network.
    pub model: &'a mut M,
    /// What it reads.
    pub step: DraftStep<'a, F, H>,
    /// What is asked for.
    pub ask: Ask,
}

/// [`DraftPass`] of a draft model for a target.
pub type DraftPassOf<'a, T, M> =
    DraftPass<'a, <T as TargetModel>::Features, M, <M as DraftModel<T>>::Hidden>;

/// A network that scores continuations level by level.
///
/// It keeps a committed cache and, while a tree grows, rows of the tree behind it.
pub trait DraftModel<T: TargetModel> {
    /// Hidden rows between two expansions.
    type Hidden;

    /// Name for reports, such as `vispec`.
    fn name(&self) -> &str;

    /// Number of levels if the network fixes it (one per Medusa head), regardless of the shape.
    fn fixed_levels(&self) -> Option<usize> {
        None
    }

    /// What reading `prompt` costs, in tokens that are read one by one: fewer than it has if the
    /// network compresses some.
    fn tokens_to_read(&self, prompt: &T::Prompt) -> usize {
        prompt.token_ids().len()
    }

    /// Drops everything, reads the prompt and the first token, and returns the best continuations
    /// of the last position (one row).
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

    /// Takes note of what [`begin`](Self::begin) would read, without scoring anything: nothing is
    /// drafted in this cycle. The next `commit` catches up.
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

    /// Takes note of what [`commit`](Self::commit) would take in, without scoring anything: nothing
    /// is drafted in this cycle. The next `commit` catches up.
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

    /// One level: appends the rows of `beam` to the tree cache and returns the best continuations
    /// of each.
    ///
    /// `parents` are the hidden rows of the expansion before.
    ///
    /// # Errors
    /// Any error of the model.
    fn expand(
        &mut self,
        beam: &Beam,
        parents: &Self::Hidden,
        ask: Ask,
    ) -> Result<Expansion<Self::Hidden>, BoxError>;

    /// Whether the network grows trees of a fixed shape by itself ([`grow`](Self::grow)), expanding up
    /// to `width` nodes per level. One on a GPU does, so that the host need not read every level.
    fn grows_by_itself(&self, width: usize) -> bool {
        let _ = width;
        false
    }

    /// As [`commit`](Self::commit) and `levels - 1` calls of [`expand`](Self::expand), each with the
    /// best `ask.top_k` candidates of the level before by the sum of log-probabilities from the root.
    ///
    /// # Errors
    /// Any error of the model; one that does not [grow by itself](Self::grows_by_itself).
    fn grow(
        &mut self,
        accepted: &[TokenId],
        features: T::Features,
        next: TokenId,
        (levels, ask): (usize, Ask),
    ) -> Result<Vec<GrownLevel>, BoxError> {
        let _ = (accepted, features, next, levels, ask);
        Err("the draft model grows no trees by itself".into())
    }

    /// One pass for several sequences: a result for each, as [`commit`](Self::commit) or
    /// [`expand`](Self::expand) gives it. By default they are run one after the other.
    ///
    /// What a sequence is given must not depend on the others.
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
