//! Turns of clients: equal shares of the places for clients that ask at the same time.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long a client counts after its last request has ended, so that a client which sends one
/// request after the other finds a free place each time.
const RECENT: Duration = Duration::from_secs(2);

/// Clients that have requests or had some recently.
#[derive(Debug, Default)]
pub(super) struct Turns {
    clients: HashMap<u64, Client>,
    /// Number of turns so far.
    clock: u64,
}

#[derive(Debug)]
struct Client {
    running: usize,
    last_seen: Instant,
    /// Value of the clock at the client's last turn.
    last_turn: u64,
}

impl Turns {
    /// Records that a client has a request.
    pub(super) fn note_seen(&mut self, client: u64, now: Instant) {
        self.of(client, now).last_seen = now;
    }

    /// Records that a request of a client is prepared now.
    pub(super) fn note_turn(&mut self, client: u64, now: Instant) {
        self.clock += 1;
        self.of(client, now).last_turn = self.clock;
    }

    pub(super) fn note_began(&mut self, client: u64, now: Instant) {
        self.of(client, now).running += 1;
    }

    pub(super) fn note_ended(&mut self, client: u64, now: Instant) {
        let client = self.of(client, now);
        client.running = client.running.saturating_sub(1);
        client.last_seen = now;
    }

    fn of(&mut self, client: u64, now: Instant) -> &mut Client {
        self.clients.entry(client).or_insert(Client {
            running: 0,
            last_seen: now,
            last_turn: 0,
        })
    }

    /// Returns the number of running answers of a client.
    pub(super) fn running(&self, client: u64) -> usize {
        self.clients.get(&client).map_or(0, |client| client.running)
    }

    /// Returns when a client had its last turn. The client whose turn was longest ago comes first.
    pub(super) fn last_turn(&self, client: u64) -> u64 {
        self.clients
            .get(&client)
            .map_or(0, |client| client.last_turn)
    }

    /// Returns each client's share of `places`, at least one. Forgets clients without recent
    /// requests.
    pub(super) fn share(&mut self, places: usize, now: Instant) -> usize {
        let recent = |client: &Client| now.duration_since(client.last_seen) < RECENT;
        self.clients
            .retain(|_, client| client.running > 0 || recent(client));
        places.div_ceil(self.clients.len().max(1)).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_shared_by_those_who_ask_lately() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut turns = Turns::default();
        turns.note_began(1, at(0));
        assert_eq!(turns.share(8, at(0)), 8);
        turns.note_seen(2, at(1000));
        turns.note_seen(3, at(2000));
        assert_eq!(turns.share(8, at(2000)), 3);
        // A client with a running answer counts however long that takes.
        assert_eq!(turns.share(8, at(3500)), 4);
        assert_eq!(turns.share(8, at(9000)), 8);
        turns.note_ended(1, at(9000));
        assert_eq!(turns.running(1), 0);
        assert_eq!(turns.share(8, at(20_000)), 8);
        assert!(turns.clients.is_empty());
        for client in 0..20 {
            turns.note_seen(client, at(20_000));
        }
        assert_eq!(turns.share(8, at(20_000)), 1);
    }
}
