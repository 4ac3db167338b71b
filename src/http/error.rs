//! The one translation from what goes wrong to what an HTTP client is told: a status and a problem document.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tracing::debug;

use crate::config::Shown;
use crate::ledger::Outage;
use crate::problem::{self, Problem};
use crate::session::Refusal;

/// Why a request is not answered as its client hoped.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    /// There is no such address.
    #[error("There is nothing at this address.")]
    NotFound,
    /// The address is there, but not for this method. The `Allow` header says for which.
    #[error("This address does not know that method.")]
    MethodNotAllowed,
    /// The address or the body is not what it should be.
    #[error("{0}")]
    BadRequest(String),
    /// The body's media type is none that is read there.
    #[error("The body's content-type is {found:?}; read here: {}.", read_here.join(", "))]
    UnsupportedMediaType {
        /// What the body is called.
        found: String,
        /// What it might be called.
        read_here: &'static [&'static str],
    },
    /// The body could not be read.
    #[error("The body can't be read: {0}")]
    Body(BytesRejection),
    /// No such session is live.
    #[error("No such session is live.")]
    NotLive,
    /// The session may not start or go on: what is told of that, and when it is worth asking again.
    #[error("{}", .0.detail)]
    Refused(Box<Problem>, Option<Duration>),
    /// The store could not answer.
    #[error("The store of sessions does not answer now. Try again in a moment.")]
    Outage(Outage),
    /// The task that was to see to it has died.
    #[error("Something went wrong here.")]
    Internal,
}

impl ApiError {
    /// The answer to who was refused; `show` says what it may tell of other sessions.
    pub(super) fn refused(refusal: &Refusal, show: &BTreeSet<Shown>) -> Self {
        let mut problem = Problem::refusal(refusal, show);
        if let Refusal::Ended(_) = refusal {
            // Envoy's clients are told 429 whatever the reason. Here the address itself is gone.
            problem.status = StatusCode::GONE.as_u16();
        }
        Self::Refused(Box::new(problem), refusal.retry_after())
    }

    /// What is told.
    fn problem(&self) -> Problem {
        let plain = |status: StatusCode, title, reason| {
            Problem::plain(status.as_u16(), title, reason, self.to_string())
        };
        match self {
            Self::Refused(problem, _) => Problem::clone(problem),
            Self::NotFound => plain(StatusCode::NOT_FOUND, "Not found", "not_found"),
            Self::MethodNotAllowed => plain(
                StatusCode::METHOD_NOT_ALLOWED,
                "Method not allowed",
                "method_not_allowed",
            ),
            Self::UnsupportedMediaType { .. } => plain(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "Unsupported media type",
                "unsupported_media_type",
            ),
            Self::Body(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                plain(StatusCode::PAYLOAD_TOO_LARGE, "Body too large", "too_large")
            }
            Self::BadRequest(_) | Self::Body(_) => {
                plain(StatusCode::BAD_REQUEST, "Bad request", "bad_request")
            }
            Self::NotLive => plain(StatusCode::NOT_FOUND, "No such session", "not_live"),
            Self::Outage(_) => plain(
                StatusCode::SERVICE_UNAVAILABLE,
                "Streams can't be counted",
                "outage",
            ),
            Self::Internal => plain(
                StatusCode::INTERNAL_SERVER_ERROR,
                "Internal error",
                "internal",
            ),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let problem = self.problem();
        let status = StatusCode::from_u16(problem.status);
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers: [(HeaderName, &str); 2] = [
            (header::CONTENT_TYPE, problem::CONTENT_TYPE),
            (header::CACHE_CONTROL, "no-store"),
        ];
        let mut response = (status, headers, problem.to_json()).into_response();
        let headers = response.headers_mut();
        match &self {
            Self::Outage(outage) => {
                debug!(%outage, "an HTTP request could not be answered");
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            Self::Refused(problem, retry_after) => {
                if let Some(limit) = problem.limit {
                    tell_quota(headers, limit, 0);
                }
                if let Some(retry_after) = retry_after {
                    headers.insert(header::RETRY_AFTER, retry_after.as_secs().into());
                }
            }
            _ => {}
        }
        response
    }
}

/// Tells of the limit, and of what is left below it.
pub(super) fn tell_quota(headers: &mut HeaderMap, limit: u32, remaining: u32) {
    for (name, value) in [
        ("ratelimit-policy", problem::rate_limit_policy(limit)),
        ("ratelimit", problem::rate_limit(remaining)),
    ] {
        // They are made of digits and ASCII: such a value there can always be.
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}
