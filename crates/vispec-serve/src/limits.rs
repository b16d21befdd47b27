//! Bounds that keep one client from taking the server away from the others.

use std::time::Duration;

/// Bounds of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestLimits {
    /// Longest body in bytes, images in base64 included.
    pub max_body: usize,
    /// Most images of a conversation. Their size is a matter of the model.
    pub max_images: usize,
    /// Most answers to a request.
    pub max_choices: u32,
    /// Longest time for a body to arrive.
    pub body_timeout: Duration,
}

impl Default for RequestLimits {
    /// 32 MiB, 8 images, 8 answers, 30 seconds.
    fn default() -> Self {
        Self {
            max_body: 32 << 20,
            max_images: 8,
            max_choices: 8,
            body_timeout: Duration::from_secs(30),
        }
    }
}

/// Bounds of connections and of the shutdown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Most connections at a time; more wait to be accepted.
    pub max_connections: usize,
    /// Longest time for the head of a request to arrive.
    pub header_timeout: Duration,
    /// Longest time in which a client takes nothing of what is sent to it.
    pub write_timeout: Duration,
    /// How long a shutdown waits for answers before it ends them.
    pub shutdown_timeout: Duration,
}

impl Default for ConnectionLimits {
    /// 768 connections, 10 seconds for a head, 30 for a write and for a shutdown.
    fn default() -> Self {
        Self {
            max_connections: 768,
            header_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
            shutdown_timeout: Duration::from_secs(30),
        }
    }
}
