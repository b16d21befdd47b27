//! The web page, which is compiled in.

use axum::Router;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;

use crate::app::App;

/// Allows no external resources; images are those that the user chose.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

/// The routes of the page and its parts.
pub(super) fn router() -> Router<App> {
    let file = |content_type: &'static str, content: &'static str| {
        get(async move || {
            let headers = [
                (header::CONTENT_TYPE, content_type),
                (header::CONTENT_SECURITY_POLICY, POLICY),
                (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
                (header::CACHE_CONTROL, "no-cache"),
            ];
            (headers, content).into_response()
        })
    };
    let html = include_str!("../../page/index.html");
    let css = include_str!("../../page/page.css");
    let js = include_str!("../../page/page.js");
    Router::new()
        .route("/", file("text/html; charset=utf-8", html))
        .route("/page.css", file("text/css; charset=utf-8", css))
        .route("/page.js", file("text/javascript; charset=utf-8", js))
}
