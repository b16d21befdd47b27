//! Tree mask: each node attends to its ancestors and to itself.

use super::{NodeId, TokenTree};

/// The nodes of one tree that each node may attend to; the committed prefix is visible to all
/// nodes.
///
/// Row-major `[nodes, nodes]`, `true` = may attend (the opposite of an attention mask in which
/// `true` means masked out).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TreeMask {
    n_nodes: usize,
    allowed: Vec<bool>,
}

impl TreeMask {
    pub(super) fn of(tree: &TokenTree) -> Self {
        let n_nodes = tree.n_nodes();
        let mut allowed = vec![false; n_nodes * n_nodes];
        for node in tree.nodes() {
            let start = node.index() * n_nodes;
            if let Some(parent) = tree.parent(node) {
                // Ancestors come first, so the parent's row is already complete.
                let parent_row = parent.index() * n_nodes;
                allowed.copy_within(parent_row..=parent_row + parent.index(), start);
            }
            allowed[start + node.index()] = true;
        }
        Self { n_nodes, allowed }
    }

    /// Returns the number of rows, which is also the number of columns.
    #[must_use]
    pub fn n_nodes(&self) -> usize {
        self.n_nodes
    }

    /// Returns all entries, row-major.
    #[must_use]
    pub fn as_slice(&self) -> &[bool] {
        &self.allowed
    }

    /// Returns the mask row of `node`: `true` for each node that it may attend to.
    #[must_use]
    pub fn row(&self, node: NodeId) -> &[bool] {
        &self.allowed[node.index() * self.n_nodes..][..self.n_nodes]
    }

    /// Returns `true` if `node` may attend to `other`.
    #[must_use]
    pub fn allows(&self, node: NodeId, other: NodeId) -> bool {
        self.row(node)[other.index()]
    }
}
