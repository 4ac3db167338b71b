//! What all requests share, before and after their handlers: an id, limits of size and time, CORS,
//! and metrics.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::ApiState;
use super::MAX_BODY_BYTES;
use super::error::ApiError;
use super::events::LAST_EVENT_ID;
use super::start_service::WouldRefuse;
use crate::clock::Stopwatch;
use crate::config::Origins;
use crate::identity::SessionId;
use crate::problem::Problem;
use crate::telemetry::metrics::{Call, CallOutcome};

/// The header with a request's id, in both directions.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest request id that we accept from a client.
const MAX_REQUEST_ID: usize = 128;

/// The maximum length of a URL: two names of 256 bytes with every byte escaped, and some room.
pub(super) const MAX_ADDRESS_BYTES: usize = 8 * 1024;

/// The maximum size of all headers together.
pub(super) const MAX_HEADER_BYTES: usize = 16 * 1024;

/// How long a browser may cache a CORS preflight.
const PREFLIGHT_AGE: Duration = Duration::from_secs(600);

/// The id of a request, from its client or made here. It appears in the answer and in the log.
#[derive(Debug, Clone)]
pub(super) struct RequestId(Arc<str>);

impl RequestId {
    /// The id.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The client's own id, if it has sent a printable one, or else a new one.
    fn of(headers: &HeaderMap) -> Self {
        let sent = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
        let good = sent.filter(|id| {
            (1..=MAX_REQUEST_ID).contains(&id.len())
                && id.bytes().all(|byte| byte.is_ascii_graphic())
        });
        Self(good.map_or_else(
            || SessionId::from_number(rand::random()).as_str().into(),
            Into::into,
        ))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromRequestParts<ApiState> for RequestId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &ApiState) -> Result<Self, ApiError> {
        let id = parts.extensions.get::<Self>().cloned();
        Ok(id.unwrap_or_else(|| Self::of(&parts.headers)))
    }
}

/// Gives a request and its answer an id.
pub(super) async fn identified(mut request: Request, next: Next) -> Response {
    let id = RequestId::of(request.headers());
    request.extensions_mut().insert(id.clone());
    let mut response = next.run(request).await;
    if let Ok(id) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// Refuses requests that are too large or too slow. Work already started for a request continues.
pub(super) async fn bounded(
    State(door): State<ApiState>,
    request: Request,
    next: Next,
) -> Response {
    let address = request.uri().path_and_query();
    if address.is_some_and(|it| it.as_str().len() > MAX_ADDRESS_BYTES) {
        return ApiError::AddressTooLong(MAX_ADDRESS_BYTES).into_response();
    }
    let headers = request.headers();
    if request.version() == Version::HTTP_11 && headers.get_all(header::HOST).iter().count() != 1 {
        // The next proxy may choose differently which of them counts (RFC 9112, 3.2).
        let told = "A request must have exactly one Host header.".to_owned();
        return ApiError::BadRequest(told).into_response();
    }
    let length = headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > MAX_BODY_BYTES as u64) {
        return ApiError::TooLarge(MAX_BODY_BYTES).into_response();
    }
    let sizes = headers.iter();
    let size: usize = sizes
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    if size > MAX_HEADER_BYTES {
        return ApiError::HeadersTooLarge(MAX_HEADER_BYTES).into_response();
    }
    let answer = tokio::time::timeout(door.request_timeout, next.run(request)).await;
    answer.unwrap_or_else(|_| ApiError::TooSlow(door.request_timeout).into_response())
}

/// Counts a request by its call and its outcome.
pub(super) async fn counted(
    State(door): State<ApiState>,
    request: Request,
    next: Next,
) -> Response {
    let asked = Stopwatch::start();
    let path = request.extensions().get::<MatchedPath>();
    let call = call(request.method(), path.map_or("", MatchedPath::as_str));
    let response = next.run(request).await;
    let outcome = match response.extensions().get::<WouldRefuse>() {
        Some(WouldRefuse) => CallOutcome::WouldRefuse,
        None => CallOutcome::of(response.status().as_u16()),
    };
    door.metrics.call(call, outcome, asked.elapsed());
    response
}

/// The call for a path and a method.
fn call(method: &Method, path: &str) -> Call {
    match (path, method.as_str()) {
        (_, "OPTIONS") => Call::Options,
        ("/v1/users/{user}/sessions", "GET" | "HEAD") => Call::User,
        ("/v1/users/{user}/sessions", "POST") | ("/v1/users/{user}/sessions/{session}", "PUT") => {
            Call::Start
        }
        ("/v1/users/{user}/sessions", "DELETE") => Call::EndAll,
        ("/v1/users/{user}/sessions/{session}", "GET" | "HEAD") => Call::Session,
        ("/v1/users/{user}/sessions/{session}", "DELETE") | ("/v1/release", "POST") => {
            Call::Release
        }
        ("/v1/sessions", "GET" | "HEAD") => Call::List,
        ("/v1/events", "GET" | "HEAD") => Call::Events,
        ("/", "GET" | "HEAD") => Call::Video,
        ("/", "POST") => Call::StartVideo,
        ("/", "PATCH") => Call::RenewVideo,
        ("/", "DELETE") => Call::ReleaseVideo,
        _ => Call::Other,
    }
}

/// Marks an answer about who watches what, so that no cache may keep it.
pub(super) async fn not_stored(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Points a problem's type at the configured guide to problems, if that is not this instance's own.
pub(super) async fn explained(State(door): State<ApiState>, mut response: Response) -> Response {
    let Some(problem) = response.extensions_mut().remove::<Problem>() else {
        return response;
    };
    if let Some(guide) = &door.ledger.in_force().refusal.problems {
        let told = problem.explained_at(guide).to_json();
        // The length of the old body.
        response.headers_mut().remove(header::CONTENT_LENGTH);
        *response.body_mut() = Body::from(told);
    }
    response
}

/// Adds methods to `Allow` that the router doesn't list.
pub(super) async fn options_allowed(mut response: Response) -> Response {
    let headers = response.headers_mut();
    if let Some(Ok(allowed)) = headers.get(header::ALLOW).map(HeaderValue::to_str)
        && let Ok(allowed) = HeaderValue::from_str(&format!("{allowed},OPTIONS"))
    {
        headers.insert(header::ALLOW, allowed);
    }
    response
}

/// Answers scripts of those origins: preflights, and the headers that let them read answers. `None`
/// if no origin is allowed.
pub(super) fn cors(origins: &Origins) -> Option<CorsLayer> {
    let origins = match origins {
        Origins::Any => AllowOrigin::any(),
        Origins::These(these) if these.is_empty() => return None,
        Origins::These(these) => {
            let these = these.iter().filter_map(|it| HeaderValue::from_str(it).ok());
            AllowOrigin::list(these)
        }
    };
    let layer = CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([
            Method::GET,
            Method::HEAD,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
        ])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            LAST_EVENT_ID,
            REQUEST_ID,
        ])
        .expose_headers([
            header::LOCATION,
            header::LINK,
            header::RETRY_AFTER,
            HeaderName::from_static("ratelimit"),
            HeaderName::from_static("ratelimit-policy"),
            REQUEST_ID,
        ])
        .max_age(PREFLIGHT_AGE);
    Some(layer)
}

/// Whether this is a CORS preflight. Any other `OPTIONS` asks for the methods of a path.
pub(super) fn is_preflight(request: &Request) -> bool {
    let asks = header::ACCESS_CONTROL_REQUEST_METHOD;
    request.method() == Method::OPTIONS && request.headers().contains_key(asks)
}
