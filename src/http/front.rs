//! The page at `/`, for people who open the HTTP port in a browser. The small API has the same
//! path.

use std::sync::OnceLock;

use axum::http::header;
use axum::http::request::Parts;
use axum::response::Response;

use super::html;

/// What this is, and where to read more.
const MAIN: &str = r#"<h1>streamgate</h1>
<p>This service limits how many video streams one account watches at once. Envoy asks it about each stream over gRPC. Apps and
back ends use the HTTP API on this port.</p>
<ul>
<li><a href="/openapi.json">HTTP API</a>: all calls, as an OpenAPI document
<li><a href="/v1/problems">Problems</a>: what each refusal and error means, and what a client should do
<li><a href="/metrics">Metrics</a>, for Prometheus
<li><a href="/readyz">Readiness</a>, with the state of the store and of Envoy's access log
</ul>
"#;

/// Whether a request for `/` comes from a person with a browser: it accepts HTML and has no query.
/// Clients of the small API name a video in the query.
pub(super) fn is_asked_for(parts: &Parts) -> bool {
    let mut accepted = parts.headers.get_all(header::ACCEPT).iter();
    let is_html = |value: &str| value.to_ascii_lowercase().contains("text/html");
    parts.uri.query().unwrap_or_default().is_empty()
        && accepted.any(|value| value.to_str().is_ok_and(is_html))
}

/// The page.
pub(super) fn serve() -> Response {
    static PAGE: OnceLock<String> = OnceLock::new();
    html::response(PAGE.get_or_init(|| {
        let version = env!("CARGO_PKG_VERSION");
        html::page(
            "streamgate",
            "",
            &format!("{MAIN}<p><small>Version {version}</small></p>\n"),
        )
    }))
}
