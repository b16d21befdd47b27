//! Turns requests into prompts that the target can read, in parallel to running passes.

use std::borrow::Cow;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Instant;

use vispec_core::{
    Prompt as _, Speculation, SpeculationReason, TargetModel as _, TreeSize, guarded,
};
use vispec_grammar::Grammar;
use vispec_models::{EncodeTimes, EncodedPrompt, Method, ModelError, ReadImage, ReadMedia};
use vispec_processor::{ProcessorError, Wanted};

use super::job::{Job, Ready};
use super::queue::Queue;
use crate::answer::{AnswerEnd, AnswerError};
use crate::loaded::Loaded;
use crate::request::{AnswerPrompt, AnswerRequest, ImageInput};
use crate::submission::Submission;
use crate::video_input::{self, VideoError};

/// The kind of requests that a thread prepares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// Only prompts without images, so that they never wait for images.
    Texts,
    /// All prompts.
    All,
}

impl Lane {
    /// Returns whether a job may be prepared on this lane.
    pub(super) fn takes(self, job: &Job) -> bool {
        let has_images = match &job.submission.request.prompt {
            AnswerPrompt::Chat { images, videos, .. } => !images.is_empty() || !videos.is_empty(),
            AnswerPrompt::Text(_) => false,
        };
        self == Self::All || !has_images
    }
}

/// Prepares the jobs of `lane` in `queue` until the queue is stopped.
pub(super) fn prepare_all(loaded: &Loaded, queue: &Queue, kv_budget: usize, lane: Lane) {
    while let Some(mut job) = queue.next_unprepared(lane) {
        let ticket = Arc::clone(&job.ticket);
        if let Some(ending) = job.ending(Instant::now()) {
            queue.put_prepared(&ticket, None);
            job.end(ending);
            continue;
        }
        // Decoders and templates process input of clients and may panic.
        let prepared = guarded("preparing a prompt", || prepare(loaded, &job, kv_budget));
        match prepared.unwrap_or_else(|panicked| Err(AnswerError::failed(panicked).into())) {
            Ok(prepared) => {
                // Prompt and grammar are no longer needed, and image files are large.
                job.submission.request.prompt = AnswerPrompt::Text(String::new());
                job.submission.request.grammar = None;
                queue.put_prepared(&ticket, Some(Ready::new(job, prepared)));
            }
            Err(NotPrepared::Unwanted) => {
                queue.put_prepared(&ticket, None);
                job.end(AnswerEnd::Cancelled);
            }
            Err(NotPrepared::Error(error)) => {
                if matches!(error, AnswerError::TooLarge { .. }) {
                    queue.count_refused_for_memory();
                }
                queue.put_prepared(&ticket, None);
                job.fail(&error);
            }
        }
    }
}

/// Why a prompt was not prepared.
enum NotPrepared {
    /// Nobody waits for the answer any more.
    Unwanted,
    Error(AnswerError),
}

impl From<AnswerError> for NotPrepared {
    fn from(error: AnswerError) -> Self {
        Self::Error(error)
    }
}

impl From<ModelError> for NotPrepared {
    fn from(error: ModelError) -> Self {
        match error {
            ModelError::Processor(ProcessorError::Unwanted) => Self::Unwanted,
            error => Self::Error(model_error(error)),
        }
    }
}

/// A prepared prompt with everything that answers to it need.
pub(super) struct Prepared {
    pub(super) prompt: EncodedPrompt,
    /// Time spent on encoding.
    pub(super) times: EncodeTimes,
    /// Grammar that the answers must match.
    pub(super) grammar: Option<Grammar>,
    /// Number of bytes that each answer may need.
    pub(super) bytes: usize,
}

/// Prepares the prompt and the grammar, and computes the memory that an answer may need.
fn prepare(loaded: &Loaded, job: &Job, kv_budget: usize) -> Result<Prepared, NotPrepared> {
    let request = &job.submission.request;
    check(loaded, request)?;
    check_speculation(loaded, &job.submission)?;
    let grammar = request.grammar.as_ref();
    let grammar = grammar.map(|source| loaded.grammars.compile(&loaded.models, source));
    let grammar = grammar.transpose()?;
    let wanted = || job.ending(Instant::now()).is_none();
    let (prompt, times) = encode(loaded, &request.prompt, &wanted)?;
    let target = loaded.models.target();
    let tokens = prompt.token_ids().len();
    let tokens = tokens.saturating_add(request.max_new_tokens);
    let tokens = tokens.min(target.context_len());
    let drafting = &loaded.drafting;
    let rows = tokens.saturating_add(max_nodes(&drafting.tree));
    let needed = loaded.models.sequence_bytes(drafting.method, rows);
    if needed > kv_budget {
        let budget = kv_budget;
        return Err(AnswerError::TooLarge {
            tokens,
            needed,
            budget,
        }
        .into());
    }
    Ok(Prepared {
        prompt,
        times,
        grammar,
        bytes: needed,
    })
}

/// Returns the maximum number of cache rows that a tree takes until its path is known.
fn max_nodes(tree: &TreeSize) -> usize {
    match tree {
        TreeSize::Fixed(shape) => shape.max_nodes(),
        TreeSize::Auto(limits) => limits.max_nodes,
    }
}

