//! The token tree of one cycle: draft tokens below a root, with parents before children.

mod mask;
mod shape;

pub use mask::TreeMask;
pub use shape::{ShapeError, TreeShape};

use crate::TokenId;

/// Node of a [`TokenTree`]; also the row of that node in every tensor of the verify pass.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct NodeId(u32);

impl NodeId {
    /// The root, row 0.
    pub const ROOT: Self = Self(0);

    /// Returns the node in row `index`.
    ///
    /// # Panics
    /// If `index` does not fit in 32 bits.
    #[must_use]
    pub fn from_index(index: usize) -> Self {
        Self(u32::try_from(index).expect("a token tree has fewer than 2^32 nodes"))
    }

    /// Returns the row of this node; 0 for the root.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Error of an unusable token tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// The parent passed to `push` is not a node of this tree.
    #[error("parent {parent} is not a node of a tree of {n_nodes} nodes")]
    UnknownParent {
        /// Index of the requested parent.
        parent: usize,
        /// Number of nodes in the tree.
        n_nodes: usize,
    },
    /// Two children of one node would hold the same token.
    #[error("node {parent} already has a child with token {token}")]
    DuplicateSibling {
        /// Index of the parent.
        parent: usize,
        /// The token that both children would hold.
        token: TokenId,
    },
    /// The tree already holds the maximum number of nodes that a [`NodeId`] can address.
    #[error("a token tree cannot hold more nodes")]
    Full,
    /// The root of a drafter's tree is not the last emitted token.
    #[error("the root of the draft tree is token {found}, expected {expected}")]
    WrongRoot {
        /// The last emitted token.
        expected: TokenId,
        /// The root of the tree.
        found: TokenId,
    },
}

/// Draft tokens of one cycle.
///
/// The root is the last emitted token: the target chose it, but it is not yet in the target's
/// cache. Parents precede children, and siblings hold distinct tokens, so a token sequence
/// identifies at most one path.
#[derive(Clone, PartialEq, Debug)]
pub struct TokenTree {
    tokens: Vec<TokenId>,
    parents: Vec<NodeId>,
    depths: Vec<u32>,
    log_probs: Vec<Option<f32>>,
}

impl TokenTree {
    /// Creates a tree that holds only its root.
    #[must_use]
    pub fn new(root: TokenId) -> Self {
        Self::with_capacity(root, 1)
    }

    /// Creates a tree that holds only its root, with capacity for `n_nodes` nodes.
    #[must_use]
    pub fn with_capacity(root: TokenId, n_nodes: usize) -> Self {
        let mut tree = Self {
            tokens: Vec::with_capacity(n_nodes),
            parents: Vec::with_capacity(n_nodes),
            depths: Vec::with_capacity(n_nodes),
            log_probs: Vec::with_capacity(n_nodes),
        };
        tree.append(NodeId::ROOT, root, 0, None);
        tree
    }

    /// Adds a child of `parent`.
    ///
    /// # Errors
    /// [`TreeError`] if `parent` is not a node of this tree or already has a child with `token`.
    pub fn push(&mut self, parent: NodeId, token: TokenId) -> Result<NodeId, TreeError> {
        self.insert(parent, token, None)
    }

    /// Adds a child of `parent` with the draft's log-probability of `token` after `parent`.
    ///
    /// # Errors
    /// Same as [`push`](Self::push).
    pub fn push_scored(
        &mut self,
        parent: NodeId,
        token: TokenId,
        log_prob: f32,
    ) -> Result<NodeId, TreeError> {
        self.insert(parent, token, Some(log_prob))
    }

    fn insert(
        &mut self,
        parent: NodeId,
        token: TokenId,
        log_prob: Option<f32>,
    ) -> Result<NodeId, TreeError> {
        let n_nodes = self.n_nodes();
        if parent.index() >= n_nodes {
            return Err(TreeError::UnknownParent {
                parent: parent.index(),
                n_nodes,
            });
        }
        if self.child_with(parent, token).is_some() {
            return Err(TreeError::DuplicateSibling {
                parent: parent.index(),
                token,
            });
        }
        if n_nodes >= u32::MAX as usize {
            return Err(TreeError::Full);
        }
        let depth = self.depths[parent.index()] + 1;
        self.append(parent, token, depth, log_prob);
        Ok(NodeId::from_index(n_nodes))
    }

    fn append(&mut self, parent: NodeId, token: TokenId, depth: u32, log_prob: Option<f32>) {
        self.tokens.push(token);
        self.parents.push(parent);
        self.depths.push(depth);
        self.log_probs.push(log_prob);
    }

