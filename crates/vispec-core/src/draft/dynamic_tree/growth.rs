//! Candidates of a growing tree, level by level, and selection of the best.

use std::cmp::Ordering;

use super::DraftError;
use crate::draft::lookup::{Guesses, Origin};
use crate::{Beam, NodeId, TokenId, TokenTree, TopK};

/// A token that was scored while the tree grew.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) token: TokenId,
    /// Pool index of the parent, `None` below the root.
    pub(super) parent: Option<usize>,
    /// Rank among the siblings from the network, from 0; `None` if the network did not propose the
    /// token.
    pub(super) rank: Option<usize>,
    /// Origin of the guess if the token was looked up.
    pub(super) origin: Option<Origin>,
    /// The network's log-probability.
    pub(super) log_prob: f32,
    /// Score of the log-probability.
    worth: f32,
    /// Sum of the scores from the root.
    pub(super) score: f32,
}

impl Candidate {
    /// Returns the chance of acceptance, given that scores are log-chances.
    pub(super) fn chance(&self) -> f64 {
        f64::from(self.score).exp()
    }
}

/// Maps the rank among siblings and a log-probability to a score.
pub(super) trait Worth: Fn(usize, f32) -> f32 {}
impl<F: Fn(usize, f32) -> f32> Worth for F {}

/// Score of trees of fixed size: the draft's own log-probability.
pub(super) fn as_it_is(_rank: usize, log_prob: f32) -> f32 {
    log_prob
}

/// All candidates of the current cycle; kept between cycles to reuse its memory.
#[derive(Clone, Default, Debug)]
pub(super) struct Growth {
    pub(super) pool: Vec<Candidate>,
    /// Pool index of the first candidate of the last expansion.
    pub(super) level_start: usize,
    /// Number of candidates per row of the last expansion.
    row_width: usize,
    /// Selected pool indices.
    pub(super) order: Vec<usize>,
    /// Pool index of each row of `beam`.
    beam_pool: Vec<usize>,
    pub(super) beam: Beam,
    /// Paths of the previous beam; their memory is reused.
    old_paths: Vec<Vec<usize>>,
    n_cache_rows: usize,
    nodes: Vec<NodeId>,
}

impl Growth {
    /// Starts level 0 with the candidates below the root.
    pub(super) fn start(&mut self, top: &TopK, worth: impl Worth) -> Result<(), DraftError> {
        self.pool.clear();
        self.level_start = 0;
        self.n_cache_rows = 0;
        self.beam.paths.clear();
        check(top, 1)?;
        self.row_width = top.k;
        self.add_children(None, top.row(0), 0, &worth)
    }

    /// Writes the best candidates of the last expansion into `order`, best first.
    pub(super) fn rank_level(&mut self, width: usize) {
        self.rank(self.level_start, width);
    }

    /// Writes the best of all candidates into `order`, best first.
    pub(super) fn rank_pool(&mut self, most: usize) {
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

    /// Writes the candidates of the last expansion at `places` into `order`.
    pub(super) fn choose(&mut self, places: &[usize]) -> Result<(), DraftError> {
        let found = self.pool.len() - self.level_start;
        if let Some(&place) = places.iter().find(|&&place| place >= found) {
            return Err(DraftError::Place { place, found });
        }
        self.order.clear();
        self.order
            .extend(places.iter().map(|place| self.level_start + place));
        Ok(())
    }

    /// Makes the candidates in `order` the rows of the next expansion.
    pub(super) fn take_beam(&mut self, level: usize) {
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

    /// Adds the model's children of the beam's rows.
    pub(super) fn add_level(
        &mut self,
        level: usize,
        top: &TopK,
        worth: impl Worth,
    ) -> Result<(), DraftError> {
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
            let worth = worth(rank, log_prob).min(0.0);
            self.pool.push(Candidate {
                token,
                parent,
                rank: Some(rank),
                origin: None,
                log_prob,
                worth,
                score: parent_score + worth,
            });
        }
        Ok(())
    }

    /// Drops all candidates, for a cycle without the network.
    pub(super) fn clear(&mut self) {
        self.pool.clear();
        self.level_start = 0;
    }

    /// Adds free guesses. A guess that the network proposed as well gets the better of the two
    /// chances.
    ///
    /// # Arguments
    /// * `chances` - chance of each node except the root to be accepted if its parent is.
    pub(super) fn join(&mut self, guesses: &Guesses, chances: &[f64]) {
        let tree = &guesses.tree;
        let mut places: Vec<Option<usize>> = vec![None; tree.n_nodes()];
        let found = guesses.origins.iter().zip(chances);
        for (node, (&origin, &chance)) in tree.nodes().skip(1).zip(found) {
            let parent = tree.parent(node).and_then(|parent| places[parent.index()]);
            let token = tree.token(node);
            let worth = (chance.ln() as f32).min(0.0);
            let same =
                |candidate: &Candidate| candidate.parent == parent && candidate.token == token;
            let place = match self.pool.iter().position(same) {
                Some(place) => place,
                None => {
                    self.pool.push(Candidate {
                        token,
                        parent,
                        rank: None,
                        origin: None,
                        log_prob: worth,
                        worth,
                        score: 0.0,
                    });
                    self.pool.len() - 1
                }
            };
            let candidate = &mut self.pool[place];
            candidate.origin = Some(origin);
            candidate.worth = candidate.worth.max(worth);
            places[node.index()] = Some(place);
        }
        // Parents come first in the pool.
        for index in 0..self.pool.len() {
            let parent = self.pool[index].parent;
            let above = parent.map_or(0.0, |parent| self.pool[parent].score);
            self.pool[index].score = above + self.pool[index].worth;
        }
    }

    /// Returns the candidates in `order` as a tree, in pool order.
    pub(super) fn selected_tree(&mut self, root: TokenId) -> Result<TokenTree, DraftError> {
        self.order.sort_unstable();
        let mut tree = TokenTree::with_capacity(root, self.order.len() + 1);
        self.nodes.clear();
        self.nodes.resize(self.pool.len(), NodeId::ROOT);
        for &index in &self.order {
            let candidate = self.pool[index];
            // A parent scores at least as high as its child and comes earlier in the pool, so it
            // was selected, too, and is already in the tree.
            let parent = candidate
                .parent
                .map_or(NodeId::ROOT, |parent| self.nodes[parent]);
            self.nodes[index] = tree.push_scored(parent, candidate.token, candidate.log_prob)?;
        }
        Ok(tree)
    }
}

/// Orders by descending score; the earlier candidate comes first among equals.
fn best_first(pool: &[Candidate], a: usize, b: usize) -> Ordering {
    // Scores are never NaN. (`total_cmp` would put -0 below 0, and so could put a parent below its
    // child.)
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
