//! What a pass carries besides one sequence.

/// What a pass of the target carries, seen from one of its sequences.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PassLoad {
    /// Sequences that decode in the pass, this one included.
    pub sequences: usize,
    /// Rows of the pass that are there whatever is drafted, without this sequence's root: roots of
    /// the other sequences and chunks of prompts.
    pub rows: usize,
    /// Sequences whose prompts are being read: whoever waits for a first token waits for the pass,
    /// too.
    pub reading: usize,
}

impl PassLoad {
    /// The pass is this sequence's alone.
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