    /// Returns the number of nodes, the root included.
    #[must_use]
    pub fn n_nodes(&self) -> usize {
        self.tokens.len()
    }

    /// Returns all nodes in row order.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + use<> {
        (0..self.n_nodes()).map(NodeId::from_index)
    }

    /// Returns the token of each node, `[nodes]`.
    #[must_use]
    pub fn tokens(&self) -> &[TokenId] {
        &self.tokens
    }

    /// Returns the token of one node.
    #[must_use]
    pub fn token(&self, node: NodeId) -> TokenId {
        self.tokens[node.index()]
    }

    /// Returns the depth of each node, `[nodes]`; 0 for the root. Upstream calls these "tree
    /// position ids".
    #[must_use]
    pub fn depths(&self) -> &[u32] {
        &self.depths
    }

    /// Returns the largest depth; 0 for a tree that holds only its root.
    #[must_use]
    pub fn max_depth(&self) -> usize {
        self.depths.iter().max().map_or(0, |&depth| depth as usize)
    }

    /// Returns the draft's log-probability of this node's token after its parent, if recorded.
    #[must_use]
    pub fn log_prob(&self, node: NodeId) -> Option<f32> {
        self.log_probs[node.index()]
    }

    /// Returns the parent of a node; `None` for the root.
    #[must_use]
    pub fn parent(&self, node: NodeId) -> Option<NodeId> {
        (node != NodeId::ROOT).then(|| self.parents[node.index()])
    }

    /// Returns the children of a node in ascending order.
    pub fn children(&self, node: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        // Parents precede children, so children come after `node`.
        let first = node.index() + 1;
        self.parents
            .iter()
            .enumerate()
            .skip(first)
            .filter(move |&(_, &parent)| parent == node)
            .map(|(index, _)| NodeId::from_index(index))
    }

    /// Returns the child of `node` that holds `token`.
    #[must_use]
    pub fn child_with(&self, node: NodeId, token: TokenId) -> Option<NodeId> {
        self.children(node)
            .find(|&child| self.token(child) == token)
    }

    /// Returns the nodes from the root to `node`, both included.
    #[must_use]
    pub fn path(&self, node: NodeId) -> Vec<NodeId> {
        let mut path = Vec::with_capacity(self.depths[node.index()] as usize + 1);
        path.push(node);
        let mut current = node;
        while let Some(parent) = self.parent(current) {
            path.push(parent);
            current = parent;
        }
        path.reverse();
        path
    }

    /// Returns the outcome of a verified tree: each node below the root whose parent was accepted,
    /// and whether the node itself was accepted. `accepted` are the accepted tokens below the root.
    pub(crate) fn outcomes(
        &self,
        accepted: &[TokenId],
    ) -> impl Iterator<Item = (NodeId, bool)> + use<'_> {
        let mut on_path = vec![false; self.n_nodes()];
        on_path[0] = true;
        let accepted = accepted.to_vec();
        self.nodes().skip(1).filter_map(move |node| {
            let parent = self.parent(node).map_or(0, NodeId::index);
            if !on_path[parent] {
                return None;
            }
            let depth = self.depths()[node.index()] as usize;
            let hit = accepted.get(depth - 1) == Some(&self.token(node));
            on_path[node.index()] = hit;
            Some((node, hit))
        })
    }

    /// Returns the tree mask; `true` = may attend.
    #[must_use]
    pub fn mask(&self) -> TreeMask {
        TreeMask::of(self)
    }

    /// Drops every node deeper than `max_depth`; the others keep their order.
    pub fn truncate_depth(&mut self, max_depth: usize) {
        if self.max_depth() <= max_depth {
            return;
        }
        let mut kept = 0;
        let mut moved_to = vec![NodeId::ROOT; self.n_nodes()];
        for index in 0..self.n_nodes() {
            if self.depths[index] as usize > max_depth {
                continue;
            }
            // The parent of a kept node is shallower, so it was kept and has already been moved.
            self.parents[kept] = moved_to[self.parents[index].index()];
            self.tokens[kept] = self.tokens[index];
            self.depths[kept] = self.depths[index];
            self.log_probs[kept] = self.log_probs[index];
            moved_to[index] = NodeId::from_index(kept);
            kept += 1;
        }
        self.tokens.truncate(kept);
        self.parents.truncate(kept);
        self.depths.truncate(kept);
        self.log_probs.truncate(kept);
    }
}
