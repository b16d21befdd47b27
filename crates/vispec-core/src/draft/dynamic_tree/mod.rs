//! EAGLE-2 dynamic trees: a beam grown by cumulative log-probability, then the best of all scored
//! nodes.
//!
//! Follows `topK_genrate` of `vispec/model/cnets_ours.py`, commit d0240c8, with one difference:
//! candidates of equal score are ordered by their index in the pool, so a kept node's parent is
//! always kept.

mod auto;
mod free;
mod growth;

use std::fmt;
use std::sync::Arc;

use self::auto::AutoGrowth;
use self::free::FreeGuesses;
use self::growth::{Growth, as_it_is};
use crate::budget::{Bidder, Share, share_nodes};
use crate::draft::lookup::LookedUp;
use crate::{
    Ask, AutoTree, BoxError, DraftModel, DraftPass, DraftPassOf, DraftStep, Drafter, Expansion,
    GrownLevel, Idle, KnownPicks, PassLoad, Prompt, Proposal, SuffixStore, TargetModel, TokenId,
    TokenTree, TreeError, TreeShape,
};

/// Size of the trees.
#[derive(Clone, PartialEq, Debug)]
pub enum TreeSize {
    /// The same size in each cycle.
    Fixed(TreeShape),
    /// The most profitable size, chosen in each cycle.
    Auto(AutoTree),
}

impl From<TreeShape> for TreeSize {
    fn from(shape: TreeShape) -> Self {
        Self::Fixed(shape)
    }
}

impl From<AutoTree> for TreeSize {
    fn from(limits: AutoTree) -> Self {
        Self::Auto(limits)
    }
}

/// Why a tree could not be grown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DraftError {
    /// The draft model returned a wrong number of rows.
    #[error("the draft model returned {found} rows of candidates, expected {expected}")]
    Rows {
        /// Rows requested.
        expected: usize,
        /// Rows returned.
        found: usize,
    },
    /// Tokens and log-probabilities do not fill rows of `k`.
    #[error("{tokens} tokens and {log_probs} log-probabilities are not rows of {k}")]
    Ragged {
        /// Number of tokens.
        tokens: usize,
        /// Number of log-probabilities.
        log_probs: usize,
        /// Candidates per row.
        k: usize,
    },
    /// A network that grows trees itself expanded a non-existent candidate.
    #[error("the draft model expanded candidate {place} of {found}")]
    Place {
        /// Index of the candidate.
        place: usize,
        /// Number of candidates.
        found: usize,
    },
    /// A log-probability is NaN.
    #[error("a log-probability of the draft at level {level} is not a number")]
    NotANumber {
        /// Level below the root, from 0.
        level: usize,
    },
    /// The candidates do not form a tree.
    #[error("the draft's candidates do not make a tree")]
    Tree(#[from] TreeError),
}

/// Grows trees with a [`DraftModel`].
pub struct DynamicTreeDrafter<T: TargetModel, M: DraftModel<T>> {
    model: M,
    sizing: Sizing,
    growth: Growth,
    stage: Stage<T::Features, M::Hidden>,
    root: TokenId,
    /// Position of the root.
    root_position: usize,
    /// How the target will pick tokens, if known.
    picks: Option<KnownPicks>,
    /// Draft tokens that the last cycle accepted.
    accepted: Vec<TokenId>,
    /// Guesses in addition to those of the network.
    free: Option<Box<FreeGuesses>>,
}

impl<T: TargetModel, M: DraftModel<T> + fmt::Debug> fmt::Debug for DynamicTreeDrafter<T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamicTreeDrafter")
            .field("model", &self.model)
            .field("sizing", &self.sizing)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Debug)]
enum Sizing {
    Fixed(TreeShape),
    Auto(Box<AutoGrowth>),
}

impl Sizing {
    fn beam_width(&self) -> usize {
        match self {
            Self::Fixed(shape) => shape.beam_width(),
            Self::Auto(auto) => auto.limits.beam_width,
        }
    }

    fn max_levels(&self) -> usize {
        match self {
            Self::Fixed(shape) => shape.levels(),
            Self::Auto(auto) => auto.limits.max_levels,
        }
    }

    /// Returns the function from rank and log-probability to score.
    fn worth(&self) -> impl Fn(usize, f32) -> f32 {
        move |rank, log_prob| match self {
            Self::Fixed(_) => as_it_is(rank, log_prob),
            Self::Auto(auto) => auto.log_chance(rank, log_prob),
        }
    }
}

