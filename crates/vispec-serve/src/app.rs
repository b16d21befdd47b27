//! State shared by all requests.

use std::sync::Arc;

use crate::answering::Answering;
use crate::metrics::Metrics;
use crate::model::AnswerModel;
use crate::options::ServeOptions;
use crate::pulse::Pulse;
use crate::remote_image::RemoteImages;
use crate::request::{RemotePolicy, RequestRules};
use crate::request_memory::RequestMemory;
use crate::response_store::ResponseStore;

/// State shared by all requests.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) model: Arc<dyn AnswerModel>,
    pub(crate) answering: Arc<Answering>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) options: Arc<ServeOptions>,
    pub(crate) memory: Arc<RequestMemory>,
    /// Fetches images, if the operator allows it.
    pub(crate) remote_images: Option<RemoteImages>,
    /// Whether the model makes progress.
    pub(crate) pulse: Pulse,
    /// Conversations that requests may continue.
    pub(crate) responses: Arc<ResponseStore>,
    /// Held by the request whose text is being tokenised.
    pub(crate) tokenizing: Arc<tokio::sync::Mutex<()>>,
    /// When the server started, in seconds since 1970.
    pub(crate) started: u64,
}

impl App {
    /// Rules for reading requests.
    pub(crate) fn rules(&self) -> RequestRules<'_> {
        RequestRules {
            model_id: self.model.id(),
            defaults: &self.options.defaults,
            limits: &self.options.request_limits,
            remote: match &self.remote_images {
                None => RemotePolicy::Refuse,
                Some(_) => RemotePolicy::Fetch,
            },
            strictness: self.options.strictness,
        }
    }
}
