//! Drafting from part of the vocabulary, with a smaller output head. The head accounts for much of
//! a draft's cost.
//!
//! Drafting stays lossless whichever tokens are left out: the target verifies over all tokens and
//! itself produces those that the draft cannot propose.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
#[cfg(feature = "cube")]
use std::sync::OnceLock;

use burn::tensor::Tensor;
#[cfg(feature = "cube")]
use burn::tensor::{Device, Int};
use serde::{Deserialize, Serialize};
use vispec_core::{Ask, BoxError, TokenId, TopK};

use crate::error::ModelError;
use crate::logits::{candidates, insert_columns};
#[cfg(feature = "cube")]
use crate::nn::row_numbers;
use crate::nn::{Linear, slice_rows};

/// Default size of a draft's head, as a share of the target's parameters. A pass over one row takes
/// as long as reading its weights, so scoring one level of a tree takes this share of a target
/// pass.
const HEAD_SHARE: f64 = 0.035;
/// Default sizes are multiples of this number of tokens, and at least four times this number.
const STEP: usize = 1024;
/// Maximum number of tokens that a sequence may add to the list.
const MOST_ADDED: usize = 4096;

/// Tokens that a draft may propose. A sequence also adds the tokens of its prompt and of its answer
/// as they appear.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum DraftVocab {
    /// The list that comes with the draft (`draft_vocab.json`), if any. Otherwise the first token
    /// ids, with their number chosen so that the head has about a fixed share of the target's
    /// parameters.
    #[default]
    Auto,
    /// All tokens.
    All,
    /// This number of first token ids. In byte-pair vocabularies, which most models have, these
    /// tokens were merged first and are therefore frequent.
    First(usize),
    /// The list in a file with the content of a [`DraftVocabFile`].
    File(PathBuf),
}

/// A list of tokens, with the most frequent first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DraftVocabFile {
    /// Number of tokens of the tokenizer that the list was made with. It is informational, since
    /// heads are often padded to more rows.
    pub vocab_size: usize,
    /// Token ids, without duplicates.
    pub tokens: Vec<TokenId>,
}

impl DraftVocab {
    /// Returns the ids for a target, or `None` for all tokens.
    ///
    /// # Errors
    /// [`ModelError::DraftVocab`] if the list is empty or the number of tokens is out of range, or
    /// if an id is out of range or occurs twice; [`ModelError::Io`] if the file cannot be read;
    /// [`ModelError::ConfigSyntax`] if it does not contain a list.
    pub(crate) fn tokens(
        &self,
        place: &VocabPlace<'_>,
    ) -> Result<Option<Vec<TokenId>>, ModelError> {
        let vocab_size = place.vocab_size;
        let first = |n: usize| (0..TokenId::try_from(n).unwrap_or(TokenId::MAX)).collect();
        match self {
            Self::All => Ok(None),
            Self::Auto => {
                let list = place.draft.join(DraftVocabFile::NAME);
                if list.exists() {
                    return Self::File(list).tokens(place);
                }
                let n = place.affordable();
                Ok((n < vocab_size).then(|| first(n)))
            }
            Self::First(n) if (1..=vocab_size).contains(n) => Ok(Some(first(*n))),
            Self::First(n) => Err(ModelError::DraftVocab {
                path: PathBuf::from("--draft-vocab"),
                reason: format!("{n} tokens, expected 1 to {vocab_size}"),
            }),
            Self::File(path) => {
                let list = DraftVocabFile::read(path)?;
                Ok(Some(list.checked(path, vocab_size)?))
            }
        }
    }
}

/// The draft and the target for which a part of the vocabulary is chosen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VocabPlace<'a> {
    /// Directory of the draft.
    pub draft: &'a Path,
    /// Number of tokens of the target's head.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub hidden: usize,
    /// Number of parameters that a target pass over one row reads.
    pub target_parameters: usize,
}

impl VocabPlace<'_> {
    /// Returns the number of tokens for which the head has about [`HEAD_SHARE`] of the target's
    /// parameters.
    fn affordable(&self) -> usize {
        let parameters = self.target_parameters as f64 * HEAD_SHARE;
        let tokens = (parameters / self.hidden.max(1) as f64) as usize;
        let rounded = (tokens + STEP / 2) / STEP * STEP;
        rounded.max(4 * STEP).min(self.vocab_size)
    }
}

impl DraftVocabFile {
    /// File name of the list, next to the weights of the draft.
    pub const NAME: &str = "draft_vocab.json";

