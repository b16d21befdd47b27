//! From a request to an answer: decoding, generation, and text token by token.

use std::fmt::Display;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use vispec_core::{
    AcceptanceRule, AdjustedPicks, DecodeError, FinishReason, Generation, GenerationConfig,
    GenerationObserver, MatchPicks, PickLog, PickedLogProbs, PositionUniforms, Prompt as _,
    TargetModel as _, TokenId, TokenTree, Verdict, generate_in,
};
use vispec_models::{EncodeTimes, EncodedPrompt, ModelError};
use vispec_processor::{DecodedImage, ProcessorError, SpecialText, Tokenizer, Wanted};

use crate::answer::{
    AnswerCycle, AnswerEnd, AnswerError, AnswerListener, Answered, Piece, TokenLogProbs,
};
use crate::answer_text::AnswerText;
use crate::engine::Inner;
use crate::request::{AnswerPrompt, AnswerRequest, ImageInput};
use crate::stop_strings::Scanned;

/// Answers `request` in this thread; see [`Engine::answer`](crate::Engine::answer).
pub(crate) fn answer(
    inner: &Inner,
    request: &AnswerRequest,
    listener: &mut dyn AnswerListener,
) -> Result<Answered, AnswerError> {
    check(inner, request)?;
    let encoded = encode(inner, &request.prompt, &|| listener.is_waiting());
    let (prompt, times) = match encoded {
        Ok(encoded) => encoded,
        Err(NotEncoded::Unwanted) => return Ok(unwanted(EncodeTimes::default())),
        Err(NotEncoded::Error(error)) => return Err(error),
    };
    let mut answered = unwanted(times);
    if listener.on_start(prompt.token_ids().len()).is_break() {
        return Ok(answered);
    }
    let tokenizer = inner.models.processor().tokenizer();
    let log = request.log_probs.map(PickLog::new);
    let mut relay = Relay {
        text: AnswerText::new(tokenizer, &request.stop),
        tokenizer,
        log: log.clone(),
        listener,
        path_len: 0,
        nodes: 0,
        completion_tokens: 0,
        state: RelayState::Going,
    };
    let generation = generate(inner, (request, log), &prompt, &mut relay)?;
    answered.end = relay.finish(generation.finish_reason)?;
    answered.completion_tokens = relay.completion_tokens;
    answered.stats = generation.stats;
    Ok(answered)
}

/// An answer that ends before it starts.
fn unwanted(times: EncodeTimes) -> Answered {
    Answered {
        end: AnswerEnd::Cancelled,
        completion_tokens: 0,
        stats: Default::default(),
        preprocess: times.preprocess,
        vision: times.vision,
    }
}

/// Looks at what no prompt can make right.
fn check(inner: &Inner, request: &AnswerRequest) -> Result<(), AnswerError> {
    let adjustments = &request.adjustments;
    let checked = adjustments.check();
    checked.map_err(|error| refused("invalid_value", error))?;
    let vocab_size = inner.models.target().vocab_size();
    let mut tokens = adjustments.logit_bias.keys();
    match tokens.find(|&&token| token as usize >= vocab_size) {
        None => Ok(()),
        Some(token) => Err(refused(
            "invalid_value",
            format!("the logit bias names token {token}, but there are {vocab_size} tokens"),
        )),
    }
}

/// Why there is no prompt.
enum NotEncoded {
    /// Nobody waits for the answer any more.
    Unwanted,
    Error(AnswerError),
}

impl From<AnswerError> for NotEncoded {
    fn from(error: AnswerError) -> Self {
        Self::Error(error)
    }
}

impl From<ModelError> for NotEncoded {
    fn from(error: ModelError) -> Self {
        match error {
            ModelError::Processor(ProcessorError::Unwanted) => Self::Unwanted,
            error => Self::Error(model_error(error)),
        }
    }
}

fn encode(
    inner: &Inner,
    prompt: &AnswerPrompt,
    wanted: Wanted<'_>,
) -> Result<(EncodedPrompt, EncodeTimes), NotEncoded> {
    let Inner {
        models,
        settings,
        conversations,
    } = inner;
    let (encoded, times) = match prompt {
        AnswerPrompt::Text(text) => models.encode_text(text, wanted)?,
        AnswerPrompt::Chat { messages, images } => {
            let started = Instant::now();
            let images = images.iter().enumerate().map(|(index, image)| match image {
                ImageInput::Decoded(image) => Ok(image.clone()),
                ImageInput::File(bytes) => DecodedImage::from_bytes(bytes, &settings.image_limits)
                    .map_err(|error| image_error(index, &error)),
            });
            let images = images.collect::<Result<Vec<_>, _>>()?;
            let decode = started.elapsed();
            let encoded = models.encode_known(messages, &images, conversations, wanted);
            let (prompt, times) = encoded?;
            let preprocess = times.preprocess + decode;
            let times = EncodeTimes {
                preprocess,
                ..times
            };
            (prompt, times)
        }
    };
    let prompt_tokens = encoded.token_ids().len();
    let context_len = models.target().context_len();
    if prompt_tokens >= context_len {
        return Err(too_long(prompt_tokens, context_len).into());
    }
    Ok((encoded, times))
}

