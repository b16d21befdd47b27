//! Many answers at a time: each equals the answer that the request gets alone, and none disturbs
//! the others.
#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test may panic, and nothing is used from outside"
)]

mod asked;
mod bounds;
mod choices;
mod earlier_answers;
mod endings;
mod failures;
mod fairness;
mod mixes;
mod models;
mod told;
