//! EAGLE-2 dynamic trees: a beam grown by cumulative log-probability, then the best nodes of all
//! that was scored.
//!
//! Follows `topK_genrate` of `vispec/model/cnets_ours.py`, commit d0240c8, with one difference:
//! candidates of equal score are ordered by their place in the pool, so a kept node's parent is
//! always kept.

mod auto;

use std::cmp::Ordering;

use self::auto::AutoGrowth;
use crate::{
    AutoTree, Beam, BoxError, DraftModel, Drafter, Expansion, Idle, NodeId, Prompt, TargetModel,
    TokenId, TokenTree, TopK, TreeError, TreeShape,
};

/// How large trees are.
#[derive(Clone, PartialEq, Debug)]
pub enum TreeSize {
    /// The same in each cycle.
    Fixed(TreeShape),
    /// What pays, chosen in each cycle.
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
    /// The draft model returned another number of rows than it was asked for.
    #[error("the draft model returned {found} rows of candidates, expected {expected}")]
    Rows {
        /// Rows asked for.
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
    /// A log-probability is not a number.
    #[error("a log-probability of the draft at level {level} is not a number")]
    NotANumber {
        /// Level below the root, from 0.
        level: usize,
    },
    /// The candidates do not make a tree.
    #[error("the draft's candidates do not make a tree")]
    Tree(#[from] TreeError),
}

/// A token that was scored while the tree grew.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    token: TokenId,
    /// Pool index of the parent, `None` below the root.
    parent: Option<usize>,
    /// Place among its siblings, from 0.
    rank: usize,
    log_prob: f32,
    /// Sum from the root of log-probabilities, or of what they are worth.
    score: f32,
}

impl Candidate {
    /// Chance to be accepted, if scores are what log-probabilities are worth.
    fn chance(&self) -> f64 {
        f64::from(self.score).exp()
    }
}

/// What a log-probability is worth as a score, given the rank among siblings.
trait Worth: Fn(usize, f32) -> f32 {}
impl<F: Fn(usize, f32) -> f32> Worth for F {}

/// Scores of trees of fixed size are the draft's own.
fn as_it_is(_rank: usize, log_prob: f32) -> f32 {
    log_prob
}

/// Grows trees with a [`DraftModel`].
#[derive(Clone, Debug)]
pub struct DynamicTreeDrafter<M> {
    model: M,
    sizing: Sizing,
    growth: Growth,
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
}

/// Everything scored in the current cycle; kept between cycles for its memory.
#[derive(Clone, Default, Debug)]
struct Growth {
    pool: Vec<Candidate>,
    /// Pool index where the candidates of the last expansion start.
    level_start: usize,
    /// Candidates per row of the last expansion.
    row_width: usize,
    /// Pool indices in some order.
    order: Vec<usize>,
    /// Pool index of each row of `beam`.
    beam_pool: Vec<usize>,
    beam: Beam,
    /// Paths of the beam before, whose memory is used again.
    old_paths: Vec<Vec<usize>>,
    n_cache_rows: usize,
    nodes: Vec<NodeId>,
}

impl<M> DynamicTreeDrafter<M> {
    /// Trees of the given size from the scores of `model`.
    pub fn new(model: M, size: impl Into<TreeSize>) -> Self {
        Self {
            model,
            sizing: match size.into() {
                TreeSize::Fixed(shape) => Sizing::Fixed(shape),
                TreeSize::Auto(limits) => Sizing::Auto(Box::new(AutoGrowth::new(limits))),
            },
            growth: Growth::default(),
        }
    }

    /// The draft model.
    pub fn model(&self) -> &M {
        &self.model
    }

    fn grow<T: TargetModel>(
        &mut self,
        root: TokenId,
        first: Expansion<M::Hidden>,
    ) -> Result<TokenTree, BoxError>
    where
        M: DraftModel<T>,
    {
        let Self {
            model,
            sizing,
            growth,
        } = self;
        match sizing {
            Sizing::Fixed(shape) => growth.fixed_tree(model, *shape, root, first),
            Sizing::Auto(auto) => growth.auto_tree(model, auto, root, first),
        }
    }
}

/// Levels that a model and a size agree on.
fn n_levels<T: TargetModel, M: DraftModel<T>>(model: &M, wanted: usize) -> usize {
    model.fixed_levels().unwrap_or(wanted).max(1)
}

impl Growth {
    /// A tree of a given shape.
    fn fixed_tree<T: TargetModel, M: DraftModel<T>>(
        &mut self,
        model: &mut M,
        shape: TreeShape,
        root: TokenId,
        first: Expansion<M::Hidden>,
    ) -> Result<TokenTree, BoxError> {
        if shape.max_nodes() == 1 {
            return Ok(TokenTree::new(root));
        }
        self.start(&first.top, as_it_is)?;
        let mut hidden = first.hidden;
        for level in 1..n_levels(model, shape.levels()) {
            self.rank_level(shape.beam_width());
            let top = self.expand(model, level, &mut hidden, shape.beam_width())?;
            self.add_level(level, &top, as_it_is)?;
        }
        self.rank_pool(shape.max_nodes() - 1);
        Ok(self.selected_tree(root)?)
    }

