//! The target model: the large model whose output must be reproduced exactly.

use std::fmt;

use crate::{BoxError, KnownPicks, KvCache, NodeId, TargetLogits, TokenId, TokenTree};

/// A prompt as the target takes it: token ids, and whatever else the model needs (images).
pub trait Prompt {
    /// Token ids with image placeholders already repeated: one id per cache row of the prefill.
    fn token_ids(&self) -> &[TokenId];
}

impl Prompt for Vec<TokenId> {
    fn token_ids(&self) -> &[TokenId] {
        self
    }
}

/// Result of one forward pass of the target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TargetOutput<L, F> {
    /// Next-token logits.
    pub logits: L,
    /// Hidden states handed to the drafter, opaque to this crate.
    pub features: F,
}

/// [`TargetOutput`] of a target model.
pub type OutputOf<T> = TargetOutput<<T as TargetModel>::Logits, <T as TargetModel>::Features>;

/// What one sequence has a pass of the target read.
#[derive(Debug)]
pub enum PassInput<'a, P> {
    /// Tokens of a prompt, from the first that the cache does not hold up to `end`, not included.
    Prompt {
        /// The whole prompt.
        prompt: &'a P,
        /// Above the cache's length, and at most the prompt's.
        end: usize,
    },
    /// All nodes of a tree, each attending to the cache, its ancestors and itself.
    Tree(&'a TokenTree),
}

// Derived, these would ask the same of `P`.
impl<P> Clone for PassInput<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<P> Copy for PassInput<'_, P> {}

/// The part of a pass that belongs to one sequence.
pub struct Segment<'a, T: TargetModel + ?Sized> {
    /// What is read.
    pub input: PassInput<'a, T::Prompt>,
    /// Cache of the sequence; the rows that are read are appended.
    pub cache: &'a mut T::Cache,
    /// How tokens will be drawn from the logits, if they are and that is known: a target on a device
    /// can draw for all rows there.
    pub picks: Option<KnownPicks>,
}

impl<T: TargetModel + ?Sized> Segment<'_, T> {
    /// Number of rows that the segment adds to a pass.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        match self.input {
            PassInput::Prompt { end, .. } => end.saturating_sub(self.cache.len()),
            PassInput::Tree(tree) => tree.n_nodes(),
        }
    }
}

impl<T: TargetModel + ?Sized> fmt::Debug for Segment<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment")
            .field("rows", &self.n_rows())
            .field("cached", &self.cache.len())
            .finish()
    }
}

/// A model that decodes, seen from the cycle.
///
/// Passes take `&self`; all state of a sequence lives in its cache.
/// One method is enough for a target that reads one sequence at a time: [`read`](Self::read).
/// A target that shares passes overrides [`forward`](Self::forward), too. What it gives a sequence
/// must not depend on the other sequences of the pass.
pub trait TargetModel {
    /// What a generation starts from.
    type Prompt: Prompt;
    /// Key/value cache of one sequence.
    type Cache: KvCache;
    /// Hidden states of a range of tokens, e.g. a tensor `[rows, hidden]`.
    type Features;
    /// Logits of one sequence after one pass, normally still on the device.
    type Logits: TargetLogits;

    /// Number of token ids; every drafted token must be smaller.
    fn vocab_size(&self) -> usize;

    /// Largest number of tokens, prompt and answer together.
    fn context_len(&self) -> usize;

    /// An empty cache.
    ///
    /// # Errors
    /// Any error of the model, for example of its device.
    fn new_cache(&self) -> Result<Self::Cache, BoxError>;

    /// Reads `input` and appends one cache row for each of its tokens.
    ///
    /// * A tree: a node at depth `d` sits at position `cache.len() + d`. Rows of the cache, logits
    ///   and features are in node order, one for each node.
    /// * A prompt: logits of the last token that was read, one row. If that is the last token of
    ///   the prompt, features of every prompt position, also of those that the cache held before;
    ///   if it is not, the features are not looked at. The cache holds a beginning of the prompt
    ///   because an earlier pass read it, or because the caller handed in a cache that was made for
    ///   it (see [`Session::start_in`](crate::Session::start_in)).
    ///
    /// # Errors
    /// Any error of the model.
    fn read(
        &self,
        input: PassInput<'_, Self::Prompt>,
        cache: &mut Self::Cache,
    ) -> Result<OutputOf<Self>, BoxError>;

    /// One pass over several sequences: a result for each segment, as [`read`](Self::read) gives
    /// it.
    fn forward(&self, segments: &mut [Segment<'_, Self>]) -> Vec<Result<OutputOf<Self>, BoxError>> {
        let segments = segments.iter_mut();
        segments
            .map(|segment| self.read(segment.input, segment.cache))
            .collect()
    }

    /// Reads what the cache does not hold of the prompt, to its end.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn prefill(
        &self,
        prompt: &Self::Prompt,
        cache: &mut Self::Cache,
    ) -> Result<OutputOf<Self>, BoxError> {
        let end = prompt.token_ids().len();
        self.read(PassInput::Prompt { prompt, end }, cache)
    }

    /// Reads all nodes of `tree`.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn verify(
        &self,
        tree: &TokenTree,
        cache: &mut Self::Cache,
    ) -> Result<OutputOf<Self>, BoxError> {
        self.read(PassInput::Tree(tree), cache)
    }

    /// The features of the nodes in `path`, in that order: `[path.len(), hidden]`.
    ///
    /// # Errors
    /// Any error of the model.
    fn gather_features(
        &self,
        features: Self::Features,
        path: &[NodeId],
    ) -> Result<Self::Features, BoxError>;
}
