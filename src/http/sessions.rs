//! `/v1/users/{user}/sessions`: start, heartbeat, read, release, end all.
//!
//! One idempotent `PUT` is both start and heartbeat: a client that can't tell whether the last one
//! arrived sends it again.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::ApiState;
use super::error::ApiError;
use super::json::{
    EndBody, EndedBody, KindName, NamedBody, SessionBody, StartBody, Startable, StartedBody,
    UserBody,
};
use super::layers::RequestId;
use super::release_hook::{may_release, release_one};
use super::start_service::{self, Granted, detached, left};
use crate::http::openapi::responses::{
    BadBody, Detached, Done, Ended, Failures, Full, NoName, NoSession, NotStoppable,
};
use crate::http::request::body;
use crate::http::request::caller::Caller;
use crate::http::request::path::{OfSession, OfUser, escaped};
use crate::identity::{Claim, EndMessage, Kind, SessionId, SessionKey, UserId};
use crate::ledger::Ledger;
use crate::session::{AdmissionKind, Ending, Released, Session};
use crate::store::Listing;

/// Start a playback, or renew it
///
/// Start and heartbeat are one call, which you can safely repeat: it starts the playback if it
/// isn't live, and renews its lease if it is. Send it again every `renew_after_seconds`. The body
/// and each of its fields are optional.
#[utoipa::path(
    put,
    operation_id = "start_session",
    path = "/v1/users/{user}/sessions/{session}",
    tag = "sessions",
    params(
        ("user" = String, Path, example = "anna", description = "The user: 1 to 256 bytes of UTF-8 without control characters.", min_length = 1, max_length = 256, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$"),
        ("session" = String, Path, example = "p1", description = "The playback's id, with the same limits; unique among the user's playbacks, and never used again after its end.", min_length = 1, max_length = 256, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$"),
        ("kind" = inline(Option<Startable>), Query, example = "playback", description = "Optional; nothing else can be started here."),
    ),
    request_body(content = StartBody, content_type = "application/json", example = json!({"device": "tv", "content": "film-7", "position": 0})),
    responses(
        (status = 201, description = "It has started.", body = StartedBody, headers(("ratelimit-policy"), ("ratelimit"))),
        (status = 200, description = "It was live, and its lease has grown.", body = StartedBody, headers(("ratelimit-policy"), ("ratelimit"))),
        NotStoppable, Ended, Full, NoName, BadBody, Detached, Failures,
    ),
    security(("token" = []), ()),
)]
pub(super) async fn put(
    State(door): State<ApiState>,
    request: RequestId,
    OfSession { caller, user, key }: OfSession,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    if key.kind != Kind::Playback {
        let told = "Only a playback can be started here.";
        return Err(ApiError::BadRequest(told.to_owned()));
    }
    let claim = claim(&door, &caller, user, key, &headers, body)?;
    let granted = start_service::start(&door, &request, claim).await?;
    Ok(started(&door, &granted))
}