    /// A tree of the size that pays.
    fn auto_tree<T: TargetModel, M: DraftModel<T>>(
        &mut self,
        model: &mut M,
        auto: &mut AutoGrowth,
        root: TokenId,
        first: Expansion<M::Hidden>,
    ) -> Result<TokenTree, BoxError> {
        let (width, most) = (auto.limits.beam_width, auto.limits.max_nodes);
        self.start(&first.top, |rank, log_prob| auto.log_chance(rank, log_prob))?;
        let mut hidden = first.hidden;
        for level in 1..n_levels(model, auto.limits.max_levels) {
            self.rank_pool(most);
            let n_draft = auto.worth_verifying(&self.pool, &self.order);
            self.rank_level(width);
            let rows = auto.worth_expanding(n_draft, &self.pool, &self.order);
            if rows == 0 {
                break;
            }
            self.order.truncate(rows);
            let top = self.expand(model, level, &mut hidden, width)?;
            self.add_level(level, &top, |rank, log_prob| {
                auto.log_chance(rank, log_prob)
            })?;
            auto.expanded(&self.pool[self.level_start..], rows);
        }
        self.rank_pool(most);
        let n_draft = auto.worth_verifying(&self.pool, &self.order);
        self.order.truncate(n_draft);
        let tree = self.selected_tree(root)?;
        auto.plan(&tree, &self.pool, &self.order);
        Ok(tree)
    }

    /// Has the candidates in `order` expanded, as the rows of `level - 1`.
    fn expand<T: TargetModel, M: DraftModel<T>>(
        &mut self,
        model: &mut M,
        level: usize,
        hidden: &mut M::Hidden,
        k: usize,
    ) -> Result<TopK, BoxError> {
        self.take_beam(level - 1);
        let expansion = model.expand(&self.beam, hidden, k)?;
        *hidden = expansion.hidden;
        Ok(expansion.top)
    }

    /// Level 0: candidates below the root.
    fn start(&mut self, top: &TopK, worth: impl Worth) -> Result<(), DraftError> {
        self.pool.clear();
        self.level_start = 0;
        self.n_cache_rows = 0;
        self.beam.paths.clear();
        check(top, 1)?;
        self.row_width = top.k;
        self.add_children(None, top.row(0), 0, &worth)
    }

    /// The best candidates of the last expansion into `order`, best first.
    fn rank_level(&mut self, width: usize) {
        self.rank(self.level_start, width);
    }

    /// The best of all candidates into `order`, best first.
    fn rank_pool(&mut self, most: usize) {
        self.rank(0, most);
    }

    fn rank(&mut self, from: usize, most: usize) {
        self.order.clear();
        self.order.extend(from..self.pool.len());
        let pool = &self.pool;
        if most < self.order.len() {
            self.order
                .select_nth_unstable_by(most, |&a, &b| best_first(pool, a, b));
            self.order.truncate(most);
        }
        self.order.sort_unstable_by(|&a, &b| best_first(pool, a, b));
    }

    /// The candidates in `order` become the rows of the next expansion.
    fn take_beam(&mut self, level: usize) {
        std::mem::swap(&mut self.beam.paths, &mut self.old_paths);
        self.beam.level = level;
        self.beam.tokens.clear();
        self.beam.parent_rows.clear();
        self.beam.paths.resize_with(self.order.len(), Vec::new);
        for (row, &index) in self.order.iter().enumerate() {
            let parent_row = if level == 0 {
                0
            } else {
                (index - self.level_start) / self.row_width
            };
            self.beam.tokens.push(self.pool[index].token);
            self.beam.parent_rows.push(parent_row);
            let path = &mut self.beam.paths[row];
            path.clear();
            if level > 0 {
                path.extend_from_slice(&self.old_paths[parent_row]);
            }
            path.push(self.n_cache_rows + row);
        }
        self.n_cache_rows += self.order.len();
        self.beam_pool.clone_from(&self.order);
    }

