//! A target whose next-token distribution is a plain function of the preceding tokens.

use std::fmt;

use crate::{
    BoxError, HostLogits, KvCache, NodeId, OutputOf, PassInput, PositionUniforms, Sampler,
    TargetModel, TargetOutput, TokenId, TokenTree, UniformStream,
};

type Law = dyn Fn(&[TokenId]) -> Vec<f32> + Send + Sync;

/// A target whose logits are a function of the preceding tokens: prompt, answer and tree path.
///
/// It reads the context back from its cache, so a cache that keeps wrong rows changes the output.
pub struct TableModel {
    vocab: usize,
    context_len: usize,
    law: Box<Law>,
}

impl TableModel {
    /// Creates a model with the given law: `vocab` logits as a function of all preceding tokens.
    pub fn from_fn(
        vocab: usize,
        law: impl Fn(&[TokenId]) -> Vec<f32> + Send + Sync + 'static,
    ) -> Self {
        Self {
            vocab,
            context_len: 4096,
            law: Box::new(law),
        }
    }

    /// Creates a model with pseudo-random logits in `[0, 4)` that depend on the last `order`
    /// tokens.
    #[must_use]
    pub fn random(vocab: usize, order: usize, seed: u64) -> Self {
        Self::from_fn(vocab, move |context| {
            let last = &context[context.len().saturating_sub(order)..];
            let key = last.iter().fold(seed, |key, &token| {
                UniformStream::new(key ^ (u64::from(token) + 1)).next_bits()
            });
            let mut stream = UniformStream::new(key);
            (0..vocab)
                .map(|_| 4.0 * stream.next_uniform() as f32)
                .collect()
        })
    }

    /// Sets the context length (4096 by default).
    #[must_use]
    pub fn with_context_len(mut self, context_len: usize) -> Self {
        self.context_len = context_len;
        self
    }

    /// Returns the logits of the token after `context`.
    #[must_use]
    pub fn logits(&self, context: &[TokenId]) -> Vec<f32> {
        (self.law)(context)
    }

    /// Decodes plainly, without this crate's loop: `n_tokens` tokens after `prompt`, each chosen by
    /// `sampler` with the number of its position from `uniforms`.
    ///
    /// # Panics
    /// If the law returns non-finite logits.
    #[must_use]
    pub fn decode_plainly(
        &self,
        prompt: &[TokenId],
        n_tokens: usize,
        sampler: &Sampler,
        uniforms: PositionUniforms,
    ) -> Vec<TokenId> {
        let mut context = prompt.to_vec();
        for _ in 0..n_tokens {
            let uniform = uniforms.at(context.len());
            let token = sampler.pick(&self.logits(&context), uniform);
            context.push(token.expect("the law gives finite logits"));
        }
        context.split_off(prompt.len())
    }
}

impl fmt::Debug for TableModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableModel")
            .field("vocab", &self.vocab)
            .field("context_len", &self.context_len)
            .finish_non_exhaustive()
    }
}

/// Cache of a [`TableModel`]: the tokens themselves.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct TableCache {
    tokens: Vec<TokenId>,
}

impl KvCache for TableCache {
    fn len(&self) -> usize {
        self.tokens.len()
    }

    fn keep_path(&mut self, base: usize, path: &[NodeId]) {
        for (offset, node) in path.iter().enumerate() {
            self.tokens[base + offset] = self.tokens[base + node.index()];
        }
        self.tokens.truncate(base + path.len());
    }

    fn truncate(&mut self, len: usize) {
        self.tokens.truncate(len);
    }
}

/// Features of a [`TableModel`]: position and token of each row.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct TableFeatures(pub Vec<(usize, TokenId)>);

impl TargetModel for TableModel {
    type Prompt = Vec<TokenId>;
    type Cache = TableCache;
    type Features = TableFeatures;
    type Logits = HostLogits;

    fn vocab_size(&self) -> usize {
        self.vocab
    }

    fn context_len(&self) -> usize {
        self.context_len
    }

    fn new_cache(&self) -> Result<TableCache, BoxError> {
        Ok(TableCache::default())
    }

    fn read(
        &self,
        input: PassInput<'_, Vec<TokenId>>,
        cache: &mut TableCache,
    ) -> Result<OutputOf<Self>, BoxError> {
        match input {
            PassInput::Prompt { prompt, end } => self.read_prompt(&prompt[..end], cache),
            PassInput::Tree(tree) => Ok(self.read_tree(tree, cache)),
        }
    }

    fn gather_features(
        &self,
        features: TableFeatures,
        path: &[NodeId],
    ) -> Result<TableFeatures, BoxError> {
        Ok(TableFeatures(
            path.iter().map(|node| features.0[node.index()]).collect(),
        ))
    }
}

impl TableModel {
    fn read_prompt(
        &self,
        tokens: &[TokenId],
        cache: &mut TableCache,
    ) -> Result<OutputOf<Self>, BoxError> {
        if !tokens.starts_with(&cache.tokens) || tokens.len() == cache.len() {
            return Err("the cache does not hold a prefix of the prompt".into());
        }
        cache.tokens = tokens.to_vec();
        let features = TableFeatures(tokens.iter().copied().enumerate().collect());
        Ok(TargetOutput {
            logits: HostLogits::new(self.logits(tokens), self.vocab),
            features,
        })
    }

    fn read_tree(&self, tree: &TokenTree, cache: &mut TableCache) -> OutputOf<Self> {
        let base = cache.len();
        let mut logits = Vec::with_capacity(tree.n_nodes() * self.vocab);
        let mut features = Vec::with_capacity(tree.n_nodes());
        for node in tree.nodes() {
            let path = tree.path(node);
            let mut context = cache.tokens[..base].to_vec();
            context.extend(path.iter().map(|&ancestor| tree.token(ancestor)));
            features.push((context.len() - 1, tree.token(node)));
            logits.extend(self.logits(&context));
        }
        cache.tokens.extend_from_slice(tree.tokens());
        TargetOutput {
            logits: HostLogits::new(logits, self.vocab),
            features: TableFeatures(features),
        }
    }
}