    /// Reads a list.
    ///
    /// # Errors
    /// [`ModelError::Io`] if the file cannot be read, [`ModelError::ConfigSyntax`] if it does not
    /// contain a list.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        let text = fs::read_to_string(path).map_err(|source| ModelError::Io {
            path: path.to_owned(),
            source,
        })?;
        serde_json::from_str(&text).map_err(|source| ModelError::ConfigSyntax {
            path: path.to_owned(),
            source,
        })
    }

    fn checked(self, path: &Path, vocab_size: usize) -> Result<Vec<TokenId>, ModelError> {
        let wrong = |reason: String| {
            Err(ModelError::DraftVocab {
                path: path.to_owned(),
                reason,
            })
        };
        if self.tokens.is_empty() {
            return wrong("it lists no tokens".to_owned());
        }
        let mut seen = vec![false; vocab_size];
        for &token in &self.tokens {
            match seen.get_mut(token as usize) {
                None => {
                    return wrong(format!(
                        "token id {token} lies outside the target's vocabulary of {vocab_size}"
                    ));
                }
                Some(true) => return wrong(format!("token id {token} occurs twice")),
                Some(seen) => *seen = true,
            }
        }
        Ok(self.tokens)
    }
}

/// The output head of a draft: the target's whole head, the target's rows of some tokens, or the
/// draft's own head.
#[derive(Debug, Clone)]
pub(crate) struct DraftHead {
    origin: HeadOrigin,
    linear: Linear,
    /// Present if the head does not have a row for every token.
    part: Option<Arc<Part>>,
}

/// The model that a head belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeadOrigin {
    /// The target's head, any of whose rows can be selected.
    Target,
    /// The draft's own head, whose tokens are fixed.
    Draft,
}

/// The rows that a head has.
#[derive(Debug)]
struct Part {
    /// Token of each row, ascending.
    tokens: Vec<TokenId>,
    /// The head from which the rows were selected; `None` if no other rows exist.
    whole: Option<WholeHead>,
    /// The same tokens on the device, uploaded on first use.
    #[cfg(feature = "cube")]
    on_device: OnceLock<Tensor<1, Int>>,
}

/// The source of rows of additional tokens.
#[derive(Debug)]
struct WholeHead {
    linear: Linear,
    /// Whether each token is listed, indexed by token.
    is_listed: Vec<bool>,
}

/// Rows that a sequence needs in addition to the listed ones: those of the tokens of its prompt and
/// its answer.
#[derive(Debug, Default)]
pub(super) struct AddedTokens {
    /// Added tokens, ascending.
    tokens: Vec<TokenId>,
    /// The column of each added token among listed and added tokens.
    columns: Vec<usize>,
    /// The same tokens, for lookup.
    known: HashSet<TokenId>,
    /// Rows of the head for `tokens`.
    linear: Option<Linear>,
}

/// The part of the product with the head that belongs to one sequence.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scoring<'a> {
    /// Number of its rows.
    pub(super) rows: usize,
    /// The candidates that it requests.
    pub(super) ask: Ask,
    pub(super) added: &'a AddedTokens,
}

impl DraftHead {
    /// Wraps the whole head of the target.
    pub(crate) fn new(linear: Linear) -> Self {
        Self {
            origin: HeadOrigin::Target,
            linear,
            part: None,
        }
    }

    /// Returns the model that the head belongs to.
    pub(crate) fn origin(&self) -> HeadOrigin {
        self.origin
    }

    /// Restricts the target's head to the rows of `tokens`.
    pub(crate) fn restricted(whole: &Linear, mut tokens: Vec<TokenId>) -> Self {
        tokens.sort_unstable();
        let mut is_listed = vec![false; whole.n_outputs()];
        for &token in &tokens {
            if let Some(listed) = is_listed.get_mut(token as usize) {
                *listed = true;
            }
        }
        Self {
            origin: HeadOrigin::Target,
            linear: whole.select_outputs(&tokens),
            part: Some(Arc::new(Part {
                tokens,
                whole: Some(WholeHead {
                    linear: whole.clone(),
                    is_listed,
                }),
                #[cfg(feature = "cube")]
                on_device: OnceLock::new(),
            })),
        }
    }

    /// Wraps the draft's own head. `tokens` contains the token of each row; `None` means that row
    /// numbers are the target's token ids. Sequences cannot add tokens to such a head.
    pub(crate) fn own(linear: Linear, tokens: Option<Vec<TokenId>>) -> Self {
        let Some(mut tokens) = tokens else {
            return Self {
                origin: HeadOrigin::Draft,
                linear,
                part: None,
            };
        };
        let linear = if tokens.is_sorted() {
            linear
        } else {
            let mut rows: Vec<u32> = (0..).take(tokens.len()).collect();
            rows.sort_unstable_by_key(|&row| tokens[row as usize]);
            tokens.sort_unstable();
            linear.select_outputs(&rows)
        };
        let whole = None;
        Self {
            origin: HeadOrigin::Draft,
            linear,
            part: Some(Arc::new(Part {
                tokens,
                whole,
                #[cfg(feature = "cube")]
                on_device: OnceLock::new(),
            })),
        }
    }

