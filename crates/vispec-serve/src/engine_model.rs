//! Answers from a loaded target and draft.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use vispec_core::{
    DecodeError, FinishReason, Generation, GenerationConfig, GenerationObserver, MatchPicks,
    PositionUniforms, Prompt as _, TargetModel as _, TokenId, TokenTree, TreeSize, Verdict,
    generate,
};
use vispec_models::{EncodeTimes, EncodedPrompt, Engine, Method, ModelError};
use vispec_processor::{DecodedImage, ImageLimits, ProcessorError};

use crate::answer_text::AnswerText;
use crate::model::{
    AnswerCycle, AnswerEnd, AnswerError, AnswerListener, AnswerModel, AnswerPrompt, AnswerRequest,
    Answered, Piece,
};
use crate::stop_strings::Scanned;

/// An [`Engine`] with what else an answer depends on.
#[derive(Debug)]
pub struct EngineModel {
    /// Name that clients see and ask for.
    pub id: String,
    /// Target, processor and draft.
    pub engine: Engine,
    /// How tokens are drafted.
    pub method: Method,
    /// Size of draft trees.
    pub tree: TreeSize,
    /// How large images may be; checked before pixels are decoded.
    pub image_limits: ImageLimits,
}

impl EngineModel {
    fn encode(&self, prompt: &AnswerPrompt) -> Result<(EncodedPrompt, EncodeTimes), AnswerError> {
        let encoded = match prompt {
            AnswerPrompt::Text(text) => self.engine.encode_text(text).map_err(model_error)?,
            AnswerPrompt::Chat { messages, images } => {
                let started = Instant::now();
                let images = images.iter().enumerate().map(|(index, bytes)| {
                    DecodedImage::from_bytes(bytes, &self.image_limits)
                        .map_err(|error| image_error(index, &error))
                });
                let images = images.collect::<Result<Vec<_>, _>>()?;
                let decode = started.elapsed();
                let (prompt, times) = self.engine.encode(messages, &images).map_err(model_error)?;
                let preprocess = times.preprocess + decode;
                (
                    prompt,
                    EncodeTimes {
                        preprocess,
                        ..times
                    },
                )
            }
        };
        let prompt_tokens = encoded.0.token_ids().len();
        let context_len = self.engine.target().context_len();
        if prompt_tokens >= context_len {
            return Err(too_long(prompt_tokens, context_len));
        }
        Ok(encoded)
    }

    fn generate(
        &self,
        request: &AnswerRequest,
        prompt: &EncodedPrompt,
        observer: &mut Relay<'_>,
    ) -> Result<Generation, AnswerError> {
        let drafter = self.engine.drafter(self.method, self.tree.clone());
        let config = GenerationConfig {
            max_new_tokens: request.max_new_tokens,
            stop_tokens: Vec::from_iter(self.engine.processor().eos_token_ids().iter().copied()),
        };
        generate(
            self.engine.target(),
            drafter.map_err(model_error)?,
            MatchPicks::new(request.sampler, PositionUniforms::new(request.seed)),
            prompt,
            config,
            observer,
        )
        .map_err(|error| match error {
            DecodeError::PromptTooLong {
                prompt_tokens,
                context_len,
            } => too_long(prompt_tokens, context_len),
            error => AnswerError::Failed(error.into()),
        })
    }
}

impl AnswerModel for EngineModel {
    fn id(&self) -> &str {
        &self.id
    }

    fn answer(
        &self,
        request: &AnswerRequest,
        listener: &mut dyn AnswerListener,
    ) -> Result<Answered, AnswerError> {
        let (prompt, times) = self.encode(&request.prompt)?;
        let mut answered = Answered {
            end: AnswerEnd::Cancelled,
            completion_tokens: 0,
            stats: Default::default(),
            preprocess: times.preprocess,
            vision: times.vision,
        };
        if listener.on_start(prompt.token_ids().len()).is_break() {
            return Ok(answered);
        }
        let tokenizer = self.engine.processor().tokenizer();
        let mut relay = Relay {
            text: AnswerText::new(tokenizer, &request.stop),
            listener,
            path_len: 0,
            nodes: 0,
            completion_tokens: 0,
            state: RelayState::Going,
        };
        let generation = self.generate(request, &prompt, &mut relay)?;
        answered.end = relay.finish(generation.finish_reason)?;
        answered.completion_tokens = relay.completion_tokens;
        answered.stats = generation.stats;
        Ok(answered)
    }
}

/// Whether more of the answer is wanted.
#[derive(Debug)]
enum RelayState {
    Going,
    /// A stop string is complete.
    Stopped,
    /// The listener has gone.
    Unwanted,
    Failed(ProcessorError),
}

