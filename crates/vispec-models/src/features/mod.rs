//! Features of whole sequences: what a draft is trained on.
//!
//! A sequence that is there already is read in one pass ([`read_features`]). One that the target
//! writes is recorded while it is decoded ([`answer_with_features`]), so nothing is computed twice;
//! on the CPU the features do not depend on how the tokens were drafted.

mod recorder;
mod sequence;

pub use recorder::answer_with_features;
pub use sequence::{SequenceFeatures, read_features};

pub(crate) use sequence::host_values;
