//! Exact speculative decoding of vision-language models, for programs that need answers rather than
//! tensors.
//!
//! ```no_run
//! use vispec::{DecodedImage, Engine, ImageOptions, LoadOptions, Messages};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let engine = Engine::load(
//!     "checkpoints/Qwen2.5-VL-3B-Instruct",
//!     Some("checkpoints/ViSpec-Qwen2.5-VL-3B-Instruct"),
//!     LoadOptions::default(),
//! )?;
//! let image = DecodedImage::open("photo.jpg", &ImageOptions::default())?;
//! let messages = Messages::from_prompt(None, "What is in this picture?", 1);
//! let mut answer = engine.generate(messages, vec![image])?;
//! for cycle in &mut answer {
//!     print!("{}", cycle?);
//! }
//! if let Some(answered) = answer.answered() {
//!     let stats = &answered.stats;
//!     println!("\ntau {:.2}, {:.2} tokens per cycle", stats.tau(), stats.tokens_per_cycle());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! An [`Engine`] is a handle: clones share the weights and the thread that computes all answers in
//! shared passes. No answer depends on the others. An [`Answer`] is an iterator over the decoding
//! cycles; [`into_stream`](Answer::into_stream) turns it into an asynchronous stream. Dropping it,
//! or a [`CancelHandle`], ends it. The text equals that of plain decoding with the same settings
//! and seed, whatever the draft. The next turn of a conversation reads only its new part.
//!
//! For custom drafters, targets or acceptance rules, use [`vispec_core`] and [`vispec_models`]
//! directly, which are re-exported as [`core`] and [`models`]; [`grammar`] compiles schemas into
//! constraints for [`core`].

mod answer;
mod answer_text;
mod engine;
mod grammars;
mod loaded;
mod options;
mod relay;
mod request;
mod running;
mod scheduler;
mod stop_strings;
mod submission;
mod video_input;

pub use vispec_core as core;
pub use vispec_grammar as grammar;
pub use vispec_models as models;

pub use vispec_core::{
    GenerationStats, LogitAdjustments, Sampler, Speculation, SpeculationReason, SuffixStoreUsage,
    TreeShape, TreeSize,
};
pub use vispec_grammar::{CallCount, GrammarError, GrammarSource, ToolSignature};
pub use vispec_models::{
    CalibrationPlace, DeviceSpec, DownloadProgress, DraftEmbeds, DraftReading, DtypeChoice,
    KeptConversations, KeptImages, KvPrecision, LayerIds, Method, ModelError, PositionsOf,
};
pub use vispec_processor::{
    Content, DecodedImage, ImageOptions, Message, Messages, Part, ProcessorError, SequenceTokens,
    SpecialText, ToolCall, Video,
};

pub use answer::{
    AnswerCycle, AnswerEnd, AnswerError, AnswerListener, Answered, Piece, TokenLogProbs,
};
pub use engine::Engine;
pub use options::{DraftingSettings, EngineSettings, LoadOptions, TreeChoice};
pub use request::{AnswerPrompt, AnswerRequest, EndOfSequence, ImageInput};
pub use running::{Answer, AnswerStream};
pub use scheduler::{KvMemory, SchedulerFigures, SchedulerOptions};
pub use submission::{CancelHandle, DrafterSource, Submission, SubmissionHandle};
pub use video_input::VideoInput;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
