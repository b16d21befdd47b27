//! Pages of other origins that may send requests.

use std::str::FromStr;

use axum::http::{HeaderName, HeaderValue, Method, header};
use tower_http::cors::{AllowOrigin, CorsLayer};
use url::Url;

use crate::headers::{IGNORED, REQUEST_ID};

/// An origin whose pages may send requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CorsOrigin {
    /// Every origin.
    Any,
    /// This origin, in the form that browsers send.
    One(String),
}

/// Error for a text that is not an origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not an origin, expected * or one like https://example.org:8443")]
pub struct NoOrigin {
    /// The text.
    found: String,
}

impl FromStr for CorsOrigin {
    type Err = NoOrigin;

    fn from_str(text: &str) -> Result<Self, NoOrigin> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let origin = Url::parse(text).ok().map(|url| url.origin());
        let origin = origin.filter(url::Origin::is_tuple);
        match origin.map(|origin| origin.ascii_serialization()) {
            Some(origin) if origin.eq_ignore_ascii_case(text.trim_end_matches('/')) => {
                Ok(Self::One(origin))
            }
            _ => Err(NoOrigin {
                found: text.to_owned(),
            }),
        }
    }
}

/// Returns the CORS layer, or `None` if no other origin is allowed.
pub(crate) fn layer(origins: &[CorsOrigin]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let named = origins.iter().map(|origin| match origin {
        CorsOrigin::Any => None,
        CorsOrigin::One(origin) => HeaderValue::from_str(origin).ok(),
    });
    let allowed = match named.collect::<Option<Vec<_>>>() {
        Some(origins) => AllowOrigin::list(origins),
        None => AllowOrigin::any(),
    };
    const RETRY_AFTER: HeaderName = header::RETRY_AFTER;
    Some(
        CorsLayer::new()
            .allow_origin(allowed)
            .allow_methods([Method::GET, Method::POST])
            .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE, REQUEST_ID])
            .expose_headers([REQUEST_ID, IGNORED, RETRY_AFTER]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_what_browsers_send() {
        let parse = |text: &str| text.parse::<CorsOrigin>();
        assert_eq!(parse("*"), Ok(CorsOrigin::Any));
        let one = |origin: &str| Ok(CorsOrigin::One(origin.to_owned()));
        assert_eq!(parse("https://a.example"), one("https://a.example"));
        assert_eq!(
            parse("HTTP://A.example:8080/"),
            one("http://a.example:8080")
        );
        for text in ["", "a.example", "https://a.example/x", "file:///x", "null"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
