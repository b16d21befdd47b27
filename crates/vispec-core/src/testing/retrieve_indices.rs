//! Retrieve indices: the root-to-leaf paths of a tree as a padded table.

use crate::tree::{NodeId, TokenTree};

/// Root-to-leaf paths, `[leaves, max_depth + 1]`, padded on the right with
/// [`PADDING`](Self::PADDING).
///
/// The acceptance rules of this crate walk the tree and do not need the table; it exists only for
/// comparison with the reference implementation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RetrieveIndices {
    width: usize,
    indices: Vec<i64>,
}

impl RetrieveIndices {
    /// Entry after the end of a path.
    pub const PADDING: i64 = -1;

    /// Returns the paths of a tree.
    #[must_use]
    pub fn of(tree: &TokenTree) -> Self {
        let width = tree.max_depth() + 1;
        let mut is_leaf = vec![true; tree.n_nodes()];
        for node in tree.nodes() {
            if let Some(parent) = tree.parent(node) {
                is_leaf[parent.index()] = false;
            }
        }
        let mut indices = Vec::new();
        for leaf in tree.nodes().filter(|leaf| is_leaf[leaf.index()]) {
            let start = indices.len();
            indices.resize(start + width, Self::PADDING);
            let mut node = Some(leaf);
            while let Some(current) = node {
                let depth = tree.depths()[current.index()] as usize;
                indices[start + depth] = current.index() as i64;
                node = tree.parent(current);
            }
        }
        Self { width, indices }
    }

    /// Returns the number of rows.
    #[must_use]
    pub fn n_leaves(&self) -> usize {
        self.indices.len() / self.width
    }

    /// Returns the length of each row: the number of nodes on the longest path, the root included.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Returns all entries, row-major.
    #[must_use]
    pub fn as_slice(&self) -> &[i64] {
        &self.indices
    }

    /// Returns the rows with their padding.
    pub fn rows(&self) -> impl Iterator<Item = &[i64]> {
        self.indices.chunks_exact(self.width)
    }

    /// Returns the nodes of row `leaf` without padding, root first.
    pub fn path(&self, leaf: usize) -> impl Iterator<Item = NodeId> + '_ {
        self.indices[leaf * self.width..][..self.width]
            .iter()
            .filter_map(|&index| usize::try_from(index).ok())
            .map(NodeId::from_index)
    }

    /// Returns the rows in lexicographic order with padding last. This is upstream's order when it
    /// samples: siblings are then tried in ascending node order.
    #[must_use]
    pub fn sorted(&self) -> Self {
        let mut rows: Vec<&[i64]> = self.rows().collect();
        // Padding is negative, so as an unsigned number it is larger than any node.
        rows.sort_by_key(|row| {
            row.iter()
                .map(|&index| index.cast_unsigned())
                .collect::<Vec<_>>()
        });
        Self {
            width: self.width,
            indices: rows.concat(),
        }
    }
}
