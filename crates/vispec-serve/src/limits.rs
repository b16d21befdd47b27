//! Bounds that keep one client from taking the server away from the others.

use std::time::Duration;

/// Bounds of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestLimits {
    /// Longest body in bytes, images in base64 included.
    pub max_body: usize,
    /// Most images of a conversation. Their size is a matter of the model.
    pub max_images: usize,
    /// Most videos of a conversation.
    pub max_videos: usize,
    /// Most frames of all videos of a conversation that are given as frames.
    pub max_video_frames: usize,
    /// Most answers to a request.
    pub max_choices: u32,
    /// Most tokens of an answer, whatever the request asks for.
    pub max_answer_tokens: usize,
    /// Longest time for a body to arrive.
    pub body_timeout: Duration,
    /// Bytes that all requests together hold, from the first byte of a body to the end of the
    /// answer: bodies as they arrive and fetched images. The first 64 KiB of each are not counted.
    pub max_memory: usize,
    /// The same for the requests of one client address, or of one network of 64 bits of IPv6.
    pub max_client_memory: usize,
}

impl Default for RequestLimits {
    /// 32 MiB, 8 images, 2 videos of 2048 frames together, 8 answers of any length, 30 seconds, 512 MiB together, half of it for one
    /// client.
    fn default() -> Self {
        Self {
            max_body: 32 << 20,
            max_images: 8,
            max_videos: 2,
            max_video_frames: 2048,
            max_choices: 8,
            max_answer_tokens: usize::MAX,
            body_timeout: Duration::from_secs(30),
            max_memory: 512 << 20,
            max_client_memory: 256 << 20,
        }
    }
}

/// Bounds of connections and of the shutdown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Most connections at a time; more wait to be accepted.
    pub max_connections: usize,
    /// Most connections of one client address, or of one network of 64 bits of IPv6; more are
    /// turned away.
    pub max_client_connections: usize,
    /// Longest time for the head of a request to arrive.
    pub header_timeout: Duration,
    /// Longest time in which a client takes nothing of what is sent to it.
    pub write_timeout: Duration,
    /// How long requests are still taken after the server was asked to end and says that it is not
    /// ready, so that a load balancer can send them elsewhere.
    pub drain: Duration,
    /// How long a shutdown waits for answers before it ends them.
    pub shutdown_timeout: Duration,
}

impl Default for ConnectionLimits {
    /// 768 connections, half of them for one client, 10 seconds for a head, 30 for a write and for a shutdown.
    fn default() -> Self {
        Self {
            max_connections: 768,
            max_client_connections: 384,
            header_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
            drain: Duration::ZERO,
            shutdown_timeout: Duration::from_secs(30),
        }
    }
}
