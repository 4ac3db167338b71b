//! The frame of pages for people, and how they are sent. They contain no script and load nothing.

use axum::http::header;
use axum::response::{IntoResponse, Response};

/// What a page may load: only its own style.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// The style of pages, light and dark.
const STYLE: &str = include_str!("html.css");

/// A page in HTML. `navigation` comes first, stays in view, and may be empty.
pub(super) fn page(title: &str, navigation: &str, main: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
        <meta name=\"viewport\" content=\"width=device-width\">\n\
        <meta name=\"color-scheme\" content=\"light dark\">\n\
        <title>{title}</title>\n<style>\n{STYLE}</style>\n{navigation}<main>\n{main}</main>\n</html>\n"
    )
}

/// The response with a page.
pub(super) fn response(page: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
    ];
    (headers, page).into_response()
}