/// Progress of the growing tree.
enum Stage<F, H> {
    /// No tree is growing.
    Resting,
    /// The network must read the tokens that the last cycle kept; these are their features.
    Commit(F),
    /// The network is reading them.
    Committing,
    /// Candidates of the levels before `level` are known.
    Level { level: usize, hidden: H },
    /// All candidates are known.
    Grown,
}

impl<T: TargetModel, M: DraftModel<T>> DynamicTreeDrafter<T, M> {
    /// Creates a drafter that grows trees of the given size from the scores of `model`.
    pub fn new(model: M, size: impl Into<TreeSize>) -> Self {
        Self {
            model,
            sizing: match size.into() {
                TreeSize::Fixed(shape) => Sizing::Fixed(shape),
                TreeSize::Auto(limits) => Sizing::Auto(Box::new(AutoGrowth::new(limits))),
            },
            growth: Growth::default(),
            stage: Stage::Resting,
            root: 0,
            root_position: 0,
            picks: None,
            accepted: Vec::new(),
            free: None,
        }
    }

    /// Adds prompt lookup: continuations of earlier occurrences of the last tokens in prompt and
    /// answer compete with the network's candidates.
    #[must_use]
    pub fn with_lookup(mut self) -> Self {
        let most = match &self.sizing {
            Sizing::Fixed(shape) => shape.max_nodes(),
            Sizing::Auto(auto) => auto.limits.max_nodes,
        };
        self.free = Some(Box::new(FreeGuesses::new(most)));
        self
    }

    /// Extends the [lookup](Self::with_lookup), if enabled, to the earlier answers in `store`.
    #[must_use]
    pub fn with_store(mut self, store: Arc<SuffixStore>) -> Self {
        if let Some(free) = &mut self.free {
            free.add_store(store);
        }
        self
    }

    /// Returns the draft model.
    pub fn model(&self) -> &M {
        &self.model
    }

    /// Returns the request for candidates at `depth` below the root.
    fn ask(&self, depth: usize) -> Ask {
        let ask = Ask::best(self.sizing.beam_width());
        ask.drawn(self.picks, self.root_position + depth)
    }

