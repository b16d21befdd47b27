//! Ranks that an MPI launcher started.

use mpi::collective::{CommunicatorCollectives as _, Root as _};
use mpi::datatype::PartitionMut;
use mpi::environment::Universe;
use mpi::point_to_point::{Destination as _, Source as _};
use mpi::request::WaitGuard;
use mpi::topology::{Communicator as _, SimpleCommunicator};
use mpi::{Count, Rank, Threading};

use super::communicator::Communicator;

/// Bytes that go from one rank to the next at once.
const PIECE: usize = 1 << 20;

/// Bytes that go from the last rank to all at once: MPI counts in 32 bits, and cuts them up itself.
const SPREAD: usize = 1 << 28;

/// Why a process could not join the others.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// MPI was started in this process before.
    #[error("MPI was initialised before in this process")]
    Again,
    /// The launcher and the library are not of one MPI.
    #[error(
        "the launcher started {launched} processes, but MPI sees {found}: the program was built \
         with another MPI than this launcher's"
    )]
    OtherLauncher {
        /// Processes that the launcher says it started.
        launched: usize,
        /// Processes that MPI knows.
        found: usize,
    },
}

/// This process among those of an MPI launcher.
///
/// Unless it says otherwise, MPI ends all processes if one of them dies or cannot be reached. A panic
/// ends them, too.
pub struct MpiProcess {
    world: SimpleCommunicator,
    /// MPI is finalised when this goes.
    _universe: Universe,
}

impl std::fmt::Debug for MpiProcess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MpiProcess")
            .field("rank", &self.rank())
            .field("count", &self.count())
            .finish_non_exhaustive()
    }
}

impl MpiProcess {
    /// Joins the other processes, of which there are `launched` with this one. Once in a process,
    /// by its main thread, which makes all calls.
    ///
    /// # Errors
    /// [`JoinError`].
    pub fn join(launched: usize) -> Result<Self, JoinError> {
        let (universe, _) =
            mpi::initialize_with_threading(Threading::Funneled).ok_or(JoinError::Again)?;
        let process = Self {
            world: universe.world(),
            _universe: universe,
        };
        match process.count() {
            found if found == launched => Ok(process),
            found => Err(JoinError::OtherLauncher { launched, found }),
        }
    }
}

impl Drop for MpiProcess {
    fn drop(&mut self) {
        // Finalising would wait for ranks that wait for this one.
        if std::thread::panicking() {
            self.abandon();
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "MPI counts ranks and what they say in 32 bits"
)]
impl Communicator for MpiProcess {
    fn rank(&self) -> usize {
        self.world.rank() as usize
    }

    fn count(&self) -> usize {
        self.world.size() as usize
    }

    fn gather(&self, own: &[u8]) -> Vec<Vec<u8>> {
        let mut lens = vec![0; self.count()];
        self.world
            .all_gather_into(&(own.len() as Count), &mut lens[..]);
        let starts: Vec<Count> = lens
            .iter()
            .scan(0, |end, len| {
                let start = *end;
                *end += len;
                Some(start)
            })
            .collect();
        let mut all = vec![0; lens.iter().sum::<Count>() as usize];
        let mut parts = PartitionMut::new(&mut all[..], &lens[..], &starts[..]);
        self.world.all_gather_varcount_into(own, &mut parts);
        let part = |(&start, &len): (&Count, &Count)| {
            let start = start as usize;
            all[start..start + len as usize].to_vec()
        };
        starts.iter().zip(&lens).map(part).collect()
    }

    fn chain(&self, bytes: &mut [u8], add: &mut dyn FnMut(usize, &mut [u8])) {
        let (rank, last) = (self.world.rank(), self.world.size() as Rank - 1);
        let before = (rank > 0).then(|| self.world.process_at_rank(rank - 1));
        let next = (rank < last).then(|| self.world.process_at_rank(rank + 1));
        mpi::request::scope(|scope| {
            let mut sent = Vec::new();
            let mut start = 0;
            for piece in bytes.chunks_mut(PIECE) {
                if let Some(before) = &before {
                    before.receive_into(piece);
                }
                add(start, piece);
                start += piece.len();
                if let Some(next) = &next {
                    sent.push(WaitGuard::from(next.immediate_send(scope, &*piece)));
                }
            }
        });
        let last = self.world.process_at_rank(last);
        for piece in bytes.chunks_mut(SPREAD) {
            last.broadcast_into(piece);
        }
    }

    /// Ends this process, too, with exit code 1.
    fn abandon(&self) {
        self.world.abort(1)
    }
}
