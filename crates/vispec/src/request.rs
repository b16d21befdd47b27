//! Requests: prompts and generation options.

use vispec_core::{LogitAdjustments, Sampler};
use vispec_grammar::GrammarSource;
use vispec_processor::{DecodedImage, Messages};

use crate::video_input::VideoInput;

/// An image as the caller provides it.
#[derive(Debug, Clone, PartialEq)]
pub enum ImageInput {
    /// Content of an image file, decoded when the request's turn comes.
    File(Vec<u8>),
    /// Decoded pixels.
    Decoded(DecodedImage),
}

/// The prompt of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum AnswerPrompt {
    /// A conversation for the chat template.
    Chat {
        /// Messages of the conversation.
        messages: Messages,
        /// Images in the order of their placeholders in the messages.
        images: Vec<ImageInput>,
        /// Videos in the order of their placeholders in the messages.
        videos: Vec<VideoInput>,
    },
    /// Text to continue without a chat template.
    Text(String),
}

/// Effect of end-of-sequence tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EndOfSequence {
    /// They end the answer.
    #[default]
    Ends,
    /// They end the answer, and cannot be chosen before it has this many tokens.
    EndsAfter(usize),
    /// They are ordinary tokens: the answer ends only at a limit or a stop string.
    Ignored,
}

/// Everything that determines the tokens of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct AnswerRequest {
    /// The prompt to answer.
    pub prompt: AnswerPrompt,
    /// Maximum number of tokens to emit.
    pub max_new_tokens: usize,
    /// How tokens are chosen.
    pub sampler: Sampler,
    /// Seed for sampling.
    pub seed: u64,
    /// Stop strings; the answer ends before the first one.
    pub stop: Vec<String>,
    /// Penalties and biases.
    pub adjustments: LogitAdjustments,
    /// Grammar that the answer must match, if any.
    pub grammar: Option<GrammarSource>,
    /// If set, log-probabilities of each token are reported, along with this many of the most
    /// likely tokens.
    pub log_probs: Option<usize>,
    /// Effect of end-of-sequence tokens. Under a grammar they always end the answer.
    pub end_of_sequence: EndOfSequence,
}

impl AnswerRequest {
    /// Creates a request for a greedy answer of at most 512 tokens.
    #[must_use]
    pub fn new(prompt: AnswerPrompt) -> Self {
        Self {
            prompt,
            max_new_tokens: 512,
            sampler: Sampler::Greedy,
            seed: 0,
            stop: Vec::new(),
            adjustments: LogitAdjustments::default(),
            grammar: None,
            log_probs: None,
            end_of_sequence: EndOfSequence::Ends,
        }
    }

    /// Creates a request for a greedy answer of at most 512 tokens to a chat.
    #[must_use]
    pub fn chat(messages: Messages, images: Vec<DecodedImage>) -> Self {
        let images = images.into_iter().map(ImageInput::Decoded).collect();
        Self::new(AnswerPrompt::Chat {
            messages,
            images,
            videos: Vec::new(),
        })
    }

    /// Constrains the answer to a grammar, such as JSON that follows a schema. The tokens are those
    /// of plain decoding in which tokens that the grammar forbids cannot be chosen.
    #[must_use]
    pub fn with_grammar(self, grammar: GrammarSource) -> Self {
        Self {
            grammar: Some(grammar),
            ..self
        }
    }
}