    /// Returns the next pass that the tree needs; `None` if all candidates are known.
    fn next_pass(&mut self) -> Option<DraftPassOf<'_, T, M>> {
        if matches!(self.stage, Stage::Level { .. }) && !self.choose_beam() {
            self.stage = Stage::Grown;
        }
        let stage = match std::mem::replace(&mut self.stage, Stage::Committing) {
            Stage::Commit(features) => {
                let ask = self.ask(1);
                return Some(DraftPass {
                    model: &mut self.model,
                    step: DraftStep::Commit {
                        accepted: &self.accepted,
                        features,
                        next: self.root,
                    },
                    ask,
                });
            }
            other => other,
        };
        self.stage = stage;
        let ask = self.ask(self.growth.beam.level + 2);
        let Stage::Level { hidden, .. } = &self.stage else {
            return None;
        };
        Some(DraftPass {
            model: &mut self.model,
            step: DraftStep::Expand {
                beam: &self.growth.beam,
                parents: hidden,
            },
            ask,
        })
    }

    /// Builds a beam of the candidates that are worth expanding; returns `false` if there are none.
    fn choose_beam(&mut self) -> bool {
        let Stage::Level { level, .. } = self.stage else {
            return false;
        };
        let levels = self.model.fixed_levels();
        if level >= levels.unwrap_or(self.sizing.max_levels()).max(1) {
            return false;
        }
        let growth = &mut self.growth;
        match &self.sizing {
            Sizing::Fixed(shape) if shape.max_nodes() == 1 => return false,
            Sizing::Fixed(shape) => growth.rank_level(shape.beam_width()),
            Sizing::Auto(auto) => {
                growth.rank_pool(auto.limits.max_nodes);
                let n_draft = auto.worth_verifying(&growth.pool, &growth.order);
                growth.rank_level(auto.limits.beam_width);
                let rows = auto.worth_expanding(n_draft, &growth.pool, &growth.order);
                growth.order.truncate(rows);
            }
        }
        if growth.order.is_empty() {
            return false;
        }
        growth.take_beam(level - 1);
        true
    }

    /// Adds the candidates of a pass.
    fn absorb(&mut self, expansion: Expansion<M::Hidden>) -> Result<Proposal, BoxError> {
        let Expansion { top, hidden } = expansion;
        let level = match self.stage {
            Stage::Level { level, .. } => {
                let rows = self.growth.beam.tokens.len();
                self.growth.add_level(level, &top, self.sizing.worth())?;
                if let Sizing::Auto(auto) = &mut self.sizing {
                    auto.expanded(&self.growth.pool[self.growth.level_start..], rows);
                }
                level + 1
            }
            _ => {
                self.growth.start(&top, self.sizing.worth())?;
                1
            }
        };
        self.stage = Stage::Level { level, hidden };
        Ok(Proposal::Growing)
    }

    /// Lets the network grow a whole tree if it can. Returns `None` if it cannot, or if the tree's
    /// size depends on the scores of each level.
    fn grow_by_itself(&mut self) -> Option<Result<Proposal, BoxError>> {
        let Sizing::Fixed(shape) = self.sizing else {
            return None;
        };
        let is_waiting = matches!(self.stage, Stage::Commit(_));
        if !is_waiting || shape.max_nodes() == 1 || !self.model.grows_by_itself(shape.beam_width())
        {
            return None;
        }
        let ask = self.ask(1);
        let Stage::Commit(features) = std::mem::replace(&mut self.stage, Stage::Committing) else {
            return None;
        };
        let grown = self
            .model
            .grow(&self.accepted, features, self.root, (shape.levels(), ask));
        Some(grown.and_then(|levels| self.take_levels(&levels)))
    }

    fn take_levels(&mut self, levels: &[GrownLevel]) -> Result<Proposal, BoxError> {
        for (level, GrownLevel { expanded, top }) in levels.iter().enumerate() {
            if level == 0 {
                self.growth.start(top, as_it_is)?;
                continue;
            }
            self.growth.choose(expanded)?;
            self.growth.take_beam(level - 1);
            self.growth.add_level(level, top, as_it_is)?;
        }
        self.stage = Stage::Grown;
        Ok(Proposal::Growing)
    }

    /// Ranks all candidates and returns the chances of those that may be verified, best first.
    fn offers(&mut self) -> Vec<f64> {
        if let Some(free) = &self.free {
            self.growth.join(&free.guesses, &free.chances());
        }
        match &self.sizing {
            Sizing::Fixed(shape) => {
                self.growth.rank_pool(shape.max_nodes() - 1);
                Vec::new()
            }
            Sizing::Auto(auto) => {
                self.growth.rank_pool(auto.limits.max_nodes);
                auto.chances(&self.growth.pool, &self.growth.order)
            }
        }
    }

    /// Returns the tree of the best candidates, which must be ranked.
    fn cut(&mut self, share: Share) -> Result<TokenTree, BoxError> {
        if !matches!(self.stage, Stage::Grown) {
            return Err("no tree is growing".into());
        }
        self.stage = Stage::Resting;
        self.growth.order.truncate(share.nodes);
        let tree = self.growth.selected_tree(self.root)?;
        if let Sizing::Auto(auto) = &mut self.sizing {
            auto.plan(&tree, share.extra, &self.growth.pool, &self.growth.order);
        }
        if let Some(free) = &mut self.free {
            let nodes = self.growth.order.iter();
            let origins = nodes.map(|&index| self.growth.pool[index].origin);
            free.verified = Some(LookedUp::new(tree.clone(), origins.collect()));
        }
        Ok(tree)
    }

    /// Skips the network in this cycle; free guesses may still be worth verifying.
    fn rest(&mut self) -> Proposal {
        if self.free.is_none() {
            return TokenTree::new(self.root).into();
        }
        self.growth.clear();
        self.stage = Stage::Grown;
        Proposal::Growing
    }

    /// Finishes the trees of drafters whose candidates are all known. Trees sized by cost compete
    /// for the rows of the pass.
    fn finish_together(drafters: &mut [&mut Self]) -> Vec<Result<Proposal, BoxError>> {
        let offers: Vec<Vec<f64>> = drafters
            .iter_mut()
            .map(|drafter| drafter.offers())
            .collect();
        let bidders = drafters.iter().zip(&offers);
        let bidders = bidders.filter_map(|(drafter, chances)| match &drafter.sizing {
            Sizing::Auto(auto) => Some(Bidder {
                budget: auto.budget(),
                chances,
            }),
            Sizing::Fixed(_) => None,
        });
        let mut shares = share_nodes(&Vec::from_iter(bidders)).into_iter();
        let finish = drafters.iter_mut().map(|drafter| {
            let share = match drafter.sizing {
                Sizing::Fixed(shape) => Share {
                    nodes: shape.max_nodes() - 1,
                    extra: 0.0,
                },
                Sizing::Auto(_) => shares.next().unwrap_or_default(),
            };
            Ok(drafter.cut(share)?.into())
        });
        finish.collect()
    }
}

