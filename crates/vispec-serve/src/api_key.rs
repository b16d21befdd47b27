//! The optional API key that clients must send.

use std::fmt;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::api_error::ApiError;
use crate::app::App;

/// A secret that is compared in constant time and never displayed.
#[derive(Clone)]
pub struct ApiKey {
    /// Digests have a fixed length, so that timing does not even reveal the key's length.
    digest: [u8; 32],
}

/// Error for a key that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the API key is empty or not valid in a header, expected visible ASCII")]
pub struct UnusableKey;

impl ApiKey {
    /// Creates a key; surrounding white space, such as a line end, is removed.
    ///
    /// # Errors
    /// [`UnusableKey`] if nothing is left, or if no client could send the key.
    pub fn new(key: &str) -> Result<Self, UnusableKey> {
        let key = key.trim();
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(UnusableKey);
        }
        Ok(Self {
            digest: Sha256::digest(key).into(),
        })
    }

    fn is(&self, offered: &[u8]) -> bool {
        let offered: [u8; 32] = Sha256::digest(offered).into();
        self.digest.ct_eq(&offered).into()
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(..)")
    }
}

/// Passes on requests that have the key, or all requests if there is none.
pub(crate) async fn check(
    State(app): State<App>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let Some(key) = &app.options.api_key else {
        return Ok(next.run(request).await);
    };
    let authorization = request.headers().get(header::AUTHORIZATION);
    let offered = authorization.and_then(|value| bearer(value.as_bytes()));
    if offered.is_some_and(|offered| key.is(offered)) {
        return Ok(next.run(request).await);
    }
    Err(ApiError::new(
        StatusCode::UNAUTHORIZED,
        "invalid_api_key",
        "the API key is missing or wrong, expected the header Authorization: Bearer KEY",
    ))
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, key) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_key_is_the_key() {
        let key = ApiKey::new("secret\n").unwrap();
        assert!(key.is(b"secret"));
        for other in [&b""[..], b"secre", b"secrets", b"Secret"] {
            assert!(!key.is(other));
        }
        assert_eq!(format!("{key:?}"), "ApiKey(..)");
        assert_eq!(ApiKey::new(" \n").unwrap_err(), UnusableKey);
        assert_eq!(ApiKey::new("a\nb").unwrap_err(), UnusableKey);
    }

    #[test]
    fn the_scheme_is_bearer() {
        assert_eq!(bearer(b"bearer x"), Some(&b"x"[..]));
        assert_eq!(bearer(b"Basic x"), None);
        assert_eq!(bearer(b""), None);
    }
}
