//! Translates every failure into an HTTP answer: a status and a problem document.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tracing::debug;

use super::MAX_BODY_BYTES;
use crate::config::Shown;
use crate::http::request::foreign_page::ForeignPage;
use crate::ledger::Outage;
use crate::problem::{self, NOT_STOPPABLE, OUTAGE, Problem, Reason};
use crate::session::Refusal;

/// Why a request fails.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    /// There is nothing at this path.
    #[error("There is nothing at this path. /openapi.json lists all paths.")]
    NotFound,
    /// The path exists, but not for this method. The `Allow` header lists its methods.
    #[error("This path doesn't support the method. The Allow header lists those it supports.")]
    MethodNotAllowed,
    /// The URL or the body is invalid.
    #[error("{0}")]
    BadRequest(String),
    /// The caller is not identified.
    #[error("{}", scheme.hint(*shown))]
    Unauthorized {
        /// The scheme by which it can identify itself.
        scheme: Scheme,
        /// Whether it sent invalid credentials.
        shown: bool,
    },
    /// The caller's token was valid once.
    #[error("The token has expired. Use a new one.")]
    TokenExpired(Scheme),
    /// The caller is known, but not allowed to do this.
    #[error("{0}")]
    Forbidden(&'static str),
    /// The request comes from a web page that may not make it.
    #[error(transparent)]
    ForeignPage(#[from] ForeignPage),
    /// The body's media type is not accepted there.
    #[error("The body's content-type is {found:?}; accepted: {}, encoded as UTF-8.", read_here.join(", "))]
    UnsupportedMediaType {
        /// The body's media type.
        found: String,
        /// The accepted media types.
        read_here: &'static [&'static str],
    },
    /// The body could not be read.
    #[error("The body can't be read: {0}.")]
    Body(BytesRejection),
    /// The body is larger than the limit.
    #[error("The body is larger than {0} bytes.")]
    TooLarge(usize),
    /// The body did not arrive in time.
    #[error("The request did not arrive within {} s.", .0.as_secs_f32())]
    TooSlow(Duration),
    /// The URL is too long.
    #[error("The URL is longer than {0} bytes.")]
    AddressTooLong(usize),
    /// The headers are too large.
    #[error("The headers are larger than {0} bytes.")]
    HeadersTooLarge(usize),
    /// No such session is live.
    #[error("This stream isn't playing. Start it to watch.")]
    NotLive,
    /// The session runs inside Envoy, and the caller can't vouch for its end.
    #[error("{NOT_STOPPABLE}")]
    NotStoppable,
    /// The session may not start or continue: the problem, and when a retry makes sense.
    #[error("{}", .0.detail)]
    Refused(Box<Problem>, Option<Duration>),
    /// As many clients as possible listen to events.
    #[error(
        "This instance already has {0} listeners. Try again later, or listen to another instance."
    )]
    TooManyListeners(usize),
    /// The store could not answer.
    #[error("{OUTAGE}")]
    Outage(Outage),
    /// The task that should have handled it has died.
    #[error("Something went wrong. Try again, and contact support if it happens again.")]
    Internal,
}

/// How a client may identify itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    /// A bearer token.
    Bearer,
    /// A user name, with a token as the password.
    Basic,
}

impl ApiError {
    /// The error for a refusal; `show` says which facts of other sessions it may include.
    pub(super) fn refused(refusal: &Refusal, show: &BTreeSet<Shown>) -> Self {
        let mut problem = Problem::refusal(refusal, show);
        if let Refusal::Ended(..) = refusal {
            // Envoy's clients get 429 for any reason. Here the resource itself is gone.
            problem.status = StatusCode::GONE.as_u16();
        }
        Self::Refused(Box::new(problem), refusal.retry_after())
    }

