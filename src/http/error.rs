//! The one translation from what goes wrong to what an HTTP client is told: a status and a problem document.

use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tracing::debug;

use crate::ledger::Outage;
use crate::problem::{self, Problem};

/// Why a request is not answered as its client hoped.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    /// There is no such address.
    #[error("There is nothing at this address.")]
    NotFound,
    /// The address is there, but not for this method. The `Allow` header says for which.
    #[error("This address does not know that method.")]
    MethodNotAllowed,
    /// The body is not what it should be.
    #[error("{0}")]
    BadRequest(String),
    /// The body's media type is none that is read here.
    #[error(
        "The body's content-type is {0:?}; application/json is read here, and text/plain that holds JSON."
    )]
    UnsupportedMediaType(String),
    /// The body could not be read.
    #[error("The body can't be read: {0}")]
    Body(BytesRejection),
    /// The store could not answer.
    #[error("The store of sessions does not answer now. Try again in a moment.")]
    Outage(Outage),
}

impl ApiError {
    /// Status, title and reason.
    fn kind(&self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::NotFound => (StatusCode::NOT_FOUND, "Not found", "not_found"),
            Self::MethodNotAllowed => (
                StatusCode::METHOD_NOT_ALLOWED,
                "Method not allowed",
                "method_not_allowed",
            ),
            Self::UnsupportedMediaType(_) => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "Unsupported media type",
                "unsupported_media_type",
            ),
            Self::Body(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                (StatusCode::PAYLOAD_TOO_LARGE, "Body too large", "too_large")
            }
            Self::BadRequest(_) | Self::Body(_) => {
                (StatusCode::BAD_REQUEST, "Bad request", "bad_request")
            }
            Self::Outage(_) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "Streams can't be counted",
                "outage",
            ),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, title, reason) = self.kind();
        let problem = Problem::plain(status.as_u16(), title, reason, self.to_string());
        let headers: [(HeaderName, &str); 2] = [
            (header::CONTENT_TYPE, problem::CONTENT_TYPE),
            (header::CACHE_CONTROL, "no-store"),
        ];
        let mut response = (status, headers, problem.to_json()).into_response();
        if let Self::Outage(outage) = &self {
            debug!(%outage, "an HTTP request could not be answered");
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
