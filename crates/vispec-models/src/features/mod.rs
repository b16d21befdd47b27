//! Features of whole sequences, on which drafts are trained.
//!
//! An existing sequence is read in one pass ([`read_features`]). A sequence that the target
//! generates is decoded in a cache that records hidden states
//! ([`VlmTarget::recording_cache`](crate::VlmTarget::recording_cache)). The features then come from
//! that cache ([`SequenceFeatures::of_answer`]), so nothing is computed twice. On the CPU they
//! depend neither on how the tokens were drafted nor on the sequences that shared the passes.

mod sequence;
mod spec;

pub use sequence::{HostFeatures, SequenceFeatures, read_features};
pub use spec::{FeatureSpec, eagle3_states};

pub(crate) use sequence::host_values;
pub(crate) use spec::PassStates;
