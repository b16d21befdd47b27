//! Losses: distances between the draft's outputs and the target's hidden states, and between the
//! distributions that the target's head computes from both.

mod cpu;
mod head;
mod row;
mod smooth_l1;
mod softmax;

pub use head::Head;
pub(crate) use head::{HeadSums, HeadTerms, host};
pub(crate) use row::Divergence;
pub(crate) use smooth_l1::smooth_l1;
