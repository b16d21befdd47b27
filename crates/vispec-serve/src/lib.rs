//! OpenAI-compatible HTTP server for exact speculative decoding of vision-language models.
//!
//! ```text
//! HTTP --routes--> ParsedRequest --> AnswerModel (its scheduler) --AnswerEvent--> Reply --> HTTP
//! ```
//!
//! [`serve()`] answers `/v1/chat/completions`, `/v1/completions`, `/v1/responses`, `/v1/models`, `/health` and
//! `/metrics`, and has a page for people at `/`.
//! It knows models by the trait [`AnswerModel`]; [`EngineModel`] is the one for a [`vispec::Engine`].
//! The text of an answer is that of [`vispec::core::generate`] with the same settings and seed.
//!
//! What is supported and what is refused is in `docs/serving.md`.

mod answering;
mod api_error;
mod api_key;
mod client;
mod limits;
mod metrics;
mod model;
mod remote_image;
mod reply;
mod request;
mod request_memory;
mod response_store;
mod routes;
mod server;
mod tool_calls;

pub use api_key::{ApiKey, UnusableKey};
pub use limits::{ConnectionLimits, RequestLimits};
pub use model::{AnswerModel, EngineModel};
pub use remote_image::{RemoteAddresses, RemoteImageLimits};
pub use request::{RequestDefaults, read_chat, read_completion};
pub use server::{ServeError, ServeOptions, serve};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
