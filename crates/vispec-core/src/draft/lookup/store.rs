//! A store of earlier answers in bounded memory.
//!
//! Tokens lie in a ring buffer, one answer after the other, so that the oldest are overwritten
//! first. A table of fixed size maps an n-gram to its last places. Its entries are only hints: each
//! is checked against the ring when it is used, so entries of overwritten tokens need not be
//! removed.

use std::hash::{DefaultHasher, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::TokenId;

/// Lengths of the indexed n-grams, longest first.
const ORDERS: [usize; 3] = [12, 6, 3];
/// Maximum length of a match, and number of prompt tokens stored before an answer.
pub(super) const LONGEST_MATCH: usize = 32;
/// Number of places per bucket of n-grams with the same hash.
const WAYS: usize = 4;
/// Memory of a bucket, and of a token in the ring. Each token has one entry per order.
const BUCKET_BYTES: usize = WAYS * size_of::<u32>();
const TOKEN_BYTES: usize = size_of::<u32>();
/// Marks the end of a text in the ring; tokens are stored plus 1.
const END: u32 = 0;

/// Earlier answers, shared by drafters that propose how the last tokens continued there.
///
/// The store affects the speed, never the tokens. All its memory is reserved at the start (most
/// systems allocate it on first use), and the oldest answers are dropped when it is full. The time
/// of a lookup does not depend on the number of stored tokens.
#[derive(Debug)]
pub struct SuffixStore {
    inner: Mutex<Inner>,
}

/// Contents and usefulness of a [`SuffixStore`].
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct SuffixStoreUsage {
    /// Reserved memory, whether full or not.
    pub bytes: usize,
    /// Number of stored tokens.
    pub tokens: usize,
    /// Number of lookups that found a match.
    pub matches: u64,
    /// Number of tokens that the store proposed and the target accepted, even if another source
    /// proposed them, too.
    pub accepted: u64,
}

/// Continuation of the last tokens in an earlier answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Stored {
    /// Number of matching tokens before it.
    pub(super) length: usize,
    pub(super) tokens: Vec<TokenId>,
}

#[derive(Debug)]
struct Inner {
    /// Tokens plus 1, and [`END`] between texts.
    ring: Vec<u32>,
    /// Start of the next text.
    head: usize,
    /// Whether the ring has wrapped around.
    wrapped: bool,
    /// Places in the ring after an n-gram, newest first. 0 means none; it needs no special case,
    /// because every place is checked when it is used.
    table: Vec<[u32; WAYS]>,
    matches: u64,
    accepted: u64,
}

