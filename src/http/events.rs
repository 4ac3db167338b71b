//! `GET /v1/events`: what happens in the installation, as it happens, for an operator.
//!
//! Server-Sent Events, which pages read by `fetch`, because an `EventSource` can't send a token. The
//! time limit of requests ends with the head of the answer.

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, Uri, header};
use axum::response::{IntoResponse, Response};

use super::ApiState;
use super::error::ApiError;
use crate::events::{Event, Hangup};
use crate::http::openapi::responses::{Inspected, TooManyListening};
use crate::http::request::caller::Caller;
use crate::http::request::path::{named, parameters};
use crate::identity::UserId;

/// The header with the id of the last event that a client has seen.
pub(super) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Follow what happens
///
/// Server-Sent Events of the whole installation, until you close the connection: each `data` is one
/// event. A user's events come in the order of the store's time. While nothing happens, a comment
/// comes every 15 s. Listen again with `Last-Event-ID` to continue after a break: an event `gap`
/// says that some are missing. If you read too slowly, the last event is `dropped`.
#[utoipa::path(
    get,
    operation_id = "follow_events",
    path = "/v1/events",
    tag = "operator",
    params(
        ("user" = inline(Option<String>), Query, example = "anna", description = "Only the events of this user; all by default.", min_length = 1, max_length = 256, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$"),
        ("last-event-id" = inline(Option<String>), Header, example = "1796000405000-5f0c9a7e21b34d68-17", description = "The `id` of the last event that you have seen; only later ones follow, as far as the instance remembers them."),
    ),
    responses(
        (status = 200, description = "The events, from now on.", body = Event, content_type = "text/event-stream"),
        TooManyListening,
        Inspected,
    ),
    security(("token" = []), ()),
)]
pub(super) async fn get(
    State(door): State<ApiState>,
    caller: Caller,
    hangup: Option<Extension<Hangup>>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    caller.may_see_all()?;
    let mut user = None;
    for (_, value) in parameters(uri.query().unwrap_or_default(), &["user"])? {
        user = Some(named("user", UserId::parse(&value))?);
    }
    // An id that isn't text is none of ours, so it isn't remembered.
    let last = headers.get(LAST_EVENT_ID);
    let last = last.map(|last| last.to_str().unwrap_or_default());
    let hangup = hangup.map(|Extension(hangup)| hangup);
    let listener = door.events.listen(user, last, hangup);
    let listener = listener.map_err(|full| ApiError::TooManyListeners(full.0))?;
    let content = [(header::CONTENT_TYPE, "text/event-stream")];
    Ok((content, Body::from_stream(listener)).into_response())
}
