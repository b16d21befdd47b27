//! Recording features while an answer is decoded.
//!
//! The target is wrapped: every pass leaves its features with the wrapper, and the verdict on the
//! tree of the pass says which rows stay.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::time::Duration;

use burn::tensor::Tensor;
use vispec_core::{
    AcceptanceRule, BoxError, DecodeError, Drafter, FinishReason, Generation, GenerationConfig,
    GenerationObserver, GenerationStats, Idle, NodeId, Prompt, TargetModel, TargetOutput, TokenId,
    TokenTree, Verdict, generate,
};

use super::sequence::SequenceFeatures;
use crate::logits::DeviceLogits;
use crate::prompt::EncodedPrompt;
use crate::target::VlmTarget;
use crate::vlm_cache::VlmCache;

/// Answers `prompt` and keeps the features of all positions but the last, whose token the target
/// never has to read: `[prompt + answer - 1, hidden]`.
///
/// # Errors
/// Those of [`generate`].
pub fn answer_with_features<A: AcceptanceRule>(
    target: &VlmTarget,
    prompt: &EncodedPrompt,
    drafter: Box<dyn Drafter<VlmTarget>>,
    rule: A,
    config: GenerationConfig,
    observer: &mut dyn GenerationObserver,
) -> Result<(Generation, SequenceFeatures), DecodeError> {
    let recorder = FeatureRecorder {
        target,
        recorded: RefCell::default(),
    };
    let mut keeper = Keeper {
        recorder: &recorder,
        observer,
    };
    let drafter = Forwarded(drafter);
    let generation = generate(&recorder, drafter, rule, prompt, config, &mut keeper)?;
    let features = recorder
        .into_features(prompt, &generation.tokens)
        .map_err(DecodeError::Target)?;
    Ok((generation, features))
}

/// A target that remembers the features of its passes.
struct FeatureRecorder<'a> {
    target: &'a VlmTarget,
    recorded: RefCell<Recorded>,
}

#[derive(Default)]
struct Recorded {
    /// Features of the prompt and of each accepted path, `[rows, hidden]`.
    kept: Vec<Tensor<2>>,
    /// Features of a verify pass whose verdict is not known yet.
    pass: Option<Tensor<2>>,
    failure: Option<BoxError>,
}

impl FeatureRecorder<'_> {
    /// Keeps the rows of `path` of the last pass.
    fn keep(&self, path: &[NodeId]) {
        let mut recorded = self.recorded.borrow_mut();
        let Some(pass) = recorded.pass.take() else {
            return;
        };
        match self.target.gather_features(pass, path) {
            Ok(rows) => recorded.kept.push(rows),
            Err(error) => recorded.failure = Some(error),
        }
    }

    fn into_features(
        self,
        prompt: &EncodedPrompt,
        answer: &[TokenId],
    ) -> Result<SequenceFeatures, BoxError> {
        let recorded = self.recorded.into_inner();
        if let Some(error) = recorded.failure {
            return Err(error);
        }
        let mut token_ids = prompt.token_ids().to_vec();
        token_ids.extend_from_slice(answer);
        // The last token was chosen, and possibly read in a last pass; nothing comes after it.
        token_ids.pop();
        let mut embeds = vec![prompt.embeds().clone()];
        let read = &token_ids[prompt.token_ids().len().min(token_ids.len())..];
        if !read.is_empty() {
            let dtype = self.target.precision().compute;
            embeds.push(self.target.text().embedding().forward(read, dtype)?);
        }
        let n_rows = token_ids.len();
        let hidden_states = Tensor::cat(recorded.kept, 0).narrow(0, 0, n_rows);
        Ok(SequenceFeatures {
            token_ids,
            input_embeds: Tensor::cat(embeds, 0).narrow(0, 0, n_rows),
            hidden_states,
            image_runs: prompt.image_runs().to_vec(),
        })
    }
}

impl TargetModel for FeatureRecorder<'_> {
    type Prompt = EncodedPrompt;
    type Cache = VlmCache;
    type Features = Tensor<2>;
    type Logits = DeviceLogits;

    fn vocab_size(&self) -> usize {
        self.target.vocab_size()
    }

    fn context_len(&self) -> usize {
        self.target.context_len()
    }

    fn new_cache(&self) -> Result<VlmCache, BoxError> {
        self.target.new_cache()
    }

    fn prefill(
        &self,
        prompt: &EncodedPrompt,
        cache: &mut VlmCache,
    ) -> Result<TargetOutput<DeviceLogits, Tensor<2>>, BoxError> {
        let output = self.target.prefill(prompt, cache)?;
        let mut recorded = self.recorded.borrow_mut();
        recorded.kept.push(output.features.clone());
        Ok(output)
    }

    fn verify(
        &self,
        tree: &TokenTree,
        cache: &mut VlmCache,
    ) -> Result<TargetOutput<DeviceLogits, Tensor<2>>, BoxError> {
        let output = self.target.verify(tree, cache)?;
        self.recorded.borrow_mut().pass = Some(output.features.clone());
        Ok(output)
    }

    fn gather_features(&self, features: Tensor<2>, path: &[NodeId]) -> Result<Tensor<2>, BoxError> {
        self.target.gather_features(features, path)
    }
}

/// A drafter of the wrapped target, which has the same prompts and features.
struct Forwarded(Box<dyn Drafter<VlmTarget>>);

impl Drafter<FeatureRecorder<'_>> for Forwarded {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn begin(
        &mut self,
        prompt: &EncodedPrompt,
        features: Tensor<2>,
        next: TokenId,
    ) -> Result<TokenTree, BoxError> {
        self.0.begin(prompt, features, next)
    }

    fn advance(
        &mut self,
        accepted: &[TokenId],
        features: Tensor<2>,
        next: TokenId,
    ) -> Result<TokenTree, BoxError> {
        self.0.advance(accepted, features, next)
    }

    fn idle(&self) -> Idle {
        self.0.idle()
    }
}

/// Hands verdicts to the recorder and everything to the caller's observer.
struct Keeper<'r, 'a> {
    recorder: &'r FeatureRecorder<'a>,
    observer: &'r mut dyn GenerationObserver,
}

impl GenerationObserver for Keeper<'_, '_> {
    fn on_prefill(&mut self, prompt_tokens: usize, time: Duration) {
        self.observer.on_prefill(prompt_tokens, time);
    }

    fn on_draft(&mut self, tree: &TokenTree, time: Duration) {
        self.observer.on_draft(tree, time);
    }

    fn on_verify(&mut self, tree: &TokenTree, verdict: &Verdict, time: Duration) {
        self.recorder.keep(&verdict.path);
        self.observer.on_verify(tree, verdict, time);
    }

    fn on_tokens(&mut self, tokens: &[TokenId]) -> ControlFlow<()> {
        self.observer.on_tokens(tokens)
    }

    fn on_finish(&mut self, reason: FinishReason, stats: &GenerationStats) {
        self.observer.on_finish(reason, stats);
    }
}