impl SuffixStore {
    /// Creates a store that takes at most `bytes`.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        // Places are 32-bit numbers.
        let most = bytes.min(u32::MAX as usize);
        let entries_per_bucket = WAYS * TOKEN_BYTES;
        let per_token = TOKEN_BYTES + BUCKET_BYTES * ORDERS.len() / WAYS;
        let buckets = most / per_token * ORDERS.len() * TOKEN_BYTES / entries_per_bucket;
        let tokens = (most - buckets * BUCKET_BYTES) / TOKEN_BYTES;
        Self {
            inner: Mutex::new(Inner {
                ring: vec![END; tokens],
                head: 0,
                wrapped: false,
                table: vec![[0; WAYS]; buckets],
                matches: 0,
                accepted: 0,
            }),
        }
    }

    /// Stores an answer after the end of its prompt, so that it is found when the same prompt is
    /// repeated. Does nothing if the answer is already stored.
    pub fn insert(&self, prompt: &[TokenId], answer: &[TokenId]) {
        let before = &prompt[prompt.len().saturating_sub(LONGEST_MATCH)..];
        self.lock().insert(before, answer);
    }

    /// Returns the contents and usefulness of the store.
    #[must_use]
    pub fn usage(&self) -> SuffixStoreUsage {
        let inner = self.lock();
        SuffixStoreUsage {
            bytes: inner.ring.len() * TOKEN_BYTES + inner.table.len() * BUCKET_BYTES,
            tokens: if inner.wrapped {
                inner.ring.len()
            } else {
                inner.head
            },
            matches: inner.matches,
            accepted: inner.accepted,
        }
    }

    /// Returns the continuations of the last tokens of `context` in earlier answers: at most
    /// `branches` distinct continuations of at most `most` tokens, longest match first.
    pub(super) fn look_up(&self, context: &[TokenId], branches: usize, most: usize) -> Vec<Stored> {
        let mut inner = self.lock();
        let found = inner.look_up(context, branches, most);
        inner.matches += u64::from(!found.is_empty());
        found
    }

    /// Counts accepted tokens that the store proposed.
    pub(super) fn note_accepted(&self, tokens: usize) {
        self.lock().accepted += tokens as u64;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Entries are checked when they are used, so an inconsistent state after a panic is
        // harmless.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn insert(&mut self, before: &[TokenId], answer: &[TokenId]) {
        // One place is reserved for the end mark.
        let room = self.ring.len().saturating_sub(1 + before.len());
        let answer = &answer[..answer.len().min(room)];
        if answer.is_empty() || self.table.is_empty() || self.holds(before, answer) {
            return;
        }
        let text = [before, answer].concat();
        let start = self.head;
        for &token in &text {
            self.write(token.wrapping_add(1));
        }
        self.write(END);
        for next in before.len()..text.len() {
            let place = (start + next) % self.ring.len();
            for order in ORDERS {
                if let Some(first) = next.checked_sub(order) {
                    let bucket = self.bucket(&text[first..next]);
                    let ways = &mut self.table[bucket];
                    ways.copy_within(..WAYS - 1, 1);
                    // Rings have fewer than 2^32 places.
                    ways[0] = u32::try_from(place).unwrap_or(0);
                }
            }
        }
    }

    /// Returns whether the complete `answer` is stored after `before`.
    fn holds(&self, before: &[TokenId], answer: &[TokenId]) -> bool {
        let found = self.look_up(before, WAYS, answer.len() + 1);
        found.iter().any(|stored| stored.tokens == answer)
    }

    fn write(&mut self, value: u32) {
        self.ring[self.head] = value;
        self.head += 1;
        if self.head == self.ring.len() {
            self.head = 0;
            self.wrapped = true;
        }
    }

    fn look_up(&self, context: &[TokenId], branches: usize, most: usize) -> Vec<Stored> {
        let mut found: Vec<Stored> = Vec::new();
        if self.table.is_empty() || most == 0 {
            return found;
        }
        for order in ORDERS {
            let Some(first) = context.len().checked_sub(order) else {
                continue;
            };
            if found.len() >= branches {
                break;
            }
            for place in self.table[self.bucket(&context[first..])] {
                let place = place as usize;
                let length = self.agreement(place, context);
                // Other n-grams share the bucket, and the text at this place may be overwritten.
                if length < order {
                    continue;
                }
                let tokens = self.text_from(place, most);
                if !tokens.is_empty() && found.iter().all(|stored| stored.tokens != tokens) {
                    found.push(Stored { length, tokens });
                }
            }
        }
        found.sort_by_key(|stored| std::cmp::Reverse(stored.length));
        found.truncate(branches);
        found
    }

    /// Returns how many of the last tokens of `context` precede `place`.
    fn agreement(&self, place: usize, context: &[TokenId]) -> usize {
        let len = self.ring.len();
        let before = (1..=LONGEST_MATCH.min(len)).map(|back| self.ring[(place + len - back) % len]);
        let last = context.iter().rev().map(|token| token.wrapping_add(1));
        let agreeing = before.zip(last);
        agreeing
            .take_while(|&(stored, token)| stored == token && stored != END)
            .count()
    }

    /// Returns the text from `place` to its end, cut to `most` tokens.
    fn text_from(&self, place: usize, most: usize) -> Vec<TokenId> {
        let len = self.ring.len();
        let stored = (0..most.min(len)).map(|ahead| self.ring[(place + ahead) % len]);
        let text = stored.take_while(|&stored| stored != END);
        text.map(|stored| stored - 1).collect()
    }

    /// Returns the bucket of the places after `ngram`.
    fn bucket(&self, ngram: &[TokenId]) -> usize {
        let mut hasher = DefaultHasher::new();
        for &token in ngram {
            hasher.write_u32(token);
        }
        (hasher.finish() % self.table.len() as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens_of(stored: &[Stored]) -> Vec<Vec<TokenId>> {
        stored.iter().map(|stored| stored.tokens.clone()).collect()
    }

    #[test]
    fn what_followed_is_found_longest_match_first() {
        let store = SuffixStore::new(1 << 16);
        store.insert(&[9, 9, 9], &[1, 2, 3, 4, 5, 6, 7]);
        store.insert(&[8, 8, 8], &[7, 1, 2, 3, 40, 50]);
        let found = store.look_up(&[0, 9, 1, 2, 3], 2, 3);
        assert_eq!(tokens_of(&found), [[4, 5, 6].as_slice(), &[40, 50]]);
        assert_eq!((found[0].length, found[1].length), (4, 3));
        // A repeated prompt is found by its end.
        let again = store.look_up(&[5, 9, 9, 9], 2, 64);
        assert_eq!(tokens_of(&again), [[1, 2, 3, 4, 5, 6, 7]]);
        // Prompts are not proposed, nor are the tokens before another answer.
        assert!(store.look_up(&[5, 6, 7], 2, 64).is_empty());
        assert!(store.look_up(&[2, 3], 2, 64).is_empty());
        assert_eq!(store.usage().matches, 2);
    }

    #[test]
    fn the_same_answer_is_stored_once() {
        let store = SuffixStore::new(1 << 16);
        let answer = Vec::from_iter(10..60);
        store.insert(&[1, 2, 3], &answer);
        let tokens = store.usage().tokens;
        store.insert(&[1, 2, 3], &answer);
        assert_eq!(store.usage().tokens, tokens);
        store.insert(&[1, 2, 3], &answer[..49]);
        assert_eq!(store.usage().tokens, tokens + 3 + 49 + 1);
    }

    #[test]
    fn the_bound_holds_and_the_oldest_is_forgotten() {
        let text = |number: u32| Vec::from_iter(1_000 * number..1_000 * number + 100);
        for bytes in [0, 1, 15, 16, 17, 100, 4_096, 50_000] {
            let store = SuffixStore::new(bytes);
            for number in 0..200 {
                store.insert(&[1, 2, 3], &text(number));
                let usage = store.usage();
                assert!(usage.bytes <= bytes, "{usage:?} of {bytes}");
                assert!(usage.tokens * TOKEN_BYTES <= bytes);
            }
            let ask = |number: u32| store.look_up(&text(number)[10..20], 1, 5);
            if bytes < 4_096 {
                continue;
            }
            assert_eq!(tokens_of(&ask(199)), [&text(199)[20..25]]);
            assert!(ask(0).is_empty());
            let known = (0..200).filter(|&number| !ask(number).is_empty()).count();
            // 16 bytes per token; some places in the table are overwritten by others.
            let room = bytes / 16 / 104;
            assert!((room / 2..=room + 1).contains(&known), "{known} of {room}");
        }
    }

    #[test]
    fn tokens_at_the_end_of_the_numbers_do_no_harm() {
        let store = SuffixStore::new(1 << 12);
        store.insert(&[], &[1, 2, 3, TokenId::MAX, 4, 5, 6]);
        assert!(store.look_up(&[1, 2, 3], 1, 9).is_empty());
        assert!(store.look_up(&[2, 3, TokenId::MAX], 1, 9).is_empty());
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_proposed_was_said(
            texts in proptest::collection::vec(proptest::collection::vec(0..4_u32, 0..40), 1..30),
            bytes in 0..3_000_usize,
        ) {
            let store = SuffixStore::new(bytes);
            let mut said = Vec::new();
            for text in &texts {
                for end in 0..=text.len() {
                    for Stored { length, tokens } in store.look_up(&text[..end], 3, 6) {
                        let both = [&text[end - length..end], &tokens].concat();
                        let was_said = |earlier: &Vec<TokenId>| {
                            earlier.windows(both.len()).any(|window| window == both)
                        };
                        proptest::prop_assert!(said.iter().any(was_said));
                    }
                }
                let split = text.len() / 3;
                store.insert(&text[..split], &text[split..]);
                said.push(text.clone());
            }
        }
    }
}
