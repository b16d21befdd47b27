//! What a target computed over training conversations: the samples that drafts are trained on.

mod sample;

pub use sample::CapturedSample;
