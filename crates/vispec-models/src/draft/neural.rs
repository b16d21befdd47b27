//! The draft of one conversation: the network, its KV cache and the most recent image.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{DType, Tensor, s};
#[cfg(feature = "cube")]
use vispec_core::GrownLevel;
use vispec_core::{
    Ask, Beam, BoxError, DraftModel, DraftPass, DraftPassOf, DraftStep, Expansion, Prompt as _,
    TokenId, TopK,
};

#[cfg(feature = "cube")]
use super::grown;
use super::inputs::{PromptEmbeds, Reading};
use super::network::{DraftNetwork, DraftPromptInput};
use super::neural_pass;
use super::positions::Position;
use super::reading::{DraftEmbeds, DraftReading};
use super::vocab::{AddedTokens, DraftHead, Scoring};
use crate::features::FeatureSpec;
use crate::nn::{AttentionPlan, DecoderStack, Embedding, ModelCache, StackInput, StackSegment};
use crate::prompt::EncodedPrompt;
use crate::target::VlmTarget;

/// The weights of a ViSpec, EAGLE-2 or EAGLE-3 draft. Cloning shares them.
#[derive(Debug, Clone)]
pub struct NeuralDraft {
    pub(super) name: &'static str,
    pub(super) network: Arc<DraftNetwork>,
    /// The decoder of `network`, ready to run.
    pub(super) stack: Arc<DecoderStack>,
    pub(super) embedding: Embedding,
    /// The target's output head, or the draft's own.
    pub(super) head: Arc<DraftHead>,
    pub(super) reading: Arc<Reading>,
    /// Data type of activations and caches.
    pub(super) dtype: DType,
}

impl NeuralDraft {
    /// Returns which hidden states of the target the draft reads.
    #[must_use]
    pub fn features(&self) -> &FeatureSpec {
        &self.reading.features
    }

    /// Changes how the draft reads prompts.
    pub(super) fn with_reading(mut self, reading: DraftReading) -> Self {
        self.reading = Arc::new(Reading {
            embeds: match reading.embeds {
                DraftEmbeds::Tokens => PromptEmbeds::OfTokens,
                DraftEmbeds::Target => PromptEmbeds::OfTarget,
            },
            positions_of: reading.positions,
            ..(*self.reading).clone()
        });
        self
    }

    /// Returns the network.
    #[must_use]
    pub fn network(&self) -> &DraftNetwork {
        &self.network
    }

    /// Returns whether both can share a pass, which requires the same network and the same head.
    pub(super) fn shares_passes_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.network, &other.network) && Arc::ptr_eq(&self.head, &other.head)
    }

    /// Runs the decoder over the rows of several sequences and appends the rows to their caches.
    pub(super) fn decode(
        &self,
        rows: StackInput,
        positions: &[Position],
        segments: &mut [StackSegment<'_>],
    ) -> Tensor<2> {
        let like = (&rows.residual.device(), rows.residual.dtype());
        let rotary = self
            .reading
            .positions
            .rotary(positions, self.stack.config(), like);
        self.stack.forward(rows, &rotary, segments)
    }

    /// Returns the best next tokens for the outputs `[rows, hidden]` of several sequences.
    pub(super) fn top_k(
        &self,
        output: Tensor<2>,
        sequences: &[Scoring<'_>],
    ) -> Vec<Result<TopK, BoxError>> {
        self.head.top_k(&self.network.read_out(output), sequences)
    }

    /// Returns the bytes per row of a cache.
    pub(super) fn cache_bytes_per_row(&self) -> usize {
        self.stack.cache_bytes_per_row(self.dtype)
    }

    /// Runs a pass over `rows` rows in the kernels' thread pool, so that its kernels need not wake
    /// threads.
    pub(super) fn step<R: Send>(&self, rows: usize, pass: impl FnOnce() -> R + Send) -> R {
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
            added: AddedTokens::default(),
        }
    }
}

/// A draft within one conversation.
#[derive(Debug)]
pub struct NeuralDraftSession {
    pub(super) draft: NeuralDraft,
    pub(super) state: Option<State>,
    /// A postponed prompt, which must be read before anything else.
    unread: Option<UnreadPrompt>,
    /// Postponed tokens and features, which the next commit must read first.
    pub(super) postponed: Vec<(Vec<TokenId>, Tensor<2>)>,
    pub(super) last_output: Option<Tensor<2>>,
    /// Tokens that the draft may propose in addition to those of the head.
    pub(super) added: AddedTokens,
}

#[derive(Debug)]
struct UnreadPrompt {
    prompt: EncodedPrompt,
    features: Tensor<2>,
    next: TokenId,
}

/// The state that a draft keeps for a conversation.
#[derive(Debug)]
pub(super) struct State {
    /// Rows of committed tokens, followed by rows of the growing tree.
    pub(super) cache: ModelCache,
    pub(super) committed_rows: usize,
    /// Index of the next committed token in the uncompressed sequence.
    pub(super) next_position: usize,
    /// Rotary position of a token minus its index.
    pub(super) position_delta: i64,
    pub(super) image: Option<Tensor<2>>,
}

/// `begin` was not called before `commit` or `expand`.
#[derive(Debug, thiserror::Error)]
#[error("the draft has not read a prompt yet")]
pub(super) struct NotBegun;

impl State {
    /// Returns the rotary position of the token that is `ahead` tokens after the next committed
    /// one.
    pub(super) fn position(&self, ahead: usize) -> Position {
        let place = i64::try_from(self.next_position + ahead).unwrap_or(i64::MAX);
        [place.saturating_add(self.position_delta); 3]
    }
}

impl NeuralDraftSession {
    /// Returns the output rows `[rows, hidden]` of the last pass over a prompt or over accepted
    /// tokens.
    #[must_use]
    pub fn last_output(&self) -> Option<&Tensor<2>> {
        self.last_output.as_ref()
    }

