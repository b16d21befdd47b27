//! One conversation's draft: the network, its cache and the image in force.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Int, Tensor, TensorData, s};
use vispec_core::{Beam, BoxError, DraftModel, Expansion, KvCache, Prompt as _, TokenId};

use super::network::DraftNetwork;
use super::vocab::DraftHead;
use crate::nn::{AttentionPlan, DecoderStack, Embedding, ModelCache, RotaryTable};
use crate::prompt::EncodedPrompt;
use crate::target::VlmTarget;

/// The weights that a ViSpec or EAGLE-2 draft works with. Cloning shares them.
#[derive(Debug, Clone)]
pub struct NeuralDraft {
    pub(super) name: &'static str,
    pub(super) network: Arc<DraftNetwork>,
    /// The decoder of `network`, ready to run.
    pub(super) stack: Arc<DecoderStack>,
    pub(super) embedding: Embedding,
    /// The target's output head.
    pub(super) head: DraftHead,
}

impl NeuralDraft {
    /// The network.
    #[must_use]
    pub fn network(&self) -> &DraftNetwork {
        &self.network
    }

    /// Runs the decoder over `rows` `[rows, hidden]` and appends them to `cache`.
    fn decode(
        &self,
        rows: Tensor<2>,
        positions: &[i64],
        plan: &AttentionPlan,
        cache: &mut ModelCache,
    ) -> Tensor<2> {
        let config = self.stack.config();
        let like = (&rows.device(), rows.dtype());
        let rotary = RotaryTable::new(positions, config.head_dim, config.rope_theta, like);
        self.stack.forward(rows, &rotary, plan, cache)
    }

    /// Runs a pass over `rows` where its kernels find their threads awake.
    fn step<R: Send>(&self, rows: usize, pass: impl FnOnce() -> R + Send) -> R {
        self.stack.step(rows, self.head.n_outputs(), pass)
    }

    /// Starts a conversation.
    #[must_use]
    pub fn session(&self) -> NeuralDraftSession {
        NeuralDraftSession {
            draft: self.clone(),
            state: None,
            unread: None,
            postponed: Vec::new(),
            last_output: None,
        }
    }
}

/// A draft within one conversation.
#[derive(Debug)]
pub struct NeuralDraftSession {
    draft: NeuralDraft,
    state: Option<State>,
    /// What `read_prompt` has to take in before anything else.
    unread: Option<UnreadPrompt>,
    /// Tokens and features that the next commit has to take in first.
    postponed: Vec<(Vec<TokenId>, Tensor<2>)>,
    last_output: Option<Tensor<2>>,
}

#[derive(Debug)]
struct UnreadPrompt {
    prompt: EncodedPrompt,
    features: Tensor<2>,
    next: TokenId,
}

#[derive(Debug)]
struct State {
    /// Rows of committed tokens, then rows of the tree under growth.
    cache: ModelCache,
    committed_rows: usize,
    /// Position of the next committed token, in the uncompressed sequence.
    next_position: usize,
    image: Option<Tensor<2>>,
}

/// `begin` was not called before `commit` or `expand`.
#[derive(Debug, thiserror::Error)]
#[error("the draft has not read a prompt yet")]
struct NotBegun;

impl NeuralDraftSession {
    /// Output rows `[rows, hidden]` of the last pass over a prompt or over accepted tokens.
    #[must_use]
    pub fn last_output(&self) -> Option<&Tensor<2>> {
        self.last_output.as_ref()
    }

    /// Committed rows of the cache and the position of the next token. With images the former is
    /// smaller, since compressed images take fewer rows than positions.
    #[must_use]
    pub fn committed(&self) -> Option<(usize, usize)> {
        self.state
            .as_ref()
            .map(|state| (state.committed_rows, state.next_position))
    }

    /// Drops everything of the generation before.
    fn forget(&mut self) {
        self.state = None;
        self.unread = None;
        self.postponed.clear();
        self.last_output = None;
    }

    /// Scores the last row of `output`.
    fn expansion(&mut self, output: Tensor<2>, k: usize) -> Result<Expansion<Tensor<2>>, BoxError> {
        let [n_rows, _] = output.dims();
        let last = output.clone().slice(s![n_rows - 1..n_rows, ..]);
        self.last_output = Some(output);
        let top = self.draft.head.top_k(last.clone(), k)?;
        Ok(Expansion { top, hidden: last })
    }

    fn read_prompt(
        &mut self,
        prompt: &EncodedPrompt,
        features: Tensor<2>,
        next: TokenId,
    ) -> Result<Tensor<2>, BoxError> {
        let network = self.draft.network.clone();
        let like = (&features.device(), features.dtype());
        let mut cache = self.draft.stack.new_cache(like);
        let [n_tokens, _] = features.dims();
        let next = self.draft.embedding.forward(&[next], features.dtype())?;
        let embeds = Tensor::cat(
            vec![prompt.embeds().clone().slice(s![1..n_tokens, ..]), next],
            0,
        );
        let images: Vec<Range<usize>> = prompt
            .image_runs()
            .iter()
            .map(|run| run.start.saturating_sub(1)..run.end - 1)
            .collect();
        let read = network.read_prompt(&embeds, &features, &images);
        let plan = AttentionPlan::Causal { prefix: 0 };
        let output = self
            .draft
            .decode(read.rows, &read.positions, &plan, &mut cache);
        self.state = Some(State {
            committed_rows: cache.n_rows(),
            cache,
            next_position: n_tokens,
            image: read.image,
        });
        Ok(output)
    }

