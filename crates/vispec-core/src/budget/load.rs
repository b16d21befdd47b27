//! The load of a pass besides one sequence.

/// The load of a pass of the target, as seen by one of its sequences.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PassLoad {
    /// Number of sequences that decode in the pass, this one included.
    pub sequences: usize,
    /// Number of rows that do not depend on the drafts, without this sequence's root: the roots of
    /// the other sequences and chunks of prompts.
    pub rows: usize,
    /// Number of sequences whose prompts are being read; their first tokens wait for the pass, too.
    pub reading: usize,
}

impl PassLoad {
    /// A pass that carries only this sequence.
    pub const ALONE: Self = Self {
        sequences: 1,
        rows: 0,
        reading: 0,
    };
}

impl Default for PassLoad {
    fn default() -> Self {
        Self::ALONE
    }
}
