//! Tree shape: number of levels, beam width, and number of nodes kept.

/// Error of an impossible [`TreeShape`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShapeError {
    /// No node was requested; a tree has at least its root.
    #[error("total tokens must be at least 1, the root")]
    NoRoot,
    /// Top-k is 0, so no level could hold a candidate.
    #[error("top-k must be at least 1")]
    ZeroTopK,
    /// The tree has no level.
    #[error("a tree shape needs at least one level")]
    NoLevel,
    /// More nodes were requested than there are candidates.
    #[error(
        "{draft_tokens} draft tokens were requested, but depth and top-k give only {candidates} \
         candidates"
    )]
    TooFewCandidates {
        /// Number of nodes requested below the root.
        draft_tokens: usize,
        /// Number of candidates to choose from.
        candidates: usize,
    },
}

/// Shape of the trees that [`DynamicTreeDrafter`](crate::DynamicTreeDrafter) grows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct TreeShape {
    levels: usize,
    beam_width: usize,
    max_nodes: usize,
}

impl TreeShape {
    /// Creates a shape with `levels` levels below the root. On each level, a beam of `beam_width`
    /// nodes is expanded, and each node gets `beam_width` children. The tree is reduced to the best
    /// `max_nodes` nodes, the root included.
    ///
    /// # Errors
    /// [`ShapeError`] if a number is zero or there are fewer candidates than `max_nodes - 1`.
    pub fn new(levels: usize, beam_width: usize, max_nodes: usize) -> Result<Self, ShapeError> {
        if max_nodes == 0 {
            return Err(ShapeError::NoRoot);
        }
        if beam_width == 0 {
            return Err(ShapeError::ZeroTopK);
        }
        if levels == 0 {
            return Err(ShapeError::NoLevel);
        }
        let per_level = beam_width.saturating_mul(beam_width);
        let candidates = (levels - 1)
            .saturating_mul(per_level)
            .saturating_add(beam_width);
        let draft_tokens = max_nodes - 1;
        if draft_tokens > candidates {
            return Err(ShapeError::TooFewCandidates {
                draft_tokens,
                candidates,
            });
        }
        Ok(Self {
            levels,
            beam_width,
            max_nodes,
        })
    }

    /// Creates a shape from upstream's `depth`, `top_k` and `total_token`: `depth` expansions after
    /// the first level (so `depth + 1` levels), and `total_token` nodes including the root.
    ///
    /// # Errors
    /// [`ShapeError`] if a number is zero (a `depth` of 0 is legal) or
    /// `total_token - 1 > top_k + depth * top_k^2`.
    pub fn from_upstream(
        depth: usize,
        top_k: usize,
        total_token: usize,
    ) -> Result<Self, ShapeError> {
        Self::new(depth.saturating_add(1), top_k, total_token)
    }

    /// Returns the number of levels below the root: upstream's `depth + 1`.
    #[must_use]
    pub fn levels(&self) -> usize {
        self.levels
    }

    /// Returns the number of nodes expanded per level, and of children considered per node:
    /// upstream's `top_k`.
    #[must_use]
    pub fn beam_width(&self) -> usize {
        self.beam_width
    }

    /// Returns the number of nodes kept, the root included: upstream's `total_token`.
    #[must_use]
    pub fn max_nodes(&self) -> usize {
        self.max_nodes
    }
}

impl Default for TreeShape {
    /// Returns upstream's defaults: depth 3 (4 levels), top-k 8, 30 nodes.
    fn default() -> Self {
        Self {
            levels: 4,
            beam_width: 8,
            max_nodes: 30,
        }
    }
}