/// Start a playback with a new id
///
/// Like `PUT`, for a client that has no id of its own. Send the heartbeats to the `Location` of the
/// answer. Don't repeat it blindly: each call starts a playback.
#[utoipa::path(
    post,
    operation_id = "create_session",
    path = "/v1/users/{user}/sessions",
    tag = "sessions",
    params(("user" = String, Path, example = "anna", description = "The user.", min_length = 1, max_length = 256, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")),
    request_body(content = StartBody, content_type = "application/json", example = json!({"device": "tv", "content": "film-7", "position": 0})),
    responses(
        (status = 201, description = "It has started.", body = StartedBody, headers(("location"), ("ratelimit-policy"), ("ratelimit"))),
        NotStoppable, Full, NoName, BadBody, Detached, Failures,
    ),
    security(("token" = []), ()),
)]
pub(super) async fn post(
    State(door): State<ApiState>,
    request: RequestId,
    OfUser { caller, user }: OfUser,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let key = SessionKey {
        kind: Kind::Playback,
        id: SessionId::from_number(rand::random()),
    };
    let location = format!("/v1/users/{}/sessions/{}", escaped(user.as_str()), key.id);
    let claim = claim(&door, &caller, user, key, &headers, body)?;
    let granted = start_service::start(&door, &request, claim).await?;
    let mut response = started(&door, &granted);
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// See what a user watches
///
/// `limit` is the one that an operator has set for the user; without one, that of a user without a
/// plan, because plans come with each request.
#[utoipa::path(
    get,
    operation_id = "get_user_sessions",
    path = "/v1/users/{user}/sessions",
    tag = "sessions",
    params(("user" = String, Path, example = "anna", description = "The user.", min_length = 1, max_length = 256, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")),
    responses((status = 200, description = "The live sessions, in the order they took their slots.", body = UserBody), NoName, Failures),
    security(("token" = []), ()),
)]
pub(super) async fn get_all(
    State(door): State<ApiState>,
    OfUser { user, .. }: OfUser,
) -> Result<Json<UserBody>, ApiError> {
    let Listing {
        sessions,
        limit_override,
        ..
    } = door.ledger.list(&user).await.map_err(ApiError::Outage)?;
    let configured = door.ledger.limit_of(&user, None);
    let limit = limit_override.map_or(configured, |set| set.limit);
    let active = sessions.len();
    Ok(Json(UserBody {
        user: user.to_string(),
        limit,
        active,
        can_start: left(limit, active) > 0,
        sessions: sessions.iter().map(SessionBody::of).collect(),
    }))
}

/// See one session
#[utoipa::path(
    get,
    operation_id = "get_session",
    path = "/v1/users/{user}/sessions/{session}",
    tag = "sessions",
    params(
        ("user" = String, Path, example = "anna", description = "The user.", min_length = 1, max_length = 256, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$"),
        ("session" = String, Path, example = "p1", description = "Its id.", min_length = 1, max_length = 256, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$"),
        ("kind" = inline(Option<KindName>), Query, example = "playback", description = "Its kind; `playback` by default."),
    ),
    responses((status = 200, description = "It is live.", body = SessionBody), NoSession, Failures),
    security(("token" = []), ()),
)]
pub(super) async fn get_one(
    State(door): State<ApiState>,
    OfSession { user, key, .. }: OfSession,
) -> Result<Json<SessionBody>, ApiError> {
    let sessions = live(&door.ledger, &user).await?;
    let session = sessions.iter().find(|session| session.key == key);
    session
        .map(|session| Json(SessionBody::of(session)))
        .ok_or(ApiError::NotLive)
}

/// Release a session
///
/// Its slot is free immediately. You can safely repeat it, and releasing an unknown session is no
/// error. A `request` runs inside the gateway: a caller that acts for others (a back end) may vouch
/// for its end, and its next sign of life disproves that. With a `message`, an operator ends the
/// session against its viewer's will: its next request is told so, with the message.
#[utoipa::path(
    delete,
    operation_id = "release_session",
    path = "/v1/users/{user}/sessions/{session}",
    tag = "sessions",
    params(
        ("user" = String, Path, example = "anna", description = "The user.", min_length = 1, max_length = 256, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$"),
        ("session" = String, Path, example = "p1", description = "Its id.", min_length = 1, max_length = 256, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$"),
        ("kind" = inline(Option<KindName>), Query, example = "playback", description = "Its kind; `playback` by default."),
    ),
    request_body(content = EndBody, content_type = "application/json", example = json!({"message": "Your subscription has ended."})),
    responses(Done, NotStoppable, NoName, BadBody, Detached, Failures),
    security(("token" = []), ()),
)]
pub(super) async fn delete_one(
    State(door): State<ApiState>,
    OfSession { caller, user, key }: OfSession,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<StatusCode, ApiError> {
    let told: EndBody = body::object_or_nothing(&headers, body)?;
    let releasing = Arc::clone(&door);
    if let Some(message) = told.message()? {
        caller.may_operate()?;
        return detached(&door, async move {
            end_one(&releasing.ledger, &user, &key, &message).await
        })
        .await;
    }
    may_release(&caller, key.kind)?;
    detached(
        &door,
        async move { release_one(&releasing, user, key).await },
    )
    .await
}

/// End all of a user's sessions
///
/// An operator ends them against their viewers' will: each is told so at its next request, with the
/// `message` if there is one. After a 503, send it again.
#[utoipa::path(
    delete,
    operation_id = "end_user_sessions",
    path = "/v1/users/{user}/sessions",
    tag = "operator",
    params(("user" = String, Path, example = "anna", description = "The user.", min_length = 1, max_length = 256, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")),
    request_body(content = EndBody, content_type = "application/json", example = json!({"message": "Your subscription has ended."})),
    responses((status = 200, description = "All sessions that can be ended have ended.", body = EndedBody), NoName, BadBody, Detached, Failures),
    security(("token" = []), ()),
)]
pub(super) async fn delete_all(
    State(door): State<ApiState>,
    OfUser { caller, user }: OfUser,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<EndedBody>, ApiError> {
    caller.may_operate()?;
    let told: EndBody = body::object_or_nothing(&headers, body)?;
    let message = told.message()?;
    let ledger = Arc::clone(&door.ledger);
    let ended = async move { end_all(&ledger, &user, message.as_ref()).await };
    detached(&door, ended).await.map(Json)
}

/// The claim of a request.
fn claim(
    door: &ApiState,
    caller: &Caller,
    user: UserId,
    key: SessionKey,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Claim, ApiError> {
    let told: StartBody = body::object_or_nothing(headers, body)?;
    let plan = told.plan()?;
    if plan.is_some() && !caller.acts_for_others() {
        return Err(ApiError::Forbidden(
            "Only a back end that acts for all users may name a plan.",
        ));
    }
    let message = told.message()?;
    if message.is_some() && !caller.acts_for_others() {
        return Err(ApiError::Forbidden(
            "Only a back end that acts for all users may send a message to a viewer.",
        ));
    }
    Ok(Claim {
        user,
        plan,
        key,
        facts: told.facts(&|fact, loss| door.metrics.fact_lost(fact, loss)),
        takeover: told.takeover()?,
        message,
        derived: false,
        free: caller.is_operator_by_token(door),
    })
}

/// The response to a playback that may continue.
fn started(door: &ApiState, granted: &Granted) -> Response {
    let status = match granted.entry {
        AdmissionKind::Started => StatusCode::CREATED,
        AdmissionKind::Renewed => StatusCode::OK,
    };
    let renew_after = door.ledger.lease_of(granted.session.key.kind) / 3;
    let body = StartedBody {
        session: SessionBody::of(&granted.session),
        renew_after_seconds: renew_after.as_secs().max(1),
        active: granted.active,
        limit: granted.limit,
    };
    let mut response = (status, Json(body)).into_response();
    granted.tell_quota(&mut response);
    response
}

/// Ends one session against its viewer's will, and tells them why.
async fn end_one(
    ledger: &Ledger,
    user: &UserId,
    key: &SessionKey,
    message: &EndMessage,
) -> Result<StatusCode, ApiError> {
    let ending = (Ending::Operator, Some(message));
    let released = ledger.release_telling(user, key, ending, Duration::ZERO);
    match released.await.map_err(ApiError::Outage)? {
        Released::NotStoppable => Err(ApiError::NotStoppable),
        Released::Freed | Released::NotLive | Released::AlreadyEnded(_) | Released::Kept => {
            Ok(StatusCode::NO_CONTENT)
        }
    }
}

/// Ends a user's sessions, except those that run inside Envoy.
async fn end_all(
    ledger: &Ledger,
    user: &UserId,
    message: Option<&EndMessage>,
) -> Result<EndedBody, ApiError> {
    let (mut ended, mut not_stoppable) = (Vec::new(), Vec::new());
    for session in live(ledger, user).await? {
        let released = ledger
            .release_telling(
                user,
                &session.key,
                (Ending::Operator, message),
                Duration::ZERO,
            )
            .await;
        let told = NamedBody::of(&session.key);
        match released.map_err(ApiError::Outage)? {
            Released::NotStoppable => not_stoppable.push(told),
            // A session that ended by itself meanwhile has ended too.
            Released::Freed | Released::NotLive | Released::AlreadyEnded(_) | Released::Kept => {
                ended.push(told);
            }
        }
    }
    Ok(EndedBody {
        ended,
        not_stoppable,
    })
}

/// The user's live sessions.
async fn live(ledger: &Ledger, user: &UserId) -> Result<Vec<Session>, ApiError> {
    let listing = ledger.list(user).await.map_err(ApiError::Outage)?;
    Ok(listing.sessions)
}
