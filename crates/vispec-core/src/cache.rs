//! The part of a target's KV cache that the decoding cycle needs.

use crate::NodeId;

/// KV cache of a target model; one row per token.
pub trait KvCache {
    /// Returns the number of rows.
    fn len(&self) -> usize;

    /// Returns `true` if the cache holds no rows.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps one path of the rows that a verify pass appended after `base`.
    ///
    /// The rows `base + node.index()` of the nodes in `path` become rows `base..base + path.len()`;
    /// all later rows are dropped. `path` starts at the root, and its indices ascend, so rows can
    /// be moved in place one by one.
    fn keep_path(&mut self, base: usize, path: &[NodeId]);

    /// Drops all rows after the first `len`.
    fn truncate(&mut self, len: usize);
}
