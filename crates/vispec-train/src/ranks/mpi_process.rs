//! Ranks that were started by an MPI launcher.

use mpi::collective::{CommunicatorCollectives as _, Root as _};
use mpi::datatype::PartitionMut;
use mpi::environment::Universe;
use mpi::point_to_point::{Destination as _, Source as _};
use mpi::request::WaitGuard;
use mpi::topology::{Communicator as _, SimpleCommunicator};
use mpi::{Count, Rank, Threading};

use super::communicator::Communicator;

/// Number of bytes in one message from a rank to the next.
const PIECE: usize = 1 << 20;

/// Number of bytes in one broadcast from the last rank. MPI counts in 32 bits, and splits
/// broadcasts itself.
const SPREAD: usize = 1 << 28;

/// An error in joining the other processes.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// MPI was already initialised in this process.
    #[error("MPI was already initialised in this process")]
    Again,
    /// The launcher and the library belong to different MPI implementations.
    #[error(
        "the launcher started {launched} processes, but MPI sees {found}: the program was built \
         with another MPI than this launcher's"
    )]
    OtherLauncher {
        /// Number of processes that the launcher reports.
        launched: usize,
        /// Number of processes that MPI reports.
        found: usize,
    },
}

/// This process among those of an MPI launcher.
///
/// By default, MPI ends all processes if one of them dies or becomes unreachable. A panic ends all
/// processes, too.
pub struct MpiProcess {
    world: SimpleCommunicator,
    /// MPI is finalised when this is dropped.
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
    /// Joins the other processes; `launched` is the number of processes including this one. Must be
    /// called once, by the main thread, which must also make all later calls.
    ///
    /// # Errors
    /// [`JoinError`] if MPI was already initialised, or does not report `launched` processes.
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
        // Finalising would wait for ranks that are waiting for this one.
        if std::thread::panicking() {
            self.abandon();
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "MPI counts ranks and bytes in 32 bits"
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

    /// Also ends this process, with exit code 1.
    fn abandon(&self) {
        self.world.abort(1)
    }
}