impl<T: TargetModel, M: DraftModel<T>> Drafter<T> for DynamicTreeDrafter<T, M> {
    fn name(&self) -> &str {
        self.model.name()
    }

    fn note_picks(&mut self, picks: Option<KnownPicks>) {
        self.picks = picks;
    }

    fn note_load(&mut self, load: PassLoad) {
        if let Sizing::Auto(auto) = &mut self.sizing {
            auto.note_load(load);
        }
    }

    fn begin(
        &mut self,
        prompt: &T::Prompt,
        features: T::Features,
        next: TokenId,
    ) -> Result<Proposal, BoxError> {
        self.root = next;
        self.root_position = prompt.token_ids().len();
        if let Some(free) = &mut self.free {
            free.begin(prompt.token_ids(), next)?;
        }
        if let Sizing::Auto(auto) = &mut self.sizing {
            let to_read = self.model.tokens_to_read(prompt);
            let drafts = auto.begin(prompt.token_ids().len(), to_read);
            if !auto.could_pay() {
                return Ok(self.rest());
            }
            if !drafts {
                self.model.postpone_prompt(prompt, features, next)?;
                return Ok(self.rest());
            }
        }
        let first = self.model.begin(prompt, features, next, self.ask(1))?;
        self.stage = Stage::Committing;
        self.absorb(first)
    }

    fn advance(
        &mut self,
        accepted: &[TokenId],
        features: T::Features,
        next: TokenId,
    ) -> Result<Proposal, BoxError> {
        self.root = next;
        self.root_position += accepted.len() + 1;
        if let Some(free) = &mut self.free {
            free.advance(accepted, next)?;
        }
        if let Sizing::Auto(auto) = &mut self.sizing {
            let free_gain = self.free.as_ref().map_or(0.0, |free| free.gain(auto));
            let drafts = auto.advance(accepted, free_gain);
            if !auto.could_pay() {
                return Ok(self.rest());
            }
            if !drafts {
                self.model.postpone(accepted, features, next)?;
                return Ok(self.rest());
            }
        }
        self.accepted.clear();
        self.accepted.extend_from_slice(accepted);
        self.stage = Stage::Commit(features);
        Ok(Proposal::Growing)
    }

    fn grow(&mut self) -> Result<Proposal, BoxError> {
        let mut alone = Self::grow_together(&mut [self]);
        alone.pop().unwrap_or(Ok(Proposal::Growing))
    }

    fn grow_together(drafters: &mut [&mut Self]) -> Vec<Result<Proposal, BoxError>> {
        // Several drafters share the passes of each level instead.
        if let [drafter] = drafters
            && let Some(grown) = drafter.grow_by_itself()
        {
            return vec![grown];
        }
        let mut asked = Vec::with_capacity(drafters.len());
        let mut passes = Vec::with_capacity(drafters.len());
        for (index, drafter) in drafters.iter_mut().enumerate() {
            if let Some(pass) = drafter.next_pass() {
                asked.push(index);
                passes.push(pass);
            }
        }
        if passes.is_empty() {
            return Self::finish_together(drafters);
        }
        let mut expansions = M::forward(passes).into_iter();
        let mut results = Vec::from_iter(drafters.iter().map(|_| Ok(Proposal::Growing)));
        for index in asked {
            let expansion = expansions.next();
            let expansion =
                expansion.unwrap_or_else(|| Err("the draft pass returned no result".into()));
            results[index] = expansion.and_then(|expansion| drafters[index].absorb(expansion));
        }
        results
    }

    fn idle(&self) -> Idle {
        match &self.sizing {
            Sizing::Fixed(_) => Idle::NothingProposed,
            Sizing::Auto(auto) => auto.idle(),
        }
    }
}
