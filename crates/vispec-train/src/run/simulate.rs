//! Simulated decoding: evaluates a draft on the tokens that the target wrote.
//!
//! The trained draft is loaded like any other draft, and drafts with the code that decoding uses.
//! Instead of a verify pass of the target, its captured answer decides which tokens are accepted.

use std::ops::Range;

use burn::tensor::{Device, Tensor, TensorData};
use ndarray::{Array2, s};
use serde::{Deserialize, Serialize};
use vispec_core::{Drafter, NodeId, TokenId, TokenTree, TreeShape, TreeSize};
use vispec_data::capture::CapturedSample;
use vispec_models::{AnyDrafter, Draft, EncodedPrompt};
use vispec_processor::Positions;

use crate::data::Features;
use crate::error::TrainError;
use crate::loss::Head;

/// Number of steps on the draft's own output whose accuracy is reported, as in upstream.
pub(crate) const ROLLED_STEPS: usize = 5;

/// Accepted tokens and the cycles that accepted them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acceptance {
    /// Number of accepted tokens, without bonus tokens.
    pub accepted: usize,
    /// Number of cycles.
    pub cycles: usize,
}

impl Acceptance {
    fn add(&mut self, accepted: usize) {
        self.accepted += accepted;
        self.cycles += 1;
    }

    /// Returns the mean acceptance length; `None` without a cycle.
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    pub(crate) fn tau(&self) -> Option<f64> {
        (self.cycles > 0).then(|| self.accepted as f64 / self.cycles as f64)
    }
}

/// Results of simulated drafting, summed over samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drafting {
    /// Acceptance of greedy chains.
    pub chain: Acceptance,
    /// Acceptance of dynamic trees.
    pub tree: Acceptance,
    /// Number of correct and of attempted guesses of each step on the draft's own output.
    pub rolled: [(usize, usize); ROLLED_STEPS],
}

impl Drafting {
    /// Returns the share of correct guesses of each step; `None` if there were no attempts.
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    pub(crate) fn step_accuracy(&self) -> [Option<f64>; ROLLED_STEPS] {
        self.rolled
            .map(|(correct, attempted)| (attempted > 0).then(|| correct as f64 / attempted as f64))
    }
}

/// The draft to simulate, and how it drafts.
#[derive(Debug)]
pub(crate) struct Simulation<'s> {
    /// The draft, loaded for inference.
    pub draft: &'s Draft,
    /// The target's head, which gives the teacher's best tokens.
    pub head: &'s Head,
    /// Features that the draft reads.
    pub features: Features,
    /// Number of tokens in a chain.
    pub chain_len: usize,
    /// Shape of the tree.
    pub tree: TreeShape,
}

/// The first answer of a sample, on the device of the draft.
struct Answer<'s> {
    sample: &'s CapturedSample,
    prompt: EncodedPrompt,
    /// Features that the draft reads, `[tokens, features]`.
    features: Tensor<2>,
    /// Hidden states that the head reads, `[tokens, hidden]`.
    hidden: Tensor<2>,
    /// The first supervised position. The prompt ends here.
    first: usize,
    /// The end of the answer.
    end: usize,
}

impl Simulation<'_> {
    /// Simulates decoding of the first answer of a sample, and adds the results to `sums`.
    ///
    /// # Errors
    /// [`TrainError::Draft`] if the drafter fails, [`TrainError::Device`] if values cannot be read.
    pub(crate) fn draft_through(
        &self,
        sample: &CapturedSample,
        sums: &mut Drafting,
    ) -> Result<(), TrainError> {
        let Some(answer) = Answer::new(sample, self.features, &self.head.device()) else {
            return Ok(());
        };
        self.roll(&answer, sums)?;
        self.grow(&answer, sums)
    }

    /// Drafts a chain at every position of the answer. Counts the accuracy of each step, and the
    /// acceptance in the cycles that decoding would have run.
    fn roll(&self, answer: &Answer<'_>, sums: &mut Drafting) -> Result<(), TrainError> {
        let best = self.best_tokens(answer)?;
        let levels = self.chain_len.max(ROLLED_STEPS);
        let mut drafter = self.drafter(levels, 1, levels + 1)?;
        let mut next_cycle = answer.first;
        for position in answer.first..answer.end.saturating_sub(1) {
            let tree = if position == answer.first {
                answer.begin(&mut drafter)?
            } else {
                answer.advance(&mut drafter, position, 0)?
            };
            let guesses = &tree.tokens()[1..];
            count_steps(guesses, &best[position - answer.first..], sums);
            let written = &answer.sample.token_ids[position + 2..answer.end];
            if position == next_cycle && written.len() >= self.chain_len {
                let right = matching(&guesses[..self.chain_len.min(guesses.len())], written);
                sums.chain.add(right);
                next_cycle = position + 1 + right;
            }
        }
        Ok(())
    }

    /// Drafts a dynamic tree in each cycle.
    fn grow(&self, answer: &Answer<'_>, sums: &mut Drafting) -> Result<(), TrainError> {
        let mut drafter = self.draft.drafter(TreeSize::Fixed(self.tree));
        let mut position = answer.first;
        let mut tree = answer.begin(&mut drafter)?;
        // Stop before a cycle so close to the end that it could not accept its whole tree.
        while position + 2 + tree.max_depth().max(1) <= answer.end {
            let accepted = walk(&tree, &answer.sample.token_ids[position + 2..answer.end]);
            sums.tree.add(accepted);
            position += accepted + 1;
            if position + 2 > answer.end {
                break;
            }
            tree = answer.advance(&mut drafter, position, accepted)?;
        }
        Ok(())
    }

    fn drafter(&self, levels: usize, width: usize, nodes: usize) -> Result<AnyDrafter, TrainError> {
        let shape = TreeShape::new(levels, width, nodes).map_err(|error| TrainError::Setting {
            field: "evaluation.chain_len",
            found: self.chain_len.to_string(),
            expected: error.to_string(),
        })?;
        Ok(self.draft.drafter(TreeSize::Fixed(shape)))
    }

    /// Returns the teacher's best token after each hidden state from `first + 1`.
    fn best_tokens(&self, answer: &Answer<'_>) -> Result<Vec<TokenId>, TrainError> {
        let [_, hidden] = answer.hidden.dims();
        let states = answer.hidden.clone();
        let states = states.slice([answer.first + 1..answer.end, 0..hidden]);
        self.head.best_tokens(&states)
    }
}

