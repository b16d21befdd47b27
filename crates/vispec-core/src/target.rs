//! The target model: the large model whose output must be reproduced exactly.

use std::fmt;

use crate::{BoxError, KnownPicks, KvCache, NodeId, TargetLogits, TokenId, TokenTree};

/// A prompt for the target: token ids, and whatever else the model needs, such as images.
pub trait Prompt {
    /// Returns the token ids, with image placeholders already repeated: one id per cache row of the
    /// prefill.
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
    /// Hidden states for the drafter, opaque to this crate.
    pub features: F,
}

/// [`TargetOutput`] of a target model.
pub type OutputOf<T> = TargetOutput<<T as TargetModel>::Logits, <T as TargetModel>::Features>;

/// Tokens that one sequence contributes to a pass of the target.
#[derive(Debug)]
pub enum PassInput<'a, P> {
    /// Tokens of a prompt: from the first token not yet in the cache up to `end` (exclusive).
    Prompt {
        /// The whole prompt.
        prompt: &'a P,
        /// End of the range; greater than the cache length and at most the prompt length.
        end: usize,
    },
    /// All nodes of a tree, each attending to the cache, its ancestors and itself.
    Tree(&'a TokenTree),
}

// Derived impls would require `P: Clone` and `P: Copy`.
impl<P> Clone for PassInput<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<P> Copy for PassInput<'_, P> {}

/// The part of a pass that belongs to one sequence.
pub struct Segment<'a, T: TargetModel + ?Sized> {
    /// Tokens to read.
    pub input: PassInput<'a, T::Prompt>,
    /// Cache of the sequence; the pass appends one row per token read.
    pub cache: &'a mut T::Cache,
    /// How tokens will be sampled from the logits, if they are sampled and the numbers are known. A
    /// target on a device can then sample for all rows there.
    pub picks: Option<KnownPicks>,
}

impl<T: TargetModel + ?Sized> Segment<'_, T> {
    /// Returns the number of rows that the segment adds to a pass.
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

/// The target model as the decoding cycle sees it.
///
/// Passes take `&self`; all state of a sequence lives in its cache.
/// A target that reads one sequence at a time implements only [`read`](Self::read). A target that
/// shares passes between sequences overrides [`forward`](Self::forward), too; the result for a
/// sequence must not depend on the other sequences in the pass.
pub trait TargetModel {
    /// Prompt of a generation.
    type Prompt: Prompt;
    /// KV cache of one sequence.
    type Cache: KvCache;
    /// Hidden states of a range of tokens, e.g. a tensor `[rows, hidden]`.
    type Features;
    /// Logits of one sequence after one pass, normally still on the device.
    type Logits: TargetLogits;

    /// Returns the vocabulary size; every drafted token id must be smaller.
    fn vocab_size(&self) -> usize;

    /// Returns the context length: the maximum number of tokens of prompt and answer together.
    fn context_len(&self) -> usize;

    /// Creates an empty cache.
    ///
    /// # Errors
    /// Any error of the model, for example of its device.
    fn new_cache(&self) -> Result<Self::Cache, BoxError>;

    /// Reads `input` and appends one cache row for each of its tokens.
    ///
    /// * A tree: a node at depth `d` sits at position `cache.len() + d`. Rows of the cache, logits
    ///   and features are in node order, one for each node.
    /// * A prompt: one row of logits, for the last token read. If that is the last token of the
    ///   prompt, the output holds features of every prompt position, including those already in the
    ///   cache; otherwise the features are ignored. The cache may already hold a prefix of the
    ///   prompt, because an earlier pass read it or because the caller passed a cache from an
    ///   earlier generation (see [`Session::start_in`](crate::Session::start_in)).
    ///
    /// # Errors
    /// Any error of the model.
    fn read(
        &self,
        input: PassInput<'_, Self::Prompt>,
        cache: &mut Self::Cache,
    ) -> Result<OutputOf<Self>, BoxError>;

    /// Runs one pass over several sequences and returns one result per segment, like
    /// [`read`](Self::read).
    fn forward(&self, segments: &mut [Segment<'_, Self>]) -> Vec<Result<OutputOf<Self>, BoxError>> {
        let segments = segments.iter_mut();
        segments
            .map(|segment| self.read(segment.input, segment.cache))
            .collect()
    }

    /// Reads the rest of the prompt: all tokens not yet in the cache.
    ///
    /// # Errors
    /// Same as [`read`](Self::read).
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
    /// Same as [`read`](Self::read).
    fn verify(
        &self,
        tree: &TokenTree,
        cache: &mut Self::Cache,
    ) -> Result<OutputOf<Self>, BoxError> {
        self.read(PassInput::Tree(tree), cache)
    }

    /// Returns the features of the nodes in `path`, in that order: `[path.len(), hidden]`.
    ///
    /// # Errors
    /// Any error of the model.
    fn gather_features(
        &self,
        features: Self::Features,
        path: &[NodeId],
    ) -> Result<Self::Features, BoxError>;
}
