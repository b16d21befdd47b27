//! Tests of the server through its HTTP API, over the loopback network.
#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test may panic, and nothing is used from outside"
)]

mod access;
mod answers;
mod bad_requests;
mod browser;
mod choices;
mod conversations;
mod held_model;
mod kept_images;
mod memory;
mod operations;
mod queueing;
mod remote_images;
mod responses;
mod running;
mod scripted;
mod shutdown;
mod speculation;
mod streams;
mod structured;
mod tiny_model;
mod tools;
mod videos;