    /// The problem document.
    pub(super) fn problem(&self) -> Problem {
        let (status, reason) = match self {
            Self::Refused(problem, _) => return Problem::clone(problem),
            Self::NotFound => (StatusCode::NOT_FOUND, Reason::NotFound),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, Reason::MethodNotAllowed),
            Self::Unauthorized { .. } | Self::TokenExpired(_) => {
                (StatusCode::UNAUTHORIZED, Reason::Unauthorized)
            }
            Self::Forbidden(_) | Self::ForeignPage(_) => (StatusCode::FORBIDDEN, Reason::Forbidden),
            Self::UnsupportedMediaType { .. } => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                Reason::UnsupportedMediaType,
            ),
            Self::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, Reason::TooLarge),
            Self::Body(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                return Self::TooLarge(MAX_BODY_BYTES).problem();
            }
            Self::BadRequest(_) | Self::Body(_) => (StatusCode::BAD_REQUEST, Reason::BadRequest),
            Self::TooSlow(_) => (StatusCode::REQUEST_TIMEOUT, Reason::TooSlow),
            Self::AddressTooLong(_) => (StatusCode::URI_TOO_LONG, Reason::AddressTooLong),
            Self::HeadersTooLarge(_) => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                Reason::HeadersTooLarge,
            ),
            Self::NotLive => (StatusCode::NOT_FOUND, Reason::NotLive),
            Self::TooManyListeners(_) => (StatusCode::TOO_MANY_REQUESTS, Reason::TooManyListeners),
            Self::NotStoppable => (StatusCode::CONFLICT, Reason::NotStoppable),
            Self::Outage(_) => (StatusCode::SERVICE_UNAVAILABLE, Reason::Outage),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, Reason::Internal),
        };
        Problem::plain(status.as_u16(), reason, brief(self.to_string()))
    }

    /// Adds the headers that belong to it.
    fn tell(&self, headers: &mut HeaderMap) {
        match self {
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
            Self::TooManyListeners(_) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("10"));
            }
            Self::TokenExpired(scheme) => {
                let challenge = HeaderValue::from_static(scheme.challenge(true));
                headers.insert(header::WWW_AUTHENTICATE, challenge);
            }
            Self::Unauthorized { scheme, shown } => {
                let challenge = HeaderValue::from_static(scheme.challenge(*shown));
                headers.insert(header::WWW_AUTHENTICATE, challenge);
            }
            // The rest of the request stays unread; it must not be parsed as the next request.
            Self::TooSlow(_) => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Self::NotFound
            | Self::MethodNotAllowed
            | Self::BadRequest(_)
            | Self::Forbidden(_)
            | Self::ForeignPage(_)
            | Self::UnsupportedMediaType { .. }
            | Self::Body(_)
            | Self::TooLarge(_)
            | Self::AddressTooLong(_)
            | Self::HeadersTooLarge(_)
            | Self::NotLive
            | Self::NotStoppable
            | Self::Internal => {}
        }
    }
}

impl Scheme {
    /// What a client can do about it.
    const fn hint(self, shown: bool) -> &'static str {
        match (self, shown) {
            (Self::Bearer, false) => {
                "Send a token: the header Authorization with Bearer and the token."
            }
            (Self::Bearer, true) => "The token in the Authorization header is not valid.",
            (Self::Basic, false) => {
                "Use HTTP Basic with the user's name. If the service uses tokens, the password is a token."
            }
            (Self::Basic, true) => {
                "The Authorization header has no user name with a password that is valid for it."
            }
        }
    }

    /// The `WWW-Authenticate` header (RFC 6750 and RFC 7617).
    const fn challenge(self, shown: bool) -> &'static str {
        match (self, shown) {
            (Self::Bearer, false) => r#"Bearer realm="streamgate""#,
            (Self::Bearer, true) => r#"Bearer realm="streamgate", error="invalid_token""#,
            (Self::Basic, _) => r#"Basic realm="streamgate", charset="UTF-8""#,
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
        self.tell(response.headers_mut());
        // For the layer that knows the address of the guide to problems.
        response.extensions_mut().insert(problem);
        response
    }
}

/// The maximum length of a detail: it may quote a client's own text, which may be long.
const MAX_DETAIL: usize = 400;

/// The sentence, truncated if necessary.
fn brief(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(MAX_DETAIL) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Adds headers with the limit, and with what remains of it.
pub(super) fn tell_quota(headers: &mut HeaderMap, limit: u32, remaining: u32) {
    for (name, value) in [
        ("ratelimit-policy", problem::rate_limit_policy(limit)),
        ("ratelimit", problem::rate_limit(remaining)),
    ] {
        // Digits and ASCII are always a valid header value.
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}
