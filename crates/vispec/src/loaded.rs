//! State that all answers of an engine share.

use std::sync::Arc;

use vispec_core::SuffixStore;
use vispec_models::{ConversationStore, ImageStore};

use crate::grammars::Grammars;
use crate::options::{DraftingSettings, EngineSettings};

/// State that all answers share.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) models: vispec_models::Engine,
    pub(crate) drafting: DraftingSettings,
    pub(crate) settings: EngineSettings,
    pub(crate) conversations: ConversationStore,
    pub(crate) images: ImageStore,
    pub(crate) grammars: Grammars,
    /// Tokens of earlier answers, if they are kept.
    pub(crate) earlier_answers: Option<Arc<SuffixStore>>,
}
