//! Exact speculative decoding with token trees, without a tensor library.

mod accept;
mod cache;
mod decode;
mod draft;
mod error;
mod logits;
mod observe;
mod sample;
mod stats;
mod target;
#[cfg(any(test, feature = "test-util"))]
pub mod testing;
mod token;
mod tree;

pub use accept::{AcceptanceRule, Chance, MatchPicks, RecursiveRejection, Verdict};
pub use cache::KvCache;
pub use decode::{FinishReason, Generation, GenerationConfig, Session, Step, generate};
pub use draft::{
    Beam, DraftError, DraftModel, Drafter, DynamicTreeDrafter, Expansion, NoDraft,
    PromptLookupConfig, PromptLookupDrafter, TopK,
};
pub use error::{ConfigError, DecodeError};
pub use logits::{HostLogits, LogitsError, TargetLogits};
pub use observe::GenerationObserver;
pub use sample::{PositionUniforms, Sampler, UniformStream};
pub use stats::GenerationStats;
pub use target::{OutputOf, Prompt, TargetModel, TargetOutput};
pub use token::{BoxError, TokenId};
pub use tree::{NodeId, RetrieveIndices, ShapeError, TokenTree, TreeError, TreeMask, TreeShape};