    /// Returns the number of tokens, or `None` if the head has all.
    pub(crate) fn vocab_len(&self) -> Option<usize> {
        self.part.as_ref().map(|part| part.tokens.len())
    }

    /// Returns the number of rows of the head.
    pub(crate) fn n_outputs(&self) -> usize {
        self.linear.n_outputs()
    }

    /// Adds those of `tokens` that are not listed to the added tokens of a sequence.
    pub(super) fn add(&self, added: &mut AddedTokens, tokens: impl IntoIterator<Item = TokenId>) {
        let Some(part) = &self.part else { return };
        let Some(WholeHead { linear, is_listed }) = &part.whole else {
            return;
        };
        let before = added.tokens.len();
        for token in tokens {
            let is_listed = is_listed.get(token as usize).copied();
            let is_full = added.tokens.len() == MOST_ADDED;
            if !is_full && is_listed == Some(false) && added.known.insert(token) {
                added.tokens.push(token);
            }
        }
        if added.tokens.len() > before {
            added.tokens.sort_unstable();
            let columns =
                added.tokens.iter().enumerate().map(|(place, added)| {
                    place + part.tokens.partition_point(|token| token < added)
                });
            added.columns = columns.collect();
            added.linear = Some(linear.select_outputs(&added.tokens));
        }
    }

    /// Returns the best tokens after each row of `hidden` `[rows, hidden]`. Probabilities are
    /// normalised over the tokens of the head and those that the sequence added.
    ///
    /// # Arguments
    /// * `sequences` - the sequences of the rows, in order. Each has its own result.
    pub(super) fn top_k(
        &self,
        hidden: &Tensor<2>,
        sequences: &[Scoring<'_>],
    ) -> Vec<Result<TopK, BoxError>> {
        let logits = self.linear.forward(hidden.clone());
        let Some(part) = &self.part else {
            let asked = sequences.iter().map(|scoring| (scoring.rows, scoring.ask));
            return candidates(logits, &Vec::from_iter(asked));
        };
        if part.whole.is_none() {
            let asked = sequences.iter().map(|scoring| (scoring.rows, scoring.ask));
            let mut found = candidates(logits, &Vec::from_iter(asked));
            for token in found.iter_mut().flatten().flat_map(|top| &mut top.tokens) {
                *token = part.tokens[*token as usize];
            }
            return found;
        }
        let mut start = 0;
        let each = sequences.iter().map(|scoring| {
            let rows = start..start + scoring.rows;
            start = rows.end;
            let added = scoring.added;
            let mut logits = slice_rows(&logits, rows.clone());
            if let Some(linear) = &added.linear {
                let more = linear.forward(slice_rows(hidden, rows));
                logits = insert_columns(logits, more, &added.columns)?;
            }
            let found = candidates(logits, &[(scoring.rows, scoring.ask)]);
            let mut found = found.into_iter().next().ok_or("no row was scored")??;
            for token in &mut found.tokens {
                *token = part.token(added, *token as usize);
            }
            Ok(found)
        });
        each.collect()
    }
}

/// Methods for ranking columns on a device. Here the columns have another order: first those of the
/// head, then those that the sequence added.
#[cfg(feature = "cube")]
impl DraftHead {
    /// Returns the logits `[rows, columns]` of `hidden` `[rows, hidden]`.
    pub(super) fn score(&self, hidden: Tensor<2>, added: &AddedTokens) -> Tensor<2> {
        let listed = self.linear.forward(hidden.clone());
        match &added.linear {
            None => listed,
            Some(linear) => Tensor::cat(vec![listed, linear.forward(hidden)], 1),
        }
    }

    /// Returns the token of a column.
    pub(super) fn token(&self, added: &AddedTokens, column: usize) -> TokenId {
        match &self.part {
            None => TokenId::try_from(column).unwrap_or(TokenId::MAX),
            Some(part) => match part.tokens.get(column) {
                Some(&token) => token,
                None => added.tokens[column - part.tokens.len()],
            },
        }
    }

