//! Toy drafters, from random to perfect ones.

use super::{TableFeatures, TableModel};
use crate::{
    BoxError, Drafter, KnownPicks, NodeId, PassLoad, Prompt, Proposal, TargetModel, TokenId,
    TokenTree, TreeError, UniformStream,
};

/// Proposes the same tree below every root.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FixedTreeDrafter {
    nodes: Vec<(usize, TokenId)>,
}

impl FixedTreeDrafter {
    /// Creates the drafter from `(parent, token)` pairs in node order. The root is node 0 and is
    /// not among them.
    #[must_use]
    pub fn new(nodes: Vec<(usize, TokenId)>) -> Self {
        Self { nodes }
    }

    /// Returns the tree below `root`.
    ///
    /// # Errors
    /// [`TreeError`] if the pairs do not form a tree.
    pub fn tree(&self, root: TokenId) -> Result<TokenTree, TreeError> {
        let mut tree = TokenTree::new(root);
        for &(parent, token) in &self.nodes {
            tree.push(NodeId::from_index(parent), token)?;
        }
        Ok(tree)
    }
}

impl<T: TargetModel> Drafter<T> for FixedTreeDrafter {
    fn name(&self) -> &str {
        "fixed-tree"
    }

    fn begin(
        &mut self,
        _prompt: &T::Prompt,
        _features: T::Features,
        next: TokenId,
    ) -> Result<Proposal, BoxError> {
        Ok(self.tree(next)?.into())
    }

    fn advance(
        &mut self,
        _accepted: &[TokenId],
        _features: T::Features,
        next: TokenId,
    ) -> Result<Proposal, BoxError> {
        Ok(self.tree(next)?.into())
    }
}

/// Proposes a random tree of up to `max_nodes` nodes.
#[derive(Clone, Debug)]
pub struct RandomDrafter {
    vocab: usize,
    max_nodes: usize,
    stream: UniformStream,
}

impl RandomDrafter {
    /// Creates a drafter of random trees over a vocabulary of `vocab` tokens.
    #[must_use]
    pub fn new(vocab: usize, max_nodes: usize, seed: u64) -> Self {
        Self {
            vocab,
            max_nodes,
            stream: UniformStream::new(seed),
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.stream.next_uniform() * bound as f64) as usize
    }

    fn tree(&mut self, root: TokenId) -> TokenTree {
        let mut tree = TokenTree::new(root);
        for _ in 0..self.below(self.max_nodes) {
            let parent = NodeId::from_index(self.below(tree.n_nodes()));
            let token = TokenId::try_from(self.below(self.vocab)).expect("a small vocabulary");
            if tree.child_with(parent, token).is_none() {
                tree.push(parent, token)
                    .expect("the parent is there and the token is new");
            }
        }
        tree
    }
}

impl<T: TargetModel> Drafter<T> for RandomDrafter {
    fn name(&self) -> &str {
        "random"
    }

    fn begin(
        &mut self,
        _prompt: &T::Prompt,
        _features: T::Features,
        next: TokenId,
    ) -> Result<Proposal, BoxError> {
        Ok(self.tree(next).into())
    }

    fn advance(
        &mut self,
        _accepted: &[TokenId],
        _features: T::Features,
        next: TokenId,
    ) -> Result<Proposal, BoxError> {
        Ok(self.tree(next).into())
    }
}

/// Proposes a chain of tokens from a given answer.
#[derive(Clone, Debug)]
pub struct ContinuationDrafter {
    answer: Vec<TokenId>,
    n_tokens: usize,
    n_known: usize,
}

impl ContinuationDrafter {
    /// Creates a drafter of chains of `n_tokens` draft tokens from `answer`, which starts with the
    /// first token of the answer. The chains do not depend on the emitted tokens.
    #[must_use]
    pub fn new(answer: Vec<TokenId>, n_tokens: usize) -> Self {
        Self {
            answer,
            n_tokens,
            n_known: 0,
        }
    }

    fn tree(&self, root: TokenId) -> Result<TokenTree, BoxError> {
        let mut tree = TokenTree::new(root);
        let mut node = NodeId::ROOT;
        for &token in self.answer.iter().skip(self.n_known).take(self.n_tokens) {
            node = tree.push(node, token)?;
        }
        Ok(tree)
    }
}

impl<T: TargetModel> Drafter<T> for ContinuationDrafter {
    fn name(&self) -> &str {
        "continuation"
    }

    fn begin(
        &mut self,
        _prompt: &T::Prompt,
        _features: T::Features,
        next: TokenId,
    ) -> Result<Proposal, BoxError> {
        self.n_known = 1;
        Ok(self.tree(next)?.into())
    }

    fn advance(
        &mut self,
        accepted: &[TokenId],
        _features: T::Features,
        next: TokenId,
    ) -> Result<Proposal, BoxError> {
        self.n_known += accepted.len() + 1;
        Ok(self.tree(next)?.into())
    }
}

/// Wraps a drafter and panics if the inputs from the session violate the contract of [`Drafter`].
#[derive(Clone, Debug)]
pub struct CheckingDrafter<D> {
    inner: D,
    context: Vec<TokenId>,
    n_trees: usize,
}

impl<D> CheckingDrafter<D> {
    /// Checks the inputs of `inner`.
    pub fn new(inner: D) -> Self {
        Self {
            inner,
            context: Vec::new(),
            n_trees: 0,
        }
    }

    /// Returns the number of trees drafted so far.
    pub fn n_trees(&self) -> usize {
        self.n_trees
    }

    /// Returns prompt and answer as known to the drafter.
    pub fn context(&self) -> &[TokenId] {
        &self.context
    }
}

impl<D: Drafter<TableModel>> Drafter<TableModel> for CheckingDrafter<D> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn begin(
        &mut self,
        prompt: &Vec<TokenId>,
        features: TableFeatures,
        next: TokenId,
    ) -> Result<Proposal, BoxError> {
        let expected: Vec<_> = prompt.token_ids().iter().copied().enumerate().collect();
        assert_eq!(features.0, expected, "features of the prompt");
        self.context.clone_from(prompt);
        self.context.push(next);
        self.n_trees += 1;
        self.inner.begin(prompt, features, next)
    }

    fn advance(
        &mut self,
        accepted: &[TokenId],
        features: TableFeatures,
        next: TokenId,
    ) -> Result<Proposal, BoxError> {
        let root_position = self.context.len() - 1;
        self.context.extend_from_slice(accepted);
        let path = self.context.iter().copied().enumerate().skip(root_position);
        assert_eq!(
            features.0,
            path.collect::<Vec<_>>(),
            "features of root and accepted tokens"
        );
        self.context.push(next);
        self.n_trees += 1;
        self.inner.advance(accepted, features, next)
    }

    fn grow(&mut self) -> Result<Proposal, BoxError> {
        self.inner.grow()
    }

    fn note_picks(&mut self, picks: Option<KnownPicks>) {
        self.inner.note_picks(picks);
    }

    fn note_load(&mut self, load: PassLoad) {
        self.inner.note_load(load);
    }
}
