//! Cache of computed conversations, for their next turns.
//!
//! A prompt that begins like one that was answered before starts from a copy of its rows. Examples
//! are the next turn of a conversation, the same question about the same image, or another question
//! after the same system message. Only the new part is read, and known images do not go through the
//! vision tower again.
//!
//! On the CPU a row does not depend on the rows that share its pass. So a row that a verify pass
//! left equals, bit for bit, the row that reading the whole prompt would produce, and all tokens
//! are the same. On other devices nothing is kept.

mod beginning;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vispec_core::{KvCache as _, Prompt as _, TokenId};

use self::beginning::Beginning;
use crate::image_digest::ImageDigest;
use crate::image_features::ImageFeatures;
use crate::prompt::{EncodedPrompt, PromptImage};
use crate::target::VlmTarget;
use crate::vlm_cache::VlmCache;

/// Conversations of one target. The least recently used ones are dropped when their memory exceeds
/// a budget.
#[derive(Debug)]
pub struct ConversationStore {
    budget: usize,
    /// Conversations, the most recently used last.
    kept: Mutex<Vec<Arc<Kept>>>,
}

/// Current usage of a [`ConversationStore`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeptConversations {
    /// Number of conversations.
    pub count: usize,
    /// Memory of all conversations in bytes.
    pub bytes: usize,
}

#[derive(Debug)]
struct Kept {
    beginning: Beginning,
    cache: VlmCache,
    images: Vec<PromptImage>,
    n_bytes: usize,
}

impl ConversationStore {
    /// Creates an empty store that keeps at most `budget` bytes; 0 keeps nothing.
    #[must_use]
    pub fn new(budget: usize) -> Self {
        Self {
            budget,
            kept: Mutex::default(),
        }
    }

    /// Returns whether the store can keep anything.
    pub(crate) fn is_enabled(&self) -> bool {
        self.budget > 0
    }

    /// Returns the current usage.
    #[must_use]
    pub fn usage(&self) -> KeptConversations {
        let kept = self.lock();
        KeptConversations {
            count: kept.len(),
            bytes: kept.iter().map(|kept| kept.n_bytes).sum(),
        }
    }

    /// Returns a cache for `prompt` that holds the known part of its beginning. Returns `None` if
    /// nothing can be kept, because the budget is 0 or the target is not on the CPU.
    #[must_use]
    pub fn cache_for(&self, target: &VlmTarget, prompt: &EncodedPrompt) -> Option<VlmCache> {
        if !self.is_enabled() {
            return None;
        }
        let empty = target.resumable_cache()?;
        let Some((kept, len)) = self.longest(prompt) else {
            return Some(empty);
        };
        // Copy outside the lock. The last token must be read in any case.
        let len = len.min(prompt.token_ids().len() - 1);
        let copied = kept.cache.beginning(len, target.features());
        Some(copied.unwrap_or(empty))
    }

    /// Returns the conversation that shares the longest beginning with the prompt, and the number
    /// of shared tokens.
    fn longest(&self, prompt: &EncodedPrompt) -> Option<(Arc<Kept>, usize)> {
        let asked = Beginning::of(prompt, &[]);
        let mut kept = self.lock();
        let shared = kept.iter().map(|kept| kept.beginning.shared(&asked));
        let (index, len) = shared.enumerate().max_by_key(|&(_, len)| len)?;
        if len == 0 {
            return None;
        }
        let found = kept.remove(index);
        kept.push(Arc::clone(&found));
        Some((found, len))
    }

    /// Returns the features of an image that occurred in a conversation.
    pub(crate) fn image(&self, digest: &ImageDigest) -> Option<ImageFeatures> {
        let kept = self.lock();
        let mut images = kept.iter().flat_map(|kept| &kept.images);
        let found = images.find(|image| image.digest == *digest)?;
        Some(found.features.clone())
    }

    /// Keeps `cache` after `prompt` was answered with `answer`. The cache must come from
    /// [`cache_for`](Self::cache_for).
    pub fn keep(&self, prompt: &EncodedPrompt, answer: &[TokenId], cache: VlmCache) {
        if !cache.is_recording() {
            return;
        }
        let mut beginning = Beginning::of(prompt, answer);
        beginning.truncate(cache.len());
        let images = prompt.images().to_vec();
        let features = images.iter().map(|image| image.features.n_bytes());
        let n_bytes = cache.n_bytes() + features.sum::<usize>() + beginning.n_bytes();
        if n_bytes > self.budget {
            return;
        }
        let mut kept = self.lock();
        let longer = |old: &Arc<Kept>| old.beginning.shared(&beginning) == beginning.len();
        if let Some(index) = kept.iter().position(longer) {
            let used = kept.remove(index);
            kept.push(used);
            return;
        }
        // Conversations that the new one continues are contained in it.
        kept.retain(|old| old.beginning.shared(&beginning) < old.beginning.len());
        kept.push(Arc::new(Kept {
            beginning,
            cache,
            images,
            n_bytes,
        }));
        let mut total: usize = kept.iter().map(|kept| kept.n_bytes).sum();
        let dropped = kept.iter().take_while(|oldest| {
            let exceeds = total > self.budget;
            total -= oldest.n_bytes;
            exceeds
        });
        let dropped = dropped.count();
        kept.drain(..dropped);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Kept>>> {
        // Every state is valid.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