    /// Returns the tokens of all columns on the device, or `None` if column numbers are token ids.
    pub(super) fn tokens(&self, added: &AddedTokens, device: &Device) -> Option<Tensor<1, Int>> {
        let part = self.part.as_ref()?;
        let listed = || row_numbers(&part.tokens, device);
        let listed = part.on_device.get_or_init(listed).clone();
        Some(match &added.linear {
            None => listed,
            Some(_) => Tensor::cat(vec![listed, row_numbers(&added.tokens, device)], 0),
        })
    }
}

impl Part {
    /// Returns the token of a column when `added` tokens are inserted among the listed ones.
    fn token(&self, added: &AddedTokens, column: usize) -> TokenId {
        match added.columns.binary_search(&column) {
            Ok(place) => added.tokens[place],
            Err(added_before) => self.tokens[column - added_before],
        }
    }
}

#[cfg(all(test, feature = "flex"))]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn list(tokens: &[TokenId]) -> DraftVocabFile {
        DraftVocabFile {
            vocab_size: 10,
            tokens: tokens.to_vec(),
        }
    }

    #[test]
    fn lists_are_checked() {
        let path = Path::new("list.json");
        let reason = |tokens: &[TokenId]| list(tokens).checked(path, 10).unwrap_err().to_string();
        assert!(reason(&[]).contains("no token"));
        assert!(reason(&[1, 10]).contains("10 lies outside the target's vocabulary of 10"));
        assert!(reason(&[1, 3, 1]).contains("1 occurs twice"));
        assert_eq!(list(&[9, 0]).checked(path, 10).unwrap(), [9, 0]);
    }

    /// An identity head: row `i` scores token `i` with the `i`-th entry of the hidden state.
    fn linear(vocab: usize) -> Linear {
        Linear::from_tensors(Tensor::<2>::eye(vocab, &Device::flex()), None)
    }

    fn best(head: &DraftHead, added: &AddedTokens, states: &[f32], k: usize) -> Vec<TokenId> {
        let hidden = Tensor::<1>::from_floats(states, &Device::flex()).unsqueeze();
        let scoring = Scoring {
            rows: 1,
            ask: Ask::best(k),
            added,
        };
        let top = head.top_k(&hidden, &[scoring]).pop().unwrap().unwrap();
        top.tokens
    }

    #[test]
    fn listed_and_added_tokens_are_scored_as_what_they_are() {
        let head = DraftHead::restricted(&linear(8), vec![6, 1, 4]);
        let mut added = AddedTokens::default();
        let states = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0];
        assert_eq!(best(&head, &added, &states, 9), [6, 4, 1]);
        head.add(&mut added, [7, 4, 0, 99]);
        assert_eq!(best(&head, &added, &states, 9), [7, 6, 4, 1, 0]);
        head.add(&mut added, [2, 7]);
        assert_eq!(best(&head, &added, &states, 9), [7, 6, 4, 2, 1, 0]);
    }

    #[test]
    fn a_head_of_its_own_may_list_its_tokens_in_any_order() {
        let own = linear(3);
        let head = DraftHead::own(own, Some(vec![30, 10, 20]));
        let nothing = AddedTokens::default();
        assert_eq!(best(&head, &nothing, &[3.0, 2.0, 1.0], 3), [30, 10, 20]);
        assert_eq!(best(&head, &nothing, &[1.0, 2.0, 3.0], 3), [20, 10, 30]);
    }

    fn place(vocab_size: usize, hidden: usize, target_parameters: usize) -> VocabPlace<'static> {
        VocabPlace {
            draft: Path::new("/there/is/no/draft"),
            vocab_size,
            hidden,
            target_parameters,
        }
    }

    #[test]
    fn numbers_are_checked() {
        let place = place(10, 1, 1);
        assert_eq!(
            DraftVocab::First(3).tokens(&place).unwrap().unwrap(),
            [0, 1, 2]
        );
        assert!(DraftVocab::First(0).tokens(&place).is_err());
        assert!(DraftVocab::First(11).tokens(&place).is_err());
        assert_eq!(DraftVocab::All.tokens(&place).unwrap(), None);
    }

    #[test]
    fn as_many_tokens_as_a_step_may_cost() {
        let n = |place: VocabPlace<'_>| {
            DraftVocab::Auto
                .tokens(&place)
                .unwrap()
                .map(|tokens| tokens.len())
        };
        // SmolLM2-135M, Qwen2.5-VL-7B, LLaVA-1.5-7B, a tiny model.
        assert_eq!(n(place(49_152, 576, 134_515_008)), Some(8192));
        assert_eq!(n(place(152_064, 3584, 7_070_619_136)), Some(68_608));
        assert_eq!(n(place(32_064, 4096, 6_607_000_000)), None);
        assert_eq!(n(place(608, 64, 100_000)), None);
    }

    #[test]
    fn a_list_beside_the_draft_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(
            dir.path().join(DraftVocabFile::NAME),
            serde_json::to_string(&list(&[7, 2])).unwrap(),
        )
        .unwrap();
        let place = VocabPlace {
            draft: dir.path(),
            ..place(10, 1, 1)
        };
        assert_eq!(DraftVocab::Auto.tokens(&place).unwrap().unwrap(), [7, 2]);
        let small = VocabPlace {
            vocab_size: 5,
            ..place
        };
        let error = DraftVocab::Auto.tokens(&small).unwrap_err().to_string();
        assert!(
            error.contains("draft_vocab.json") && error.contains('7'),
            "{error}"
        );
    }
}