/// Returns the number of leading guesses that match the written tokens.
fn matching(guesses: &[TokenId], written: &[TokenId]) -> usize {
    guesses
        .iter()
        .zip(written)
        .take_while(|(a, b)| a == b)
        .count()
}

/// Counts the guesses of each step. All guesses after the first wrong one count as wrong.
fn count_steps(guesses: &[TokenId], best: &[TokenId], sums: &mut Drafting) {
    let right = matching(guesses, best);
    for (step, (correct, attempted)) in sums.rolled.iter_mut().enumerate().take(best.len()) {
        *attempted += 1;
        *correct += usize::from(step < right);
    }
}

/// Returns the number of written tokens that the tree contains on a path from its root.
fn walk(tree: &TokenTree, written: &[TokenId]) -> usize {
    let mut node = NodeId::ROOT;
    let mut accepted = 0;
    for &token in written {
        match tree.child_with(node, token) {
            Some(child) => node = child,
            None => break,
        }
        accepted += 1;
    }
    accepted
}

/// Returns the token range of each image.
fn runs(mask: &[bool]) -> Vec<Range<usize>> {
    let mut runs = Vec::new();
    let mut start = None;
    for (index, &image) in mask.iter().chain([&false]).enumerate() {
        match (image, start) {
            (true, None) => start = Some(index),
            (false, Some(first)) => {
                runs.push(first..index);
                start = None;
            }
            _ => {}
        }
    }
    runs
}

fn upload(values: &Array2<f32>, rows: Range<usize>, device: &Device) -> Tensor<2> {
    let part = values.slice(s![rows, ..]);
    let shape = [part.nrows(), part.ncols()];
    Tensor::from_data(
        TensorData::new(part.iter().copied().collect::<Vec<f32>>(), shape),
        device,
    )
}

impl<'s> Answer<'s> {
    /// Returns `None` if the sample's first answer is too short.
    fn new(sample: &'s CapturedSample, features: Features, device: &Device) -> Option<Self> {
        let first = sample.loss_mask.iter().position(|&m| m)?;
        let rest = &sample.loss_mask[first..];
        let end = first + rest.iter().position(|&m| !m).unwrap_or(rest.len());
        if end < first + 3 {
            return None;
        }
        let prompt_len = first + 1;
        let index = (0..prompt_len).map(|i| u32::try_from(i).unwrap_or(u32::MAX));
        let prompt = EncodedPrompt::new(
            sample.token_ids[..prompt_len].to_vec(),
            upload(&sample.input_embeds, 0..prompt_len, device),
            runs(&sample.image_mask[..prompt_len]),
            (Positions::Sequential(index.collect()), 0),
        );
        let hidden = upload(&sample.hidden_states, 0..end, device);
        Some(Self {
            sample,
            prompt,
            features: match (features, &sample.residual_states) {
                (Features::ResidualStates(_), Some(states)) => upload(states, 0..end, device),
                _ => hidden.clone(),
            },
            hidden,
            first,
            end,
        })
    }

    fn failed(&self) -> impl FnOnce(vispec_core::BoxError) -> TrainError + '_ {
        |source| TrainError::Draft {
            id: self.sample.id.clone(),
            source,
        }
    }

    fn rows(&self, rows: Range<usize>) -> Tensor<2> {
        let [_, hidden] = self.features.dims();
        self.features.clone().slice([rows, 0..hidden])
    }

    fn begin(&self, drafter: &mut AnyDrafter) -> Result<TokenTree, TrainError> {
        let next = self.sample.token_ids[self.first + 1];
        let first = drafter.begin(&self.prompt, self.rows(0..self.first + 1), next);
        first
            .and_then(|proposal| proposal.finish(drafter))
            .map_err(self.failed())
    }

    /// Advances to `position` after `accepted` tokens were accepted.
    fn advance(
        &self,
        drafter: &mut AnyDrafter,
        position: usize,
        accepted: usize,
    ) -> Result<TokenTree, TrainError> {
        let tokens = &self.sample.token_ids;
        let kept = &tokens[position + 1 - accepted..=position];
        let features = self.rows(position - accepted..position + 1);
        let next = drafter.advance(kept, features, tokens[position + 1]);
        next.and_then(|proposal| proposal.finish(drafter))
            .map_err(self.failed())
    }
}
