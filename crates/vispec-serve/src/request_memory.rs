//! A memory budget shared by all requests, from the first byte of a body to the end of the answer.
//!
//! It counts the bytes of bodies as they arrive, never those that a head announces, and the bytes
//! of fetched images. A parsed request takes about as much memory as its body, so the body's bytes
//! stay counted until the request is dropped. The memory that requests leave is available for kept
//! images.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::client::Client;
use crate::limits::RequestLimits;

/// Bytes of each request that are not counted, so that requests without images never depend on what
/// others hold. The limit on connections also bounds these bytes.
const UNCOUNTED: usize = 64 << 10;

/// Why a request cannot get more memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// All requests together have reached this limit.
    Full(usize),
    /// The requests of this client have reached this limit.
    ClientFull(usize),
}

#[derive(Debug, Default)]
struct Held {
    all: usize,
    by_client: HashMap<Client, usize>,
}

/// The memory budget.
pub(crate) struct RequestMemory {
    held: Mutex<Held>,
    max_all: usize,
    max_client: usize,
    /// Called with the number of bytes that requests leave.
    tell_spare: Box<dyn Fn(usize) + Send + Sync>,
}

impl RequestMemory {
    /// Creates an unused budget. `tell_spare` is called with the number of bytes that requests
    /// leave, now and whenever it changes.
    pub(crate) fn new(
        limits: &RequestLimits,
        tell_spare: impl Fn(usize) + Send + Sync + 'static,
    ) -> Arc<Self> {
        tell_spare(limits.max_memory);
        Arc::new(Self {
            held: Mutex::default(),
            max_all: limits.max_memory,
            max_client: limits.max_client_memory,
            tell_spare: Box::new(tell_spare),
        })
    }

    /// Counted bytes that requests currently hold.
    pub(crate) fn held(&self) -> usize {
        self.lock().all
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        // Nothing panics while holding the lock, and every state is valid.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, client: Client, bytes: usize) -> Result<(), NoRoom> {
        let mut held = self.lock();
        let of_client = held.by_client.get(&client).copied().unwrap_or(0);
        if bytes > self.max_client.saturating_sub(of_client) {
            return Err(NoRoom::ClientFull(self.max_client));
        }
        if bytes > self.max_all.saturating_sub(held.all) {
            return Err(NoRoom::Full(self.max_all));
        }
        held.all += bytes;
        held.by_client.insert(client, of_client + bytes);
        (self.tell_spare)(self.max_all - held.all);
        Ok(())
    }

    fn give_back(&self, client: Client, bytes: usize) {
        let mut held = self.lock();
        held.all -= bytes;
        if let Some(of_client) = held.by_client.get_mut(&client) {
            *of_client -= bytes;
            if *of_client == 0 {
                held.by_client.remove(&client);
            }
        }
        (self.tell_spare)(self.max_all - held.all);
    }
}

/// The memory that one request holds; dropping it frees the memory.
pub(crate) struct Room {
    memory: Arc<RequestMemory>,
    client: Client,
    bytes: usize,
    counted: usize,
}

impl Room {
    /// Holds nothing at first.
    pub(crate) fn new(memory: &Arc<RequestMemory>, client: Client) -> Self {
        Self {
            memory: Arc::clone(memory),
            client,
            bytes: 0,
            counted: 0,
        }
    }

    /// Reserves `bytes` more.
    ///
    /// # Errors
    /// [`NoRoom`] immediately if there is no room: if requests waited while they hold part of their
    /// bodies, they could wait for each other.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let all = self.bytes + bytes;
        let counted = all.saturating_sub(UNCOUNTED);
        if counted > self.counted {
            self.memory.take(self.client, counted - self.counted)?;
        }
        (self.bytes, self.counted) = (all, counted);
        Ok(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if self.counted > 0 {
            self.memory.give_back(self.client, self.counted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(last: u8) -> Client {
        Client::from([192, 0, 2, last])
    }

    fn memory() -> Arc<RequestMemory> {
        memory_beside(|_| {})
    }

    fn memory_beside(tell_spare: impl Fn(usize) + Send + Sync + 'static) -> Arc<RequestMemory> {
        let limits = RequestLimits {
            max_memory: 300,
            max_client_memory: 200,
            ..RequestLimits::default()
        };
        RequestMemory::new(&limits, tell_spare)
    }

    fn filled(memory: &Arc<RequestMemory>, last: u8, bytes: usize) -> Result<Room, NoRoom> {
        let mut room = Room::new(memory, client(last));
        room.grow(UNCOUNTED)?;
        room.grow(bytes)?;
        Ok(room)
    }

    #[test]
    fn what_is_dropped_is_free_again() {
        let memory = memory();
        let room = filled(&memory, 1, 150).unwrap();
        assert_eq!(memory.held(), 150);
        assert_eq!(filled(&memory, 1, 51).err(), Some(NoRoom::ClientFull(200)));
        let other = filled(&memory, 2, 150).unwrap();
        assert_eq!(filled(&memory, 3, 1).err(), Some(NoRoom::Full(300)));
        drop(room);
        filled(&memory, 3, 150).unwrap();
        drop(other);
        assert_eq!(memory.held(), 0);
        assert!(memory.lock().by_client.is_empty());
    }

    #[test]
    fn what_requests_leave_is_told() {
        let spare = Arc::new(Mutex::new(0));
        let told = Arc::clone(&spare);
        let memory = memory_beside(move |bytes| *told.lock().unwrap() = bytes);
        assert_eq!(*spare.lock().unwrap(), 300);
        let room = filled(&memory, 1, 150).unwrap();
        assert_eq!(*spare.lock().unwrap(), 150);
        assert!(filled(&memory, 1, 51).is_err());
        assert_eq!(*spare.lock().unwrap(), 150);
        drop(room);
        assert_eq!(*spare.lock().unwrap(), 300);
    }

    #[test]
    fn small_requests_need_nothing_that_others_hold() {
        let memory = memory();
        let _all = [1, 2].map(|last| filled(&memory, last, 150).unwrap());
        let mut rooms: Vec<Room> = (0..100).map(|_| Room::new(&memory, client(1))).collect();
        for room in &mut rooms {
            room.grow(UNCOUNTED).unwrap();
            assert!(room.grow(1).is_err());
        }
    }
}
