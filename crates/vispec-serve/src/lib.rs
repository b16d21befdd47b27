//! OpenAI-compatible HTTP server for exact speculative decoding of vision-language models.
//!
//! ```text
//! HTTP --routes--> ParsedRequest --JobQueue--> AnswerModel (threads) --AnswerEvent--> Reply --> HTTP
//! ```
//!
//! [`serve()`] answers `/v1/chat/completions`, `/v1/completions`, `/v1/models`, `/health` and
//! `/metrics`, and has a page for people at `/`.
//! It knows models by the trait [`AnswerModel`]; [`EngineModel`] is the one for checkpoints.
//! The text of an answer is that of [`vispec_core::generate`] with the same settings and seed.
//!
//! What is supported and what is refused is in `docs/serving.md`.

mod answer_text;
mod api_error;
mod api_key;
mod engine_model;
mod limits;
mod metrics;
mod model;
mod queue;
mod reply;
mod request;
mod routes;
mod server;
mod stop_strings;

pub use api_key::{ApiKey, UnusableKey};
pub use engine_model::EngineModel;
pub use limits::{ConnectionLimits, RequestLimits};
pub use model::{
    AnswerCycle, AnswerEnd, AnswerError, AnswerListener, AnswerModel, AnswerPrompt, AnswerRequest,
    Answered, Piece,
};
pub use request::RequestDefaults;
pub use server::{ServeError, ServeOptions, serve};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
