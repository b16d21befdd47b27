//! What is asked.

use vispec_core::{LogitAdjustments, Sampler};
use vispec_grammar::GrammarSource;
use vispec_processor::{DecodedImage, Messages};

use crate::video_input::VideoInput;

/// An image as the caller has it.
#[derive(Debug, Clone, PartialEq)]
pub enum ImageInput {
    /// The content of an image file, decoded when its turn has come.
    File(Vec<u8>),
    /// Pixels.
    Decoded(DecodedImage),
}

/// What an answer goes on from.
#[derive(Debug, Clone, PartialEq)]
pub enum AnswerPrompt {
    /// A conversation for the chat template.
    Chat {
        /// Who said what.
        messages: Messages,
        /// Images in the order of their places in the messages.
        images: Vec<ImageInput>,
        /// Videos in the order of theirs.
        videos: Vec<VideoInput>,
    },
    /// A text to continue as it is.
    Text(String),
}

/// What the tokens that end an answer do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EndOfSequence {
    /// They end it.
    #[default]
    Ends,
    /// They end it, and cannot be chosen before it has so many tokens.
    EndsAfter(usize),
    /// They are tokens like others: an answer ends with a limit or a stop string.
    Ignored,
}

/// Everything that the tokens of an answer depend on.
#[derive(Debug, Clone, PartialEq)]
pub struct AnswerRequest {
    /// What it goes on from.
    pub prompt: AnswerPrompt,
    /// Most tokens to emit.
    pub max_new_tokens: usize,
    /// How tokens are chosen.
    pub sampler: Sampler,
    /// Drives sampling.
    pub seed: u64,
    /// Strings before which the answer ends.
    pub stop: Vec<String>,
    /// Penalties and biases.
    pub adjustments: LogitAdjustments,
    /// What the answer has to be, if not any text.
    pub grammar: Option<GrammarSource>,
    /// Log-probabilities of each token are told, with those of this many others.
    pub log_probs: Option<usize>,
    /// What the tokens that end an answer do. Under a grammar they always end it.
    pub end_of_sequence: EndOfSequence,
}

impl AnswerRequest {
    /// A greedy answer of at most 512 tokens.
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

    /// A greedy answer of at most 512 tokens to a chat.
    #[must_use]
    pub fn chat(messages: Messages, images: Vec<DecodedImage>) -> Self {
        let images = images.into_iter().map(ImageInput::Decoded).collect();
        Self::new(AnswerPrompt::Chat {
            messages,
            images,
            videos: Vec::new(),
        })
    }

    /// The same request, whose answer has to be what a grammar says, such as JSON by a schema. The
    /// tokens are those of plain decoding in which what the grammar forbids cannot be chosen.
    #[must_use]
    pub fn with_grammar(self, grammar: GrammarSource) -> Self {
        Self {
            grammar: Some(grammar),
            ..self
        }
    }
}