    /// Returns the number of committed rows in the cache and the position of the next token. With
    /// images the number of rows is smaller, since compressed images take fewer rows than
    /// positions.
    #[must_use]
    pub fn committed(&self) -> Option<(usize, usize)> {
        self.state
            .as_ref()
            .map(|state| (state.committed_rows, state.next_position))
    }

    /// Drops all state of the previous generation.
    fn forget(&mut self) {
        self.state = None;
        self.unread = None;
        self.postponed.clear();
        self.last_output = None;
        self.added = AddedTokens::default();
    }

    fn read_prompt(
        &mut self,
        prompt: &EncodedPrompt,
        features: Tensor<2>,
        next: TokenId,
    ) -> Result<Tensor<2>, BoxError> {
        let draft = self.draft.clone();
        draft.reading.check(&features)?;
        let like = (&features.device(), features.dtype());
        let mut cache = draft.stack.new_cache(like);
        let [n_tokens, _] = features.dims();
        let known = prompt.token_ids().iter().copied().chain([next]);
        draft.head.add(&mut self.added, known);
        let dtype = features.dtype();
        let next_embed = draft.embedding.forward(&[next], dtype)?;
        let read = prompt.embeds().clone().slice(s![1..n_tokens, ..]);
        let (embeds, pictures) = match draft.reading.embeds {
            PromptEmbeds::OfTarget => {
                let embeds = Tensor::cat(vec![read, next_embed], 0);
                (embeds.clone(), embeds)
            }
            PromptEmbeds::OfTokens => {
                let tokens: Vec<TokenId> = prompt.token_ids()[1..]
                    .iter()
                    .copied()
                    .chain([next])
                    .collect();
                (draft.embedding.forward(&tokens, dtype)?, read)
            }
        };
        let images: Vec<Range<usize>> = prompt
            .image_runs()
            .iter()
            .map(|run| run.start.saturating_sub(1)..run.end - 1)
            .collect();
        let hidden = draft.network.fuse_target(features);
        let read = draft.network.read_prompt(DraftPromptInput {
            embeds: &embeds,
            pictures: &pictures,
            hidden: &hidden,
            images: &images,
        });
        let reading = &draft.reading;
        let positions = reading.positions;
        let positions = positions.of_prompt(prompt, &read.positions, reading.positions_of);
        let plan = AttentionPlan::Causal {
            prefix: 0,
            rows: read.positions.len(),
        };
        let segment = StackSegment {
            plan: &plan,
            cache: &mut cache,
        };
        let output = draft.decode(read.rows, &positions, &mut [segment]);
        self.state = Some(State {
            committed_rows: cache.n_rows(),
            cache,
            next_position: n_tokens,
            position_delta: draft.reading.positions.delta(prompt),
            image: read.image,
        });
        Ok(output)
    }

    /// Reads the postponed prompt, if any.
    pub(super) fn catch_up(&mut self) -> Result<(), BoxError> {
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

    /// Returns the number of postponed rows that the next commit reads in addition to its own.
    pub(super) fn n_waiting(&self) -> usize {
        let postponed = self.postponed.iter().map(|(tokens, _)| tokens.len());
        let prompt = self.unread.iter().map(|unread| unread.features.dims()[0]);
        postponed.sum::<usize>() + prompt.sum::<usize>()
    }

    fn pass_alone(
        &mut self,
        step: DraftStep<'_, Tensor<2>, Tensor<2>>,
        ask: Ask,
    ) -> Result<Expansion<Tensor<2>>, BoxError> {
        let pass = DraftPass {
            model: self,
            step,
            ask,
        };
        let results = Self::forward(vec![pass]);
        let result = results.into_iter().next();
        result.unwrap_or_else(|| Err("a draft pass returned no result".into()))
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
        ask: Ask,
    ) -> Result<Expansion<Tensor<2>>, BoxError> {
        let draft = self.draft.clone();
        let [rows, _] = features.dims();
        self.forget();
        draft.step(rows, || {
            let output = self.read_prompt(prompt, features, next)?;
            let [n_rows, _] = output.dims();
            let last = output.clone().slice(s![n_rows - 1..n_rows, ..]);
            self.last_output = Some(output);
            let scoring = Scoring {
                rows: 1,
                ask,
                added: &self.added,
            };
            let top = draft.top_k(last.clone(), &[scoring]);
            let top = top.into_iter().next().ok_or("no row was scored")??;
            Ok(Expansion { top, hidden: last })
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
        ask: Ask,
    ) -> Result<Expansion<Tensor<2>>, BoxError> {
        let step = DraftStep::Commit {
            accepted,
            features,
            next,
        };
        self.pass_alone(step, ask)
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
        ask: Ask,
    ) -> Result<Expansion<Tensor<2>>, BoxError> {
        self.pass_alone(DraftStep::Expand { beam, parents }, ask)
    }

    #[cfg(feature = "cube")]
    fn grows_by_itself(&self, width: usize) -> bool {
        self.draft.stack.reads_plans_on_device(width)
    }

    #[cfg(feature = "cube")]
    fn grow(
        &mut self,
        accepted: &[TokenId],
        features: Tensor<2>,
        next: TokenId,
        (levels, ask): (usize, Ask),
    ) -> Result<Vec<GrownLevel>, BoxError> {
        let step = DraftStep::Commit {
            accepted,
            features,
            next,
        };
        grown::grow(self, step, levels, ask.top_k)
    }

    fn forward(
        passes: Vec<DraftPassOf<'_, VlmTarget, Self>>,
    ) -> Vec<Result<Expansion<Tensor<2>>, BoxError>> {
        neural_pass::run(passes)
    }
}
