//! What training minimises: distances between the draft's outputs and the target's hidden states,
//! and between the distributions that the target's head makes of both.

mod cpu;
mod head;
mod row;
mod smooth_l1;
mod softmax;

pub(crate) use head::host;
pub use head::{Head, HeadSums, HeadTerms, Teacher};
pub use row::Divergence;
pub use smooth_l1::smooth_l1;
