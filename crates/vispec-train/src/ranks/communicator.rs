//! Communication between ranks.

use std::fmt::Debug;

/// The way in which the ranks of a run communicate.
///
/// Calls are collective: all ranks make the same calls in the same order, and a call waits for the
/// other ranks as far as necessary. An implementation that loses a rank ends the process, because
/// the remaining ranks cannot continue.
pub trait Communicator: Debug {
    /// Returns the number of this rank, from 0.
    fn rank(&self) -> usize;

    /// Returns the number of ranks.
    fn count(&self) -> usize;

    /// Returns the messages of all ranks, in the order of ranks.
    fn gather(&self, own: &[u8]) -> Vec<Vec<u8>>;

    /// Passes `bytes` through all ranks in order. Each rank adds its part to those of the ranks
    /// before it; then all ranks receive the result of the last one.
    ///
    /// The bytes are passed in pieces, so that a rank can work on a piece while the next rank works
    /// on the one before. The length of each piece but the last is a multiple of 8 bytes. `add` is
    /// called with the offset of a piece and its content from the rank before; on the first rank,
    /// with the content of `bytes`.
    fn chain(&self, bytes: &mut [u8], add: &mut dyn FnMut(usize, &mut [u8]));

    /// Ends the other ranks, because this one failed without their knowing. They may be waiting for
    /// it.
    fn abandon(&self);
}

/// A run in one process.
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
