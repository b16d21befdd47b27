//! A draft model whose scores are a plain function of the preceding tokens.

use super::{TableFeatures, TableModel};
use crate::{Ask, Beam, BoxError, DraftModel, Expansion, TokenId};

/// Draft model that scores with a [`TableModel`] of its own.
///
/// It maintains a tree cache like a real draft and panics if a beam does not match it.
#[derive(Debug)]
pub struct TableDraft {
    law: TableModel,
    /// Prompt and answer, the root included.
    committed: Vec<TokenId>,
    /// Tokens of the rows expanded since `begin` or `commit`.
    rows: Vec<TokenId>,
    n_expansions: usize,
    fixed_levels: Option<usize>,
}

impl TableDraft {
    /// Creates a draft that scores with `law`.
    #[must_use]
    pub fn new(law: TableModel) -> Self {
        Self {
            law,
            committed: Vec::new(),
            rows: Vec::new(),
            n_expansions: 0,
            fixed_levels: None,
        }
    }

    /// Sets a fixed number of levels.
    #[must_use]
    pub fn with_fixed_levels(mut self, levels: usize) -> Self {
        self.fixed_levels = Some(levels);
        self
    }

    /// Returns the number of calls of `expand` so far.
    #[must_use]
    pub fn n_expansions(&self) -> usize {
        self.n_expansions
    }

    /// Returns prompt and answer as far as known to the draft.
    #[must_use]
    pub fn committed(&self) -> &[TokenId] {
        &self.committed
    }

    fn score(
        &self,
        contexts: Vec<Vec<TokenId>>,
        ask: Ask,
    ) -> Result<Expansion<Vec<Vec<TokenId>>>, BoxError> {
        let logits: Vec<f32> = contexts
            .iter()
            .flat_map(|context| self.law.logits(context))
            .collect();
        let vocab = crate::TargetModel::vocab_size(&self.law);
        Ok(Expansion {
            top: ask.rank(&logits, vocab)?,
            hidden: contexts,
        })
    }
}

impl DraftModel<TableModel> for TableDraft {
    /// The context of each row.
    type Hidden = Vec<Vec<TokenId>>;

    fn name(&self) -> &str {
        "table"
    }

    fn fixed_levels(&self) -> Option<usize> {
        self.fixed_levels
    }

    fn begin(
        &mut self,
        prompt: &Vec<TokenId>,
        features: TableFeatures,
        next: TokenId,
        ask: Ask,
    ) -> Result<Expansion<Self::Hidden>, BoxError> {
        assert_eq!(
            features.0.len(),
            prompt.len(),
            "one feature row per prompt token"
        );
        self.committed.clone_from(prompt);
        self.committed.push(next);
        self.rows.clear();
        self.score(vec![self.committed.clone()], ask)
    }

    fn commit(
        &mut self,
        accepted: &[TokenId],
        features: TableFeatures,
        next: TokenId,
        ask: Ask,
    ) -> Result<Expansion<Self::Hidden>, BoxError> {
        assert_eq!(
            features.0.len(),
            accepted.len() + 1,
            "features of root and accepted tokens"
        );
        self.committed.extend_from_slice(accepted);
        self.committed.push(next);
        self.rows.clear();
        self.score(vec![self.committed.clone()], ask)
    }

    fn expand(
        &mut self,
        beam: &Beam,
        parents: &Self::Hidden,
        ask: Ask,
    ) -> Result<Expansion<Self::Hidden>, BoxError> {
        self.n_expansions += 1;
        let first_row = self.rows.len();
        self.rows.extend_from_slice(&beam.tokens);
        let mut contexts = Vec::new();
        for (row, path) in beam.paths.iter().enumerate() {
            assert_eq!(path.len(), beam.level + 1, "one row per level");
            assert_eq!(
                path.last(),
                Some(&(first_row + row)),
                "a path ends with its own row"
            );
            let mut context = self.committed.clone();
            context.extend(path.iter().map(|&cache_row| self.rows[cache_row]));
            let parent = &parents[beam.parent_rows[row]];
            assert_eq!(
                context[..context.len() - 1],
                **parent,
                "the parent's hidden row"
            );
            contexts.push(context);
        }
        self.score(contexts, ask)
    }
}
