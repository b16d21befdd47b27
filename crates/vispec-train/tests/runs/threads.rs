//! Ranks that run as threads of the test.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier, Mutex};

use vispec_train::ranks::{Communicator, Ranks};

/// Number of bytes per piece: small, so that pieces end within parameters.
const PIECE: usize = 1000;

/// State shared by all ranks.
#[derive(Debug)]
struct Room {
    barrier: Barrier,
    said: Mutex<Vec<Vec<u8>>>,
}

impl Room {
    /// Returns the messages of all ranks.
    fn gather(&self, rank: usize, own: &[u8]) -> Vec<Vec<u8>> {
        self.said.lock().unwrap()[rank] = own.to_vec();
        self.barrier.wait();
        let said = self.said.lock().unwrap().clone();
        self.barrier.wait();
        said
    }
}

/// A rank that runs as a thread.
#[derive(Debug)]
pub(crate) struct ThreadRank {
    rank: usize,
    count: usize,
    room: Arc<Room>,
    before: Option<Receiver<Vec<u8>>>,
    next: Option<Sender<Vec<u8>>>,
}

impl Communicator for ThreadRank {
    fn rank(&self) -> usize {
        self.rank
    }

    fn count(&self) -> usize {
        self.count
    }

    fn gather(&self, own: &[u8]) -> Vec<Vec<u8>> {
        self.room.gather(self.rank, own)
    }

    fn chain(&self, bytes: &mut [u8], add: &mut dyn FnMut(usize, &mut [u8])) {
        for (number, piece) in bytes.chunks_mut(PIECE).enumerate() {
            if let Some(before) = &self.before {
                piece.copy_from_slice(&before.recv().unwrap());
            }
            add(number * PIECE, piece);
            if let Some(next) = &self.next {
                next.send(piece.to_vec()).unwrap();
            }
        }
        let all = self.gather(bytes);
        bytes.copy_from_slice(&all[self.count - 1]);
    }

    fn abandon(&self) {}
}

/// Runs `work` on each of `count` ranks, and returns the results in order.
pub(crate) fn on_ranks<R: Send>(count: usize, work: impl Fn(Ranks) -> R + Sync) -> Vec<R> {
    on_threads(count, |rank| work(Ranks::new(rank)))
}

/// Like [`on_ranks`], but passes the bare [`ThreadRank`], which `work` can wrap.
pub(crate) fn on_threads<R: Send>(count: usize, work: impl Fn(ThreadRank) -> R + Sync) -> Vec<R> {
    let room = Arc::new(Room {
        barrier: Barrier::new(count),
        said: Mutex::new(vec![Vec::new(); count]),
    });
    let (senders, receivers): (Vec<_>, Vec<_>) = (1..count).map(|_| channel()).unzip();
    let mut senders: Vec<_> = senders.into_iter().map(Some).chain([None]).collect();
    let receivers = [None].into_iter().chain(receivers.into_iter().map(Some));
    std::thread::scope(|scope| {
        let start = |(rank, before): (usize, Option<Receiver<Vec<u8>>>)| {
            let next = senders[rank].take();
            let (room, work) = (Arc::clone(&room), &work);
            scope.spawn(move || {
                work(ThreadRank {
                    rank,
                    count,
                    room,
                    before,
                    next,
                })
            })
        };
        let handles: Vec<_> = receivers.enumerate().map(start).collect();
        let joined = handles.into_iter().map(|handle| handle.join().unwrap());
        joined.collect()
    })
}