fn generate(
    inner: &Inner,
    (request, log): (&AnswerRequest, Option<PickLog>),
    prompt: &EncodedPrompt,
    observer: &mut Relay<'_>,
) -> Result<Generation, AnswerError> {
    let Inner {
        models,
        settings,
        conversations,
    } = inner;
    let target = models.target();
    let drafter = models.drafter(settings.method, settings.tree.clone());
    let drafter = drafter.map_err(model_error)?;
    let config = GenerationConfig {
        max_new_tokens: request.max_new_tokens,
        stop_tokens: Vec::from_iter(models.processor().eos_token_ids().iter().copied()),
    };
    let kept = conversations.cache_for(target, prompt);
    let cache = match kept {
        Some(cache) => cache,
        None => target.new_cache().map_err(AnswerError::Failed)?,
    };
    let rule = rule(request, log, prompt.token_ids());
    let generated = generate_in(target, drafter, rule, (prompt, cache), config, observer);
    let (generation, cache) = generated.map_err(|error| match error {
        DecodeError::PromptTooLong {
            prompt_tokens,
            context_len,
        } => too_long(prompt_tokens, context_len),
        error => AnswerError::Failed(error.into()),
    })?;
    conversations.keep(prompt, &generation.tokens, cache);
    Ok(generation)
}

/// The rule that a request asks for; the plain one reads less back from a device.
fn rule(
    request: &AnswerRequest,
    log: Option<PickLog>,
    prompt: &[TokenId],
) -> Box<dyn AcceptanceRule> {
    let uniforms = PositionUniforms::new(request.seed);
    if log.is_none() && request.adjustments.is_neutral() {
        return Box::new(MatchPicks::new(request.sampler, uniforms));
    }
    let adjustments = request.adjustments.clone();
    let rule = AdjustedPicks::new(request.sampler, uniforms, adjustments, prompt);
    match log {
        Some(log) => Box::new(rule.with_log(log)),
        None => Box::new(rule),
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
    tokenizer: &'a Tokenizer,
    log: Option<PickLog>,
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

    /// Log-probabilities of the first `emitted` tokens of a cycle.
    fn log_probs(&self, emitted: usize) -> Result<Vec<TokenLogProbs>, ProcessorError> {
        let picked = self.log.as_ref().map(PickLog::take).unwrap_or_default();
        let text = |token: TokenId| self.tokenizer.decode(&[token], SpecialText::Keep);
        let told = picked.into_iter().take(emitted).map(|picked| {
            let PickedLogProbs {
                token,
                log_prob,
                top,
            } = picked;
            let top = top.into_iter();
            let top = top.map(|(token, log_prob)| Ok((text(token)?, log_prob)));
            Ok(TokenLogProbs {
                token: text(token)?,
                log_prob,
                top: top.collect::<Result<_, ProcessorError>>()?,
            })
        });
        told.collect()
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
        let log_probs = self.log_probs(emitted).unwrap_or_else(|error| {
            self.state = RelayState::Failed(error);
            Vec::new()
        });
        let cycle = AnswerCycle {
            accepted: emitted.min(self.path_len),
            nodes: self.nodes,
            pieces,
            log_probs,
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

fn too_long(prompt_tokens: impl Display, context_len: usize) -> AnswerError {
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
        ProcessorError::TextTooLong {
            least_tokens,
            limit,
            ..
        } => too_long(format!("at least {least_tokens}"), limit),
        ProcessorError::TemplateRender { reason, .. } => refused(
            "invalid_messages",
            format!("the chat template cannot render these messages: {reason}"),
        ),
        ProcessorError::AspectRatio { .. } => refused("invalid_image", error),
        ProcessorError::EmptyPrompt
        | ProcessorError::NoMessages
        | ProcessorError::ImageCount { .. }
        | ProcessorError::PlaceholderCount { .. }
        | ProcessorError::Tokenize { .. }
        | ProcessorError::MessagesShape { .. } => refused("invalid_messages", error),
        error => AnswerError::Failed(error.into()),
    }
}
