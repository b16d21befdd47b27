//! What ranks need to be able to do with each other.

use std::fmt::Debug;

/// How the ranks of a run reach each other.
///
/// Calls are collective: all ranks make the same ones in the same order, and a call returns when the
/// others have made it as far as it needs them. An implementation that loses a rank ends the process,
/// because what is left cannot go on.
pub trait Communicator: Debug {
    /// Number of this rank, from 0.
    fn rank(&self) -> usize;

    /// Number of ranks.
    fn count(&self) -> usize;

    /// What each rank says, in the order of ranks.
    fn gather(&self, own: &[u8]) -> Vec<Vec<u8>>;

    /// Hands `bytes` through all ranks in order, so that each adds its part to what those before it
    /// have, and gives all of them what the last one has.
    ///
    /// It goes in pieces, each a multiple of 8 bytes but for the last, so that a rank works on one
    /// while the next rank works on the one before. `add` gets the place of a piece, and the piece as
    /// the rank before left it; on the first rank, as it is here.
    fn chain(&self, bytes: &mut [u8], add: &mut dyn FnMut(usize, &mut [u8]));

    /// Ends the other ranks, because this one failed in a way that they do not know of. They may wait
    /// for it.
    fn abandon(&self);
}

/// One process by itself.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct OneProcess;

impl Communicator for OneProcess {
    fn rank(&self) -> usize {
        0
    }

    fn count(&self) -> usize {
        1
    }

    fn gather(&self, own: &[u8]) -> Vec<Vec<u8>> {
        vec![own.to_vec()]
    }

    fn chain(&self, bytes: &mut [u8], add: &mut dyn FnMut(usize, &mut [u8])) {
        add(0, bytes);
    }

    fn abandon(&self) {}
}