    /// Reads a prompt that was postponed.
    fn catch_up(&mut self) -> Result<(), BoxError> {
        let Some(unread) = self.unread.take() else {
            return Ok(());
        };
        let UnreadPrompt {
            prompt,
            features,
            next,
        } = unread;
        self.read_prompt(&prompt, features, next).map(drop)
    }

    fn take_in(
        &mut self,
        accepted: &[TokenId],
        features: Tensor<2>,
        next: TokenId,
        k: usize,
    ) -> Result<Expansion<Tensor<2>>, BoxError> {
        self.catch_up()?;
        let state = self.state.as_mut().ok_or(NotBegun)?;
        state.cache.truncate(state.committed_rows);
        let mut tokens = Vec::new();
        let mut parts = Vec::new();
        for (earlier, features) in self.postponed.drain(..) {
            tokens.extend(earlier);
            parts.push(features);
        }
        tokens.extend(accepted.iter().copied().chain([next]));
        let features = if parts.is_empty() {
            features
        } else {
            parts.push(features);
            Tensor::cat(parts, 0)
        };
        let embeds = self.draft.embedding.forward(&tokens, features.dtype())?;
        let rows = self
            .draft
            .network
            .fuse(embeds, features, state.image.as_ref());
        let positions: Vec<i64> = (state.next_position..state.next_position + tokens.len())
            .map(|p| i64::try_from(p).unwrap_or(i64::MAX))
            .collect();
        let plan = AttentionPlan::Causal {
            prefix: state.committed_rows,
        };
        let output = self.draft.decode(rows, &positions, &plan, &mut state.cache);
        state.committed_rows += tokens.len();
        state.next_position += tokens.len();
        self.expansion(output, k)
    }

    fn score(
        &mut self,
        beam: &Beam,
        parents: &Tensor<2>,
        k: usize,
    ) -> Result<Expansion<Tensor<2>>, BoxError> {
        let state = self.state.as_mut().ok_or(NotBegun)?;
        let rows: Vec<i64> = beam
            .parent_rows
            .iter()
            .map(|&row| i64::try_from(row).unwrap_or(i64::MAX))
            .collect();
        let rows = Tensor::<1, Int>::from_data(
            TensorData::new(rows, [beam.tokens.len()]),
            &parents.device(),
        );
        let hidden = parents.clone().select(0, rows);
        let embeds = self.draft.embedding.forward(&beam.tokens, hidden.dtype())?;
        let inputs = self
            .draft
            .network
            .fuse(embeds, hidden, state.image.as_ref());
        let position = i64::try_from(state.next_position + beam.level).unwrap_or(i64::MAX);
        let positions = vec![position; beam.tokens.len()];
        let plan = AttentionPlan::tree(state.committed_rows, beam.paths.iter().map(Vec::as_slice));
        let output = self
            .draft
            .decode(inputs, &positions, &plan, &mut state.cache);
        let top = self.draft.head.top_k(output.clone(), k)?;
        Ok(Expansion {
            top,
            hidden: output,
        })
    }
}

impl DraftModel<VlmTarget> for NeuralDraftSession {
    type Hidden = Tensor<2>;

    fn name(&self) -> &str {
        self.draft.name
    }

    fn tokens_to_read(&self, prompt: &EncodedPrompt) -> usize {
        let images = prompt.image_runs().iter().map(ExactSizeIterator::len);
        self.draft
            .network
            .tokens_to_read(prompt.token_ids().len(), images)
    }

    fn begin(
        &mut self,
        prompt: &EncodedPrompt,
        features: Tensor<2>,
        next: TokenId,
        k: usize,
    ) -> Result<Expansion<Tensor<2>>, BoxError> {
        let draft = self.draft.clone();
        let [rows, _] = features.dims();
        self.forget();
        draft.step(rows, || {
            let output = self.read_prompt(prompt, features, next)?;
            self.expansion(output, k)
        })
    }

    fn postpone_prompt(
        &mut self,
        prompt: &EncodedPrompt,
        features: Tensor<2>,
        next: TokenId,
    ) -> Result<(), BoxError> {
        self.forget();
        self.unread = Some(UnreadPrompt {
            prompt: prompt.clone(),
            features,
            next,
        });
        Ok(())
    }

    fn commit(
        &mut self,
        accepted: &[TokenId],
        features: Tensor<2>,
        next: TokenId,
        k: usize,
    ) -> Result<Expansion<Tensor<2>>, BoxError> {
        let draft = self.draft.clone();
        let postponed = self.postponed.iter().map(|(tokens, _)| tokens.len());
        let prompt = self.unread.iter().map(|unread| unread.features.dims()[0]);
        let rows = accepted.len() + 1 + postponed.sum::<usize>() + prompt.sum::<usize>();
        draft.step(rows, || self.take_in(accepted, features, next, k))
    }

    fn postpone(
        &mut self,
        accepted: &[TokenId],
        features: Tensor<2>,
        next: TokenId,
    ) -> Result<(), BoxError> {
        if self.state.is_none() && self.unread.is_none() {
            return Err(NotBegun.into());
        }
        let tokens = accepted.iter().copied().chain([next]).collect();
        self.postponed.push((tokens, features));
        Ok(())
    }

    fn expand(
        &mut self,
        beam: &Beam,
        parents: &Tensor<2>,
        k: usize,
    ) -> Result<Expansion<Tensor<2>>, BoxError> {
        let draft = self.draft.clone();
        draft.step(beam.tokens.len(), || self.score(beam, parents, k))
    }
}
