//! Tells a browser that opens `/` from a client of the small API, which has the same path.

use axum::http::header;
use axum::http::request::Parts;

/// Whether a request for `/` comes from a person with a browser: it accepts HTML and has no query.
/// Clients of the small API name a video in the query.
pub(super) fn is_asked_for(parts: &Parts) -> bool {
    let mut accepted = parts.headers.get_all(header::ACCEPT).iter();
    let is_html = |value: &str| value.to_ascii_lowercase().contains("text/html");
    parts.uri.query().unwrap_or_default().is_empty()
        && accepted.any(|value| value.to_str().is_ok_and(is_html))
}
