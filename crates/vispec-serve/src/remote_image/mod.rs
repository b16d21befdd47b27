//! Images at web addresses, fetched for clients if the operator allows it.
//!
//! A server that fetches what clients name can be made to reach places that the clients cannot. So
//! only public addresses are connected to; they are checked after names are resolved, on the very
//! addresses that are used. Redirects are not followed, and size and time are bounded.

mod public_address;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use url::Host;

use crate::api_error::ApiError;
use crate::request_memory::Room;
use public_address::is_public;

/// Which addresses may be fetched from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoteAddresses {
    /// Addresses that everybody on the internet can reach.
    Public,
    /// Any address, including this machine and its network. Clients can then reach whatever the
    /// server can.
    Any,
}

/// Limits for fetching images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteImageOptions {
    /// Maximum size of a file in bytes.
    pub max_bytes: usize,
    /// Maximum time for one image, from resolving its name to its last byte.
    pub timeout: Duration,
    /// Which addresses may be fetched from.
    pub addresses: RemoteAddresses,
}

impl Default for RemoteImageOptions {
    /// 16 MiB, 10 seconds, public addresses.
    fn default() -> Self {
        Self {
            max_bytes: 16 << 20,
            timeout: Duration::from_secs(10),
            addresses: RemoteAddresses::Public,
        }
    }
}

/// Fetches images.
#[derive(Debug, Clone)]
pub(crate) struct RemoteImages {
    client: Client,
    limits: RemoteImageOptions,
}

/// Address of an image, and the request field that holds it.
#[derive(Debug, Clone)]
pub(crate) struct RemoteImage {
    url: Url,
    location: String,
}

impl RemoteImage {
    /// Parses an address.
    ///
    /// # Errors
    /// If it is not an `http` or `https` address, or contains a user or password.
    pub(crate) fn parse(location: &str, url: &str) -> Result<Self, ApiError> {
        let url = Url::parse(url).map_err(|error| refused(location, &error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(refused(location, "expected an http, https or data address"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refused(location, "addresses with a user are not fetched"));
        }
        let location = location.to_owned();
        Ok(Self { url, location })
    }
}

impl RemoteImages {
    /// Creates the HTTP client.
    ///
    /// # Errors
    /// If the client cannot be created, for instance because certificates are missing.
    pub(crate) fn new(limits: &RemoteImageOptions) -> Result<Self, reqwest::Error> {
        let client = Client::builder()
            .redirect(Policy::none())
            // A proxy would connect to addresses that were not checked.
            .no_proxy()
            .timeout(limits.timeout)
            .dns_resolver(Arc::new(Checked(limits.addresses)))
            .build()?;
        Ok(Self {
            client,
            limits: limits.clone(),
        })
    }

    /// Returns the content of an image file, after reserving its bytes in `room`.
    ///
    /// # Errors
    /// If it cannot be fetched within the limits, or if there is no room. Details of failures are
    /// only logged: clients must not learn about places that they cannot reach.
    pub(crate) async fn fetch(
        &self,
        image: &RemoteImage,
        room: &mut Room,
    ) -> Result<Vec<u8>, ApiError> {
        let RemoteImage { url, location } = image;
        self.check_host(image)?;
        let unreachable = |error: reqwest::Error| {
            tracing::info!(error = %error.without_url(), "an image could not be fetched");
            refused(location, "the image could not be fetched")
        };
        let response = self.client.get(url.clone()).send().await;
        let response = response.map_err(unreachable)?;
        let status = response.status();
        if !status.is_success() {
            let reason = format!("fetching the image failed with status {}", status.as_u16());
            return Err(refused(location, &reason));
        }
        let max_bytes = self.limits.max_bytes;
        let too_large = || {
            let reason = format!("the image has more than the limit of {max_bytes} bytes");
            refused(location, &reason)
        };
        if response
            .content_length()
            .is_some_and(|len| len > max_bytes as u64)
        {
            return Err(too_large());
        }
        let mut content = Vec::new();
        let mut pieces = response.bytes_stream();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(unreachable)?;
            if content.len() + piece.len() > max_bytes {
                return Err(too_large());
            }
            room.grow(piece.len())?;
            content.extend_from_slice(&piece);
        }
        Ok(content)
    }

    /// Checks addresses that are numbers, which no resolver sees.
    fn check_host(&self, image: &RemoteImage) -> Result<(), ApiError> {
        let address = match image.url.host() {
            Some(Host::Ipv4(address)) => address.into(),
            Some(Host::Ipv6(address)) => address.into(),
            Some(Host::Domain(_)) => return Ok(()),
            None => return Err(refused(&image.location, "the address has no host")),
        };
        if self.limits.addresses == RemoteAddresses::Any || is_public(address) {
            return Ok(());
        }
        Err(refused(&image.location, "the image could not be fetched"))
    }
}

fn refused(location: &str, reason: &str) -> ApiError {
    ApiError::field(location, "remote_image", format!("{location}: {reason}"))
}

/// A resolver that returns only addresses that may be fetched from.
#[derive(Debug, Clone, Copy)]
struct Checked(RemoteAddresses);

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let addresses = self.0;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let mut found: Vec<SocketAddr> = found.collect();
            // Filter all of them, so that a second attempt cannot lead to a private address.
            if addresses == RemoteAddresses::Public {
                found.retain(|address| is_public(address.ip()));
            }
            if found.is_empty() {
                return Err("the name has no public address".into());
            }
            let found: Addrs = Box::new(found.into_iter());
            Ok(found)
        })
    }
}