/// Checks the options whose validity does not depend on the prompt.
fn check(loaded: &Loaded, request: &AnswerRequest) -> Result<(), AnswerError> {
    let adjustments = &request.adjustments;
    let checked = adjustments.check();
    checked.map_err(|error| refused("invalid_value", error))?;
    let vocab_size = loaded.models.target().vocab_size();
    let mut tokens = adjustments.logit_bias.keys();
    match tokens.find(|&&token| token as usize >= vocab_size) {
        None => Ok(()),
        Some(token) => Err(refused(
            "invalid_value",
            format!("the logit bias names token {token}, but there are {vocab_size} tokens"),
        )),
    }
}

/// Refuses a request that requires drafting if there is no drafter.
fn check_speculation(loaded: &Loaded, submission: &Submission) -> Result<(), AnswerError> {
    let drafts = submission.drafter.is_some() || loaded.drafting.method != Method::None;
    if submission.speculation == Speculation::Required && !drafts {
        let reason = SpeculationReason::NoDrafter;
        return Err(AnswerError::SpeculationUnavailable { reason });
    }
    Ok(())
}

fn encode(
    loaded: &Loaded,
    prompt: &AnswerPrompt,
    wanted: Wanted<'_>,
) -> Result<(EncodedPrompt, EncodeTimes), NotPrepared> {
    let Loaded {
        models,
        settings,
        conversations,
        images: image_store,
        ..
    } = loaded;
    let (encoded, times) = match prompt {
        AnswerPrompt::Text(text) => models.encode_text(text, wanted)?,
        AnswerPrompt::Chat {
            messages,
            images,
            videos,
        } => {
            let started = Instant::now();
            let images = images.iter().enumerate().map(|(index, image)| match image {
                ImageInput::Decoded(image) => Ok(ReadImage::from_pixels(Cow::Borrowed(image))),
                ImageInput::File(bytes) => image_store
                    .read(bytes, &settings.image_options)
                    .map_err(|error| image_error(index, &error)),
            });
            let images = images.collect::<Result<Vec<_>, _>>()?;
            let videos = video_input::read_all(videos, &settings.image_options);
            let videos = videos.map_err(video_error)?;
            let decode = started.elapsed();
            let media = ReadMedia { images, videos };
            let stores = (conversations, image_store);
            let encoded = models.encode_read(messages, media, stores, wanted);
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

fn refused(code: &'static str, message: impl ToString) -> AnswerError {
    AnswerError::Refused {
        message: message.to_string(),
        code,
    }
}

pub(super) fn too_long(prompt_tokens: impl Display, context_len: usize) -> AnswerError {
    refused(
        "context_length_exceeded",
        format!(
            "the prompt has {prompt_tokens} tokens, but prompt and answer share a context of \
             {context_len}"
        ),
    )
}

/// Converts the error of an image, whose message starts with a placeholder for the file name.
fn image_error(index: usize, error: &ProcessorError) -> AnswerError {
    let message = error.to_string();
    let reason = message.split_once(": ").map_or("", |(_, reason)| reason);
    refused("invalid_image", format!("image {index}: {reason}"))
}

/// Converts the error of a video. Messages about files start with a placeholder for the file name.
fn video_error(wrong: VideoError) -> AnswerError {
    let VideoError {
        index,
        frame,
        error,
    } = wrong;
    let message = error.to_string();
    let reason = match &error {
        ProcessorError::NotAnImage { .. }
        | ProcessorError::DamagedImage { .. }
        | ProcessorError::EmptyImage { .. }
        | ProcessorError::ImageTooLarge { .. }
        | ProcessorError::ImageMemory { .. } => {
            message.split_once(": ").map_or("", |(_, reason)| reason)
        }
        _ => &message,
    };
    let frame = frame.map_or_else(String::new, |frame| format!("frame {frame}: "));
    refused("invalid_video", format!("video {index}: {frame}{reason}"))
}

/// Converts an error. Errors caused by the prompt are for the client; others may name files.
pub(crate) fn model_error(error: ModelError) -> AnswerError {
    let ModelError::Processor(error) = error else {
        return AnswerError::failed(error);
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
        ProcessorError::NoTools { .. } => refused("tools_unsupported", error),
        ProcessorError::AspectRatio { .. } => refused("invalid_image", error),
        ProcessorError::VideoFrames { .. }
        | ProcessorError::VideoSmall { .. }
        | ProcessorError::VideoRate { .. } => refused("invalid_video", error),
        // The error's path is for the operator only.
        ProcessorError::VideosUnsupported { .. } => {
            refused("videos_unsupported", "this model reads no videos")
        }
        ProcessorError::EmptyPrompt
        | ProcessorError::NoMessages
        | ProcessorError::ImageCount { .. }
        | ProcessorError::VideoCount { .. }
        | ProcessorError::PlaceholderCount { .. }
        | ProcessorError::Tokenize { .. }
        | ProcessorError::MessagesShape { .. } => refused("invalid_messages", error),
        error => AnswerError::failed(error),
    }
}