/// Hands an answer on as text.
struct Relay<'a> {
    text: AnswerText<'a>,
    listener: &'a mut dyn AnswerListener,
    /// Draft tokens on the path that was accepted last.
    path_len: usize,
    nodes: usize,
    completion_tokens: usize,
    state: RelayState,
}

impl Relay<'_> {
    fn scanned(&mut self, scanned: Scanned, drafted: bool, pieces: &mut Vec<Piece>) {
        let text = match scanned {
            Scanned::Text(text) => text,
            Scanned::Stopped(text) => {
                self.state = RelayState::Stopped;
                text
            }
        };
        if !text.is_empty() {
            pieces.push(Piece { text, drafted });
        }
    }

    /// Sends what was held back, and says why the answer ended.
    fn finish(&mut self, reason: FinishReason) -> Result<AnswerEnd, AnswerError> {
        if let RelayState::Going = self.state {
            let mut pieces = Vec::new();
            let rest = self.text.finish();
            let rest = rest.map_err(|error| AnswerError::Failed(error.into()))?;
            self.scanned(rest, false, &mut pieces);
            if !pieces.is_empty() {
                let last = AnswerCycle {
                    pieces,
                    ..AnswerCycle::default()
                };
                if self.listener.on_cycle(last).is_break() {
                    return Ok(AnswerEnd::Cancelled);
                }
            }
        }
        match std::mem::replace(&mut self.state, RelayState::Unwanted) {
            RelayState::Stopped => Ok(AnswerEnd::Stop),
            RelayState::Unwanted => Ok(AnswerEnd::Cancelled),
            RelayState::Failed(error) => Err(AnswerError::Failed(error.into())),
            RelayState::Going if reason == FinishReason::Stop => Ok(AnswerEnd::Stop),
            RelayState::Going => Ok(AnswerEnd::Length),
        }
    }
}

impl GenerationObserver for Relay<'_> {
    fn on_verify(&mut self, tree: &TokenTree, verdict: &Verdict, _: Duration) {
        self.path_len = verdict.path.len() - 1;
        self.nodes = tree.n_nodes();
    }

    /// Token by token, so that text and count end at the same token whatever was drafted.
    fn on_tokens(&mut self, tokens: &[TokenId]) -> ControlFlow<()> {
        let mut pieces = Vec::new();
        let mut emitted = 0;
        for &token in tokens {
            match self.text.push(token) {
                Ok(scanned) => self.scanned(scanned, emitted < self.path_len, &mut pieces),
                Err(error) => self.state = RelayState::Failed(error),
            }
            emitted += 1;
            if !matches!(self.state, RelayState::Going) {
                break;
            }
        }
        self.completion_tokens += emitted;
        let cycle = AnswerCycle {
            accepted: emitted.min(self.path_len),
            nodes: self.nodes,
            pieces,
        };
        let wanted = self.listener.on_cycle(cycle);
        if wanted.is_break() {
            self.state = RelayState::Unwanted;
        }
        if matches!(self.state, RelayState::Going) {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    }
}

fn refused(code: &'static str, message: impl ToString) -> AnswerError {
    AnswerError::Refused {
        message: message.to_string(),
        code,
    }
}

fn too_long(prompt_tokens: usize, context_len: usize) -> AnswerError {
    refused(
        "context_length_exceeded",
        format!(
            "the prompt has {prompt_tokens} tokens, but prompt and answer share a context of \
             {context_len}"
        ),
    )
}

/// Errors of an image, whose messages start with what stands for the image's name.
fn image_error(index: usize, error: &ProcessorError) -> AnswerError {
    let message = error.to_string();
    let reason = message.split_once(": ").map_or("", |(_, reason)| reason);
    refused("invalid_image", format!("image {index}: {reason}"))
}

/// Errors that the prompt is the cause of are for the client; others may name files.
fn model_error(error: ModelError) -> AnswerError {
    let ModelError::Processor(error) = error else {
        return AnswerError::Failed(error.into());
    };
    match error {
        ProcessorError::PromptTooLong { found, limit } => too_long(found, limit),
        ProcessorError::TemplateRender { reason, .. } => refused(
            "invalid_messages",
            format!("the chat template cannot render these messages: {reason}"),
        ),
        ProcessorError::AspectRatio { .. } => refused("invalid_image", error),
        ProcessorError::EmptyPrompt
        | ProcessorError::NoMessages
        | ProcessorError::ImageCount { .. }
        | ProcessorError::PlaceholderCount { .. }
        | ProcessorError::MessagesShape { .. } => refused("invalid_messages", error),
        error => AnswerError::Failed(error.into()),
    }
}
