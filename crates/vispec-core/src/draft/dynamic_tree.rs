//! EAGLE-2 dynamic trees: a beam grown by cumulative log-probability, then the best nodes of all
//! that was scored.
//!
//! Follows `topK_genrate` of `vispec/model/cnets_ours.py`, commit d0240c8, with one difference:
//! candidates of equal score are ordered by their place in the pool, so a kept node's parent is
//! always kept.

use std::cmp::Ordering;

use crate::{
    Beam, BoxError, DraftModel, Drafter, Expansion, NodeId, TargetModel, TokenId, TokenTree, TopK,
    TreeError, TreeShape,
};

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
    log_prob: f32,
    /// Sum of log-probabilities from the root.
    score: f32,
}

/// Grows trees with a [`DraftModel`].
#[derive(Clone, Debug)]
pub struct DynamicTreeDrafter<M> {
    model: M,
    shape: TreeShape,
    growth: Growth,
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
    /// Trees of `shape` from the scores of `model`.
    pub fn new(model: M, shape: TreeShape) -> Self {
        Self {
            model,
            shape,
            growth: Growth::default(),
        }
    }

    /// The draft model.
    pub fn model(&self) -> &M {
        &self.model
    }

    /// The shape of the trees.
    pub fn shape(&self) -> TreeShape {
        self.shape
    }

    fn grow<T: TargetModel>(
        &mut self,
        root: TokenId,
        first: Expansion<M::Hidden>,
    ) -> Result<TokenTree, BoxError>
    where
        M: DraftModel<T>,
    {
        if self.shape.max_nodes() == 1 {
            return Ok(TokenTree::new(root));
        }
        let width = self.shape.beam_width();
        let n_expansions = self
            .model
            .fixed_levels()
            .unwrap_or(self.shape.levels())
            .max(1)
            - 1;
        self.growth.start(&first.top)?;
        let mut hidden = first.hidden;
        for level in 0..n_expansions {
            self.growth.select_beam(level, width);
            let expansion = self.model.expand(&self.growth.beam, &hidden, width)?;
            self.growth.add_level(level, &expansion.top)?;
            hidden = expansion.hidden;
        }
        Ok(self.growth.select_tree(root, self.shape.max_nodes() - 1)?)
    }
}

impl Growth {
    /// Level 0: candidates below the root.
    fn start(&mut self, top: &TopK) -> Result<(), DraftError> {
        self.pool.clear();
        self.level_start = 0;
        self.n_cache_rows = 0;
        self.beam.paths.clear();
        check(top, 1)?;
        self.row_width = top.k;
        for (token, log_prob) in top.row(0) {
            let candidate = Candidate {
                token,
                parent: None,
                log_prob,
                score: log_prob,
            };
            self.pool.push(checked(candidate, 0)?);
        }
        Ok(())
    }

    /// The best candidates of the last expansion become the rows of the next.
    fn select_beam(&mut self, level: usize, width: usize) {
        self.order.clear();
        self.order.extend(self.level_start..self.pool.len());
        let pool = &self.pool;
        self.order.sort_unstable_by(|&a, &b| best_first(pool, a, b));
        self.order.truncate(width);

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
    fn add_level(&mut self, level: usize, top: &TopK) -> Result<(), DraftError> {
        check(top, self.beam_pool.len())?;
        self.level_start = self.pool.len();
        self.row_width = top.k;
        for (row, &parent) in self.beam_pool.iter().enumerate() {
            let parent_score = self.pool[parent].score;
            for (token, log_prob) in top.row(row) {
                let score = parent_score + log_prob;
                let candidate = Candidate {
                    token,
                    parent: Some(parent),
                    log_prob,
                    score,
                };
                self.pool.push(checked(candidate, level + 1)?);
            }
        }
        Ok(())
    }

    /// The best `n_draft` candidates, in pool order, as a tree.
    fn select_tree(&mut self, root: TokenId, n_draft: usize) -> Result<TokenTree, DraftError> {
        self.order.clear();
        self.order.extend(0..self.pool.len());
        if n_draft < self.order.len() {
            let pool = &self.pool;
            self.order
                .select_nth_unstable_by(n_draft, |&a, &b| best_first(pool, a, b));
            self.order.truncate(n_draft);
        }
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

/// Makes sure that a child never scores above its parent, and that there is a score at all.
fn checked(mut candidate: Candidate, level: usize) -> Result<Candidate, DraftError> {
    if candidate.score.is_nan() {
        return Err(DraftError::NotANumber { level });
    }
    if candidate.log_prob > 0.0 {
        candidate.score -= candidate.log_prob;
        candidate.log_prob = 0.0;
    }
    Ok(candidate)
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
        let first = self
            .model
            .begin(prompt, features, next, self.shape.beam_width())?;
        self.grow(next, first)
    }

    fn advance(
        &mut self,
        accepted: &[TokenId],
        features: T::Features,
        next: TokenId,
    ) -> Result<TokenTree, BoxError> {
        let first = self
            .model
            .commit(accepted, features, next, self.shape.beam_width())?;
        self.grow(next, first)
    }
}
