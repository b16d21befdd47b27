//! OpenAI-compatible HTTP server for exact speculative decoding of vision-language models.
//!
//! ```text
//! HTTP --routes--> ParsedRequest --> AnswerModel (its scheduler) --AnswerEvent--> Reply --> HTTP
//! ```
//!
//! [`serve()`] answers `/v1/chat/completions`, `/v1/completions`, `/v1/responses`, `/v1/models`,
//! `/health` and `/metrics`, and serves a web page at `/`.
//! It accesses models through the trait [`AnswerModel`]; [`EngineModel`] implements it for a
//! [`vispec::Engine`].
//! The text of an answer equals that of [`vispec::core::generate`] with the same settings and seed.
//!
//! `docs/serving.md` lists the supported fields and the reasons for refusals.

mod access_log;
mod answering;
mod api_error;
mod api_key;
mod app;
mod client;
mod connections;
mod cors;
mod endpoint;
mod headers;
mod limits;
mod metrics;
mod model;
mod options;
mod pulse;
mod remote_image;
mod reply;
mod request;
mod request_memory;
mod response_store;
mod routes;
mod server;
mod tls;
mod tool_calls;

pub use api_key::{ApiKey, UnusableKey};
pub use cors::{CorsOrigin, NoOrigin};
pub use limits::{ConnectionLimits, RequestLimits};
pub use model::{AnswerModel, EngineModel};
pub use options::ServeOptions;
pub use remote_image::{RemoteAddresses, RemoteImageOptions};
pub use request::{RequestDefaults, Strictness, read_chat, read_completion};
pub use server::{ServeError, serve};
pub use tls::{Tls, TlsError};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
