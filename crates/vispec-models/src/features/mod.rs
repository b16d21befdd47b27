//! Features of whole sequences: what a draft is trained on.
//!
//! A sequence that is there already is read in one pass ([`read_features`]). One that the target
//! writes is decoded in a cache that remembers hidden states
//! ([`VlmTarget::recording_cache`](crate::VlmTarget::recording_cache)), which then has the features
//! ([`SequenceFeatures::of_answer`]), so nothing is computed twice; on the CPU they do not depend on
//! how the tokens were drafted, nor on the sequences that shared its passes.

mod sequence;
mod spec;

pub use sequence::{HostFeatures, SequenceFeatures, read_features};
pub use spec::{FeatureSpec, eagle3_states};

pub(crate) use sequence::host_values;
pub(crate) use spec::PassStates;
