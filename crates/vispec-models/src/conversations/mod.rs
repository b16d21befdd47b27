//! What was computed for conversations, kept for their next turns.
//!
//! A prompt that begins like one that was answered before starts from a copy of its rows: the next
//! turn of a conversation, the same question about the same image, or another question after the
//! same system message. Only what is new is read, and images that were seen do not go through the
//! vision tower again.
//!
//! On the CPU a row does not depend on the rows that share its pass, so that a row that a verify
//! pass left is, bit for bit, the row that reading the whole prompt would leave, and so are all
//! tokens. Elsewhere nothing is kept.

mod beginning;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vispec_core::{KvCache as _, Prompt as _, TokenId};

use self::beginning::Beginning;
use crate::image_digest::ImageDigest;
use crate::image_features::ImageFeatures;
use crate::prompt::{EncodedPrompt, PromptImage};
use crate::target::VlmTarget;
use crate::vlm_cache::VlmCache;

/// Conversations of one target, the least recently used of which are dropped when their memory
/// exceeds a budget.
#[derive(Debug)]
pub struct ConversationStore {
    budget: usize,
    /// The most recently used one last.
    kept: Mutex<Vec<Arc<Kept>>>,
}

/// What is kept at the moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeptConversations {
    /// Number of conversations.
    pub count: usize,
    /// Their memory.
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
    /// An empty store that keeps at most `budget` bytes; with 0 nothing is kept.
    #[must_use]
    pub fn new(budget: usize) -> Self {
        Self {
            budget,
            kept: Mutex::default(),
        }
    }

    /// Whether anything can be kept at all.
    #[must_use]
    pub(crate) fn is_enabled(&self) -> bool {
        self.budget > 0
    }

    /// What is kept at the moment.
    #[must_use]
    pub fn usage(&self) -> KeptConversations {
        let kept = self.lock();
        KeptConversations {
            count: kept.len(),
            bytes: kept.iter().map(|kept| kept.n_bytes).sum(),
        }
    }

    /// A cache for `prompt` that holds as much of its beginning as is known; `None` if nothing can
    /// be kept, because the budget is 0 or the target is on a device.
    #[must_use]
    pub fn cache_for(&self, target: &VlmTarget, prompt: &EncodedPrompt) -> Option<VlmCache> {
        if !self.is_enabled() {
            return None;
        }
        let empty = target.resumable_cache()?;
        let Some((kept, len)) = self.longest(prompt) else {
            return Some(empty);
        };
        // Copied outside of the lock; the last token has to be read anyway.
        let len = len.min(prompt.token_ids().len() - 1);
        let copied = kept.cache.beginning(len, target.features());
        Some(copied.unwrap_or(empty))
    }

    /// The conversation that shares most with the prompt, and how many tokens that is.
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

    /// The features of an image that was seen in a conversation.
    #[must_use]
    pub(crate) fn image(&self, digest: &ImageDigest) -> Option<ImageFeatures> {
        let kept = self.lock();
        let mut images = kept.iter().flat_map(|kept| &kept.images);
        let found = images.find(|image| image.digest == *digest)?;
        Some(found.features.clone())
    }

    /// Keeps what answering `prompt` with `answer` left in `cache`, which must be one of
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
        // What the new one goes on from is part of it.
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
