//! The best tokens of each row of draft logits, with their log-probabilities.

use std::cell::RefCell;

use crate::sample::{BLOCK, BlockMaxima, Weights, foresee};
use crate::{KnownPick, LogitsError, TokenId};

/// Chance of a token that only fills the list because no other token can be sampled.
const HARDLY: f64 = 1e-9;

/// The `k` best tokens of each row, `[rows, k]`, by descending log-probability; the lowest id comes
/// first among equals.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct TopK {
    /// Number of tokens per row.
    pub k: usize,
    /// Tokens, row-major.
    pub tokens: Vec<TokenId>,
    /// Natural logarithms of probabilities, row-major: the tokens' probabilities in the row, or
    /// their chances to be sampled with a known number.
    pub log_probs: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::default());
}

#[derive(Default)]
struct Scratch {
    maxima: BlockMaxima,
    best: Vec<(f32, TokenId)>,
    foreseen: Vec<(f64, TokenId)>,
}

impl TopK {
    /// Computes the log-softmax and top-k of `logits`, `[rows, vocab]`, at temperature 1.
    ///
    /// If the vocabulary is smaller than `k`, all tokens are returned and `k` is the vocabulary
    /// size.
    ///
    /// # Errors
    /// [`LogitsError::NonFinite`] if a row holds NaN or +inf, or only -inf.
    ///
    /// # Panics
    /// If `vocab` is 0 or the number of logits is not a multiple of it.
    pub fn from_logits(logits: &[f32], vocab: usize, k: usize) -> Result<Self, LogitsError> {
        Self::from_rows(logits, vocab, k, |top, row, scratch| {
            let read = top.append_row(row, scratch);
            read.ok_or(LogitsError::NonFinite { row: 0 })
        })
    }

    /// Returns the tokens of each row of `logits`, `[rows, vocab]`, that `pick` is most likely to
    /// choose, with their chances. Columns are in token-id order, the order in which the target
    /// samples.
    ///
    /// If the vocabulary is smaller than `k`, all tokens are returned and `k` is the vocabulary
    /// size.
    ///
    /// # Errors
    /// [`LogitsError::NonFinite`] if a row holds NaN or +inf, or only -inf.
    ///
    /// # Panics
    /// If `vocab` is 0 or the number of logits is not a multiple of it.
    pub fn foreseen(
        logits: &[f32],
        vocab: usize,
        k: usize,
        pick: KnownPick,
    ) -> Result<Self, LogitsError> {
        Self::from_rows(logits, vocab, k, |top, row, scratch| {
            top.append_foreseen(row, pick, scratch)
        })
    }

    fn from_rows(
        logits: &[f32],
        vocab: usize,
        k: usize,
        append: impl Fn(&mut Self, &[f32], &mut Scratch) -> Result<(), LogitsError>,
    ) -> Result<Self, LogitsError> {
        assert!(
            vocab > 0 && logits.len().is_multiple_of(vocab),
            "{} logits are not rows of {vocab}",
            logits.len()
        );
        let k = k.min(vocab);
        let n_rows = logits.len() / vocab;
        let mut top = Self {
            k,
            tokens: Vec::with_capacity(n_rows * k),
            log_probs: Vec::with_capacity(n_rows * k),
        };
        SCRATCH.with_borrow_mut(|scratch| {
            for (row_idx, row) in logits.chunks_exact(vocab).enumerate() {
                append(&mut top, row, scratch).map_err(|error| error.at_row(row_idx))?;
            }
            Ok(top)
        })
    }

    /// Appends the rows of `more`, which must have the same number of tokens per row.
    pub fn append(&mut self, more: Self) {
        self.k = more.k;
        self.tokens.extend(more.tokens);
        self.log_probs.extend(more.log_probs);
    }

    /// Returns the number of rows.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        self.tokens.len().checked_div(self.k).unwrap_or(0)
    }

    /// Returns the tokens and log-probabilities of one row.
    pub fn row(&self, row: usize) -> impl Iterator<Item = (TokenId, f32)> + '_ {
        let range = row * self.k..(row + 1) * self.k;
        self.tokens[range.clone()]
            .iter()
            .copied()
            .zip(self.log_probs[range].iter().copied())
    }

    fn append_row(&mut self, row: &[f32], scratch: &mut Scratch) -> Option<()> {
        let Scratch { maxima, best, .. } = scratch;
        let max = maxima.read(row)?;
        let log_sum = Weights::new(max, 1.0).sum(row).ln();
        select(row, self.k, maxima, best);
        for &(value, token) in &*best {
            self.tokens.push(token);
            let log_prob = (f64::from(value) - f64::from(max) - log_sum) as f32;
            // Rounding must not let a child score above its parent.
            self.log_probs.push(log_prob.min(0.0));
        }
        Some(())
    }

    fn append_foreseen(
        &mut self,
        row: &[f32],
        pick: KnownPick,
        scratch: &mut Scratch,
    ) -> Result<(), LogitsError> {
        let Scratch {
            maxima,
            best,
            foreseen,
        } = scratch;
        foresee(row, pick, self.k, foreseen)?;
        if foreseen.len() < self.k {
            // Top-p or top-k left fewer tokens; the most probable of the others fill the row.
            maxima.read(row).ok_or(LogitsError::NonFinite { row: 0 })?;
            select(row, self.k, maxima, best);
            let is_new = |&(_, token): &(f32, TokenId)| foreseen.iter().all(|&(_, id)| id != token);
            let others = Vec::from_iter(best.iter().copied().filter(is_new));
            let missing = self.k - foreseen.len();
            let others = others.into_iter().take(missing);
            foreseen.extend(others.map(|(_, token)| (HARDLY, token)));
        }
        for &(chance, token) in &*foreseen {
            self.tokens.push(token);
            self.log_probs.push((chance.ln() as f32).min(0.0));
        }
        Ok(())
    }
}

/// Writes the `k` largest values of `row` with their ids into `best`, in descending order.
fn select(row: &[f32], k: usize, maxima: &mut BlockMaxima, best: &mut Vec<(f32, TokenId)>) {
    best.clear();
    let lower_bound = maxima.kth_largest(k);
    for (block_idx, block) in row.chunks(BLOCK).enumerate() {
        let block_max = maxima.of_block(block_idx);
        if block_max < lower_bound || !enters(block_max, k, best) {
            continue;
        }
        for (offset, &value) in block.iter().enumerate() {
            if value < lower_bound || !enters(value, k, best) {
                continue;
            }
            best.truncate(k - 1);
            let at = best.partition_point(|&(other, _)| other >= value);
            let id = TokenId::try_from(block_idx * BLOCK + offset).expect("ids fit 32 bits");
            best.insert(at, (value, id));
        }
    }
}

/// Returns whether `value` is among the `k` best so far. Ids come in ascending order, so a value
/// equal to the last of the best is not.
fn enters(value: f32, k: usize, best: &[(f32, TokenId)]) -> bool {
    best.len() < k || best.last().is_some_and(|&(last, _)| value > last)
}
