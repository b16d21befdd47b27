//! What the cycle needs of a target's key/value cache.

use crate::NodeId;

/// Key/value cache of a target model; one row per token.
pub trait KvCache {
    /// Number of rows.
    fn len(&self) -> usize;

    /// Whether there is no row.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps one path of the rows that a verify pass appended after `base`.
    ///
    /// Rows `base + node.index()` of the nodes in `path` (a root path, so the root's row is among
    /// them) become rows `base..base + path.len()`; all rows behind are dropped.
    /// Indices in `path` ascend, so rows can be moved one by one in place.
    fn keep_path(&mut self, base: usize, path: &[NodeId]);

    /// Drops all rows behind the first `len`.
    fn truncate(&mut self, len: usize);
}
