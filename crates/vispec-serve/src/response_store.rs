//! Conversations of responses, for requests that continue them.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

/// Maximum number of bytes of a kept conversation, including its images.
const MAX_CONVERSATION: usize = 16 << 20;
/// Maximum number of bytes of all kept conversations; the least recently used are dropped first.
const MAX_ALL: usize = 64 << 20;
/// Maximum number of kept conversations.
const MAX_COUNT: usize = 4096;

/// Keeps conversations by the ids of responses, in bounded memory.
#[derive(Debug, Default)]
pub(crate) struct ResponseStore {
    kept: Mutex<Kept>,
    /// Its hash keys are secret, so that no client can guess the id of another client's response.
    secret: RandomState,
    made: AtomicU64,
}

#[derive(Debug, Default)]
struct Kept {
    conversations: HashMap<String, Conversation>,
    bytes: usize,
    /// Counts uses.
    clock: u64,
}

#[derive(Debug)]
struct Conversation {
    messages: Arc<Vec<Value>>,
    bytes: usize,
    used: u64,
}

impl ResponseStore {
    /// Returns an id for a response.
    pub(crate) fn new_id(&self) -> String {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let halves = [(number, 0), (number, 1)].map(|half| self.secret.hash_one(half));
        format!("resp_{:016x}{:016x}", halves[0], halves[1])
    }

    /// Keeps the messages of a conversation, unless they are too large.
    pub(crate) fn keep(&self, id: &str, messages: Vec<Value>) {
        let bytes: usize = messages
            .iter()
            .map(|message| message.to_string().len())
            .sum();
        if bytes > MAX_CONVERSATION {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += bytes;
        kept.clock += 1;
        let conversation = Conversation {
            messages: Arc::new(messages),
            bytes,
            used: kept.clock,
        };
        kept.conversations.insert(id.to_owned(), conversation);
        while kept.bytes > MAX_ALL || kept.conversations.len() > MAX_COUNT {
            let oldest = kept
                .conversations
                .iter()
                .min_by_key(|(_, found)| found.used);
            let Some(id) = oldest.map(|(id, _)| id.clone()) else {
                return;
            };
            let dropped = kept.conversations.remove(&id);
            kept.bytes -= dropped.map_or(0, |dropped| dropped.bytes);
        }
    }

    /// Returns the messages up to and including a response.
    pub(crate) fn get(&self, id: &str) -> Option<Arc<Vec<Value>>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.clock += 1;
        let clock = kept.clock;
        let found = kept.conversations.get_mut(id)?;
        found.used = clock;
        Some(Arc::clone(&found.messages))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_for_longest_is_dropped() {
        let store = ResponseStore::default();
        let message = |n: usize| vec![Value::from("x".repeat(n))];
        let ids = Vec::from_iter((0..10).map(|_| store.new_id()));
        for (n, id) in ids.iter().enumerate() {
            store.keep(id, message(8 << 20));
            // The first one is continued again and again.
            assert!(store.get(&ids[0]).is_some(), "after {n}");
        }
        assert!(store.get(&ids[1]).is_none());
        assert!(store.get(&ids[9]).is_some());
        assert!(store.kept.lock().unwrap().bytes <= MAX_ALL);
        store.keep("large", message(MAX_CONVERSATION));
        assert!(store.get("large").is_none());
    }

    #[test]
    fn ids_differ() {
        let store = ResponseStore::default();
        assert_ne!(store.new_id(), store.new_id());
        assert_ne!(store.new_id(), ResponseStore::default().new_id());
    }
}