    /// The children that the model gave to the rows of the beam.
    fn add_level(&mut self, level: usize, top: &TopK, worth: impl Worth) -> Result<(), DraftError> {
        check(top, self.beam_pool.len())?;
        self.level_start = self.pool.len();
        self.row_width = top.k;
        for row in 0..self.beam_pool.len() {
            self.add_children(Some(self.beam_pool[row]), top.row(row), level, &worth)?;
        }
        Ok(())
    }

    fn add_children(
        &mut self,
        parent: Option<usize>,
        children: impl Iterator<Item = (TokenId, f32)>,
        level: usize,
        worth: &impl Worth,
    ) -> Result<(), DraftError> {
        let parent_score = parent.map_or(0.0, |parent| self.pool[parent].score);
        for (rank, (token, log_prob)) in children.enumerate() {
            if log_prob.is_nan() {
                return Err(DraftError::NotANumber { level });
            }
            // A child must never score above its parent.
            let log_prob = log_prob.min(0.0);
            let score = parent_score + worth(rank, log_prob).min(0.0);
            self.pool.push(Candidate {
                token,
                parent,
                rank,
                log_prob,
                score,
            });
        }
        Ok(())
    }

    /// The candidates in `order`, in pool order, as a tree.
    fn selected_tree(&mut self, root: TokenId) -> Result<TokenTree, DraftError> {
        self.order.sort_unstable();
        let mut tree = TokenTree::with_capacity(root, self.order.len() + 1);
        self.nodes.clear();
        self.nodes.resize(self.pool.len(), NodeId::ROOT);
        for &index in &self.order {
            let candidate = self.pool[index];
            // A parent scores at least as high as its child and comes first in the pool, so it was
            // selected too and is in the tree already.
            let parent = candidate
                .parent
                .map_or(NodeId::ROOT, |parent| self.nodes[parent]);
            self.nodes[index] = tree.push_scored(parent, candidate.token, candidate.log_prob)?;
        }
        Ok(tree)
    }
}

/// Descending score; of equals the one scored first.
fn best_first(pool: &[Candidate], a: usize, b: usize) -> Ordering {
    // Scores are never NaN. (A total order would put -0 below 0, hence a parent below its child.)
    let by_score = pool[b]
        .score
        .partial_cmp(&pool[a].score)
        .unwrap_or(Ordering::Equal);
    by_score.then(a.cmp(&b))
}

fn check(top: &TopK, expected: usize) -> Result<(), DraftError> {
    let TopK {
        k,
        tokens,
        log_probs,
    } = top;
    if tokens.len() != log_probs.len() || (*k == 0 && !tokens.is_empty()) {
        let (tokens, log_probs) = (tokens.len(), log_probs.len());
        return Err(DraftError::Ragged {
            tokens,
            log_probs,
            k: *k,
        });
    }
    if tokens.len() != expected * k {
        return Err(DraftError::Rows {
            expected,
            found: top.n_rows(),
        });
    }
    Ok(())
}

impl<T: TargetModel, M: DraftModel<T>> Drafter<T> for DynamicTreeDrafter<M> {
    fn name(&self) -> &str {
        self.model.name()
    }

    fn begin(
        &mut self,
        prompt: &T::Prompt,
        features: T::Features,
        next: TokenId,
    ) -> Result<TokenTree, BoxError> {
        if let Sizing::Auto(auto) = &mut self.sizing {
            let to_read = self.model.tokens_to_read(prompt);
            let drafts = auto.begin(prompt.token_ids().len(), to_read);
            if !auto.could_pay() {
                return Ok(TokenTree::new(next));
            }
            if !drafts {
                self.model.postpone_prompt(prompt, features, next)?;
                return Ok(TokenTree::new(next));
            }
        }
        let width = self.sizing.beam_width();
        let first = self.model.begin(prompt, features, next, width)?;
        self.grow(next, first)
    }

    fn advance(
        &mut self,
        accepted: &[TokenId],
        features: T::Features,
        next: TokenId,
    ) -> Result<TokenTree, BoxError> {
        if let Sizing::Auto(auto) = &mut self.sizing {
            if !auto.could_pay() {
                return Ok(TokenTree::new(next));
            }
            if !auto.advance(accepted) {
                self.model.postpone(accepted, features, next)?;
                return Ok(TokenTree::new(next));
            }
        }
        let width = self.sizing.beam_width();
        let first = self.model.commit(accepted, features, next, width)?;
        self.grow(next, first)
    }

    fn idle(&self) -> Idle {
        match &self.sizing {
            Sizing::Fixed(_) => Idle::NothingProposed,
            Sizing::Auto(auto) => auto.idle(),
        }
    }
}
