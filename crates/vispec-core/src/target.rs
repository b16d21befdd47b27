//! The target model: the large model whose output must be reproduced exactly.

use crate::{BoxError, KvCache, NodeId, TargetLogits, TokenId, TokenTree};

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

/// A model that decodes, seen from the cycle.
///
/// Forward passes take `&self`; all state of a generation lives in the cache.
/// The batch size is 1.
pub trait TargetModel {
    /// What a generation starts from.
    type Prompt: Prompt;
    /// Key/value cache of one generation.
    type Cache: KvCache;
    /// Hidden states of a range of tokens, e.g. a tensor `[1, seq, hidden]`.
    type Features;
    /// Logits of one pass, normally still on the device.
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

    /// Reads what the cache does not hold of the prompt yet: all of it if the cache is empty.
    ///
    /// The cache never holds the whole prompt. It holds a beginning only if the caller of
    /// [`generate_in`](crate::generate_in) handed in one that was made for that; a target whose
    /// caches cannot be used again need not look.
    /// Logits: one row, of the last position. Features: every prompt position, those that were in
    /// the cache included.
    ///
    /// # Errors
    /// Any error of the model.
    fn prefill(
        &self,
        prompt: &Self::Prompt,
        cache: &mut Self::Cache,
    ) -> Result<OutputOf<Self>, BoxError>;

    /// One pass over all nodes of `tree`, each attending to the cache, its ancestors and itself.
    ///
    /// A node at depth `d` sits at position `cache.len() + d`.
    /// Appends one cache row per node, in node order; logits and features have one row per node.
    ///
    /// # Errors
    /// Any error of the model.
    fn verify(&self, tree: &TokenTree, cache: &mut Self::Cache)
    -> Result<OutputOf<Self>, BoxError>;

    /// The features of the nodes in `path`, in that order: `[1, path.len(), hidden]`.
    ///
    /// # Errors
    /// Any error of the model.
    fn gather_features(
        &self,
        features: Self::Features,
        path: &[NodeId],
    ) -> Result<Self::Features, BoxError>;
}
