//! Limits that keep one client from monopolising the server.

use std::time::Duration;

/// Limits of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestLimits {
    /// Maximum length of a body in bytes, including base64 images.
    pub max_body: usize,
    /// Maximum number of images per conversation. The model limits their size.
    pub max_images: usize,
    /// Maximum number of videos per conversation.
    pub max_videos: usize,
    /// Maximum number of frames in all videos of a conversation that are given as frames.
    pub max_video_frames: usize,
    /// Maximum number of answers per request.
    pub max_choices: u32,
    /// Maximum number of tokens per answer, whatever the request asks for.
    pub max_answer_tokens: usize,
    /// Maximum time for a body to arrive.
    pub body_timeout: Duration,
    /// Maximum number of bytes that all requests hold together, from the first byte of a body to
    /// the end of the answer: bodies as they arrive, and fetched images. The first 64 KiB of each
    /// request are not counted.
    pub max_memory: usize,
    /// The same for the requests of one client address, or of one 64-bit IPv6 network.
    pub max_client_memory: usize,
}

impl Default for RequestLimits {
    /// 32 MiB, 8 images, 2 videos with 2048 frames together, 8 answers of any length, 30 seconds,
    /// 512 MiB for all requests, and half of it for one client.
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

/// Limits of connections and of the shutdown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Maximum number of open connections; further ones wait to be accepted.
    pub max_connections: usize,
    /// Maximum number of connections per client address, or per 64-bit IPv6 network; further ones
    /// are refused.
    pub max_client_connections: usize,
    /// Maximum time for the head of a request to arrive.
    pub header_timeout: Duration,
    /// Maximum time during which a client reads nothing of what is sent to it.
    pub write_timeout: Duration,
    /// How long requests are still accepted after a shutdown was requested. The server reports that
    /// it is not ready meanwhile, so that a load balancer can send requests elsewhere.
    pub drain: Duration,
    /// How long a shutdown waits for answers before it cuts them off.
    pub shutdown_timeout: Duration,
}

impl Default for ConnectionLimits {
    /// 768 connections, half of them for one client; 10 seconds for a head, 30 seconds for a write
    /// and for a shutdown.
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
