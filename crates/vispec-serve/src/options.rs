//! Options of the server.

use crate::api_key::ApiKey;
use crate::cors::CorsOrigin;
use crate::limits::{ConnectionLimits, RequestLimits};
use crate::remote_image::RemoteImageOptions;
use crate::request::{RequestDefaults, Strictness};
use crate::tls::Tls;

/// Options of the server.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Default values of request fields.
    pub defaults: RequestDefaults,
    /// Limits of one request.
    pub request_limits: RequestLimits,
    /// Limits of connections and of the shutdown.
    pub connection_limits: ConnectionLimits,
    /// Limits for fetching images from web addresses; `None` refuses such images.
    pub remote_images: Option<RemoteImageOptions>,
    /// Key that clients must send, if any.
    pub api_key: Option<ApiKey>,
    /// Other origins whose pages may send requests.
    pub cors_origins: Vec<CorsOrigin>,
    /// Certificate and key, to encrypt connections.
    pub tls: Option<Tls>,
    /// How unknown request fields are handled.
    pub strictness: Strictness,
}

impl Default for ServeOptions {
    /// No remote images, no key, no other origins, no TLS, strict.
    fn default() -> Self {
        Self {
            defaults: RequestDefaults::default(),
            request_limits: RequestLimits::default(),
            connection_limits: ConnectionLimits::default(),
            remote_images: None,
            api_key: None,
            cors_origins: Vec::new(),
            tls: None,
            strictness: Strictness::Strict,
        }
    }
}
