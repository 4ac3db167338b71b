//! `/v1/users/{user}/sessions`: start, heartbeat, read, release, end all.
//!
//! One idempotent `PUT` is start and heartbeat: whoever can't tell whether the last one arrived sends it again.

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};

use super::HttpDoor;
use super::auth::Caller;
use super::body;
use super::error::ApiError;
use super::path::{self, OfSession, OfUser};
use super::shapes::{EndedBody, NamedBody, SessionBody, StartBody, StartedBody, UserBody};
use crate::ledger::{Claim, Decision, Patience};
use crate::problem;
use crate::releaser::Notice;
use crate::session::{
    Admission, Admitted, Door, Ending, Entry, Facts, IdError, Kind, Released, SessionId,
    SessionKey, UserId, WhenFull,
};
use crate::store::Listing;
use crate::telemetry::metrics::ReleaseCause;

/// `PUT /v1/users/{user}/sessions/{session}`: starts a playback, or says that it goes on.
pub(super) async fn put(
    State(door): State<HttpDoor>,
    Extension(caller): Extension<Caller>,
    OfSession { user, key }: OfSession,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    caller.may_act_for(&user)?;
    if key.kind != Kind::Playback {
        return Err(ApiError::BadRequest(
            "Only a playback can be started here.".to_owned(),
        ));
    }
    let told = body::json_or_nothing::<StartBody>(&headers, body)?;
    let claim = claim(user, key, &told, &caller)?;
    let decision = admit(&door, &claim).await?;
    started(&door, &claim, decision, None)
}

/// `POST /v1/users/{user}/sessions`: starts a playback whose id is made here.
pub(super) async fn post(
    State(door): State<HttpDoor>,
    Extension(caller): Extension<Caller>,
    OfUser(user): OfUser,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    caller.may_act_for(&user)?;
    let told = body::json_or_nothing::<StartBody>(&headers, body)?;
    let id = SessionId::random();
    let location = format!("/v1/users/{}/sessions/{id}", path::escaped(user.as_str()));
    let key = SessionKey {
        kind: Kind::Playback,
        id,
    };
    let claim = claim(user, key, &told, &caller)?;
    let decision = admit(&door, &claim).await?;
    started(&door, &claim, decision, Some(location))
}

/// `GET /v1/users/{user}/sessions`: what is live.
pub(super) async fn get_all(
    State(door): State<HttpDoor>,
    Extension(caller): Extension<Caller>,
    OfUser(user): OfUser,
) -> Result<Json<UserBody>, ApiError> {
    caller.may_act_for(&user)?;
    let listing = list(&door, &user).await?;
    let limit = door.ledger.limit_of(&user, None);
    let active = listing.sessions.len();
    Ok(Json(UserBody {
        user: user.as_str().to_owned(),
        limit,
        active,
        can_start: u32::try_from(active).is_ok_and(|active| active < limit),
        sessions: listing.sessions.iter().map(SessionBody::of).collect(),
    }))
}

/// `GET /v1/users/{user}/sessions/{session}`: one of them.
pub(super) async fn get_one(
    State(door): State<HttpDoor>,
    Extension(caller): Extension<Caller>,
    OfSession { user, key }: OfSession,
) -> Result<Json<SessionBody>, ApiError> {
    caller.may_act_for(&user)?;
    let listing = list(&door, &user).await?;
    let session = listing.sessions.iter().find(|session| session.key == key);
    let session = session.ok_or(ApiError::NoSuchSession)?;
    Ok(Json(SessionBody::of(session)))
}

/// `DELETE /v1/users/{user}/sessions/{session}`: releases it.
pub(super) async fn delete_one(
    State(door): State<HttpDoor>,
    Extension(caller): Extension<Caller>,
    OfSession { user, key }: OfSession,
) -> Result<StatusCode, ApiError> {
    caller.may_act_for(&user)?;
    release(&door, user, key, &caller).await
}

/// `DELETE /v1/users/{user}/sessions`: an operator ends all that can be ended.
pub(super) async fn delete_all(
    State(door): State<HttpDoor>,
    Extension(caller): Extension<Caller>,
    OfUser(user): OfUser,
) -> Result<Json<EndedBody>, ApiError> {
    caller.may_operate()?;
    let mut body = EndedBody {
        ended: Vec::new(),
        not_stoppable: Vec::new(),
    };
    for session in list(&door, &user).await?.sessions {
        let (ending, cause) = (Ending::Operator, ReleaseCause::Operator);
        let released = door
            .ledger
            .release(&user, &session.key, ending, cause)
            .await;
        let told = NamedBody::of(&session.key);
        match released.map_err(ApiError::Outage)? {
            Released::NotStoppable => body.not_stoppable.push(told),
            Released::Freed(_)
            | Released::NotLive
            | Released::AlreadyEnded(_)
            | Released::Kept => body.ended.push(told),
        }
    }
    Ok(Json(body))
}

/// Releases a session, or sees to it that it is released: 204, or 202 while the store doesn't answer.
pub(super) async fn release(
    door: &HttpDoor,
    user: UserId,
    key: SessionKey,
    caller: &Caller,
) -> Result<StatusCode, ApiError> {
    let ending = match key.kind {
        // It runs inside Envoy: a back end may vouch for its end, and is proved wrong by its next sign of life.
        Kind::Request if caller.may_vouch() => Ending::Vouched,
        Kind::Request => return Err(ApiError::NotStoppable),
        Kind::Playback | Kind::Video => Ending::Stream,
    };
    let cause = ReleaseCause::Hook;
    match door.ledger.release(&user, &key, ending, cause).await {
        Ok(_) => Ok(StatusCode::NO_CONTENT),
        Err(outage) if outage.error.is_transient() => {
            door.releaser
                .submit(user, Notice::Release(key, ending, cause));
            Ok(StatusCode::ACCEPTED)
        }
        Err(outage) => Err(ApiError::Outage(outage)),
    }
}

/// What a client asks for.
fn claim(
    user: UserId,
    key: SessionKey,
    told: &StartBody,
    caller: &Caller,
) -> Result<Claim, ApiError> {
    let wrong = |field: &'static str| {
        move |flaw: IdError| ApiError::BadRequest(format!("The {field} {flaw}."))
    };
    let plan = told.plan().map_err(wrong("plan"))?;
    if plan.is_some() {
        caller.may_name_plans()?;
    }
    let when_full = match told.takeover.as_deref() {
        None | Some("") => WhenFull::Refuse,
        Some("oldest") => WhenFull::DisplaceOldest,
        Some(id) => WhenFull::TakeOver(SessionKey {
            kind: Kind::Playback,
            id: SessionId::parse(id).map_err(wrong("takeover"))?,
        }),
    };
    Ok(Claim {
        user,
        plan,
        key,
        facts: Facts {
            device: told.device().map_err(wrong("device"))?,
            content: told.content().map_err(wrong("content"))?,
            door: Some(Door::Http),
            position_seconds: told.position,
        },
        when_full,
    })
}

/// Asks for a slot, in a task of its own: whoever hangs up doesn't cut an operation on the store off in the middle.
async fn admit(door: &HttpDoor, claim: &Claim) -> Result<Decision, ApiError> {
    let (ledger, claim) = (door.ledger.clone(), claim.clone());
    let asked = door
        .tasks
        .spawn(async move { ledger.admit(&claim, &Patience::endless()).await });
    match asked.await {
        Ok(decided) => decided.map_err(ApiError::Outage),
        Err(_) => Err(ApiError::Internal),
    }
}

/// The answer to a start or heartbeat.
fn started(
    door: &HttpDoor,
    claim: &Claim,
    decision: Decision,
    location: Option<String>,
) -> Result<Response, ApiError> {
    let limit = decision.limit;
    let admitted = match decision.admission {
        Admission::Admitted(admitted) => admitted,
        Admission::Refused(refusal) => return Err(ApiError::Refused(Box::new(refusal))),
    };
    let status = match admitted.entry {
        Entry::Started => StatusCode::CREATED,
        Entry::Renewed => StatusCode::OK,
    };
    let body = StartedBody {
        session: SessionBody::of(&admitted.session),
        renew_after_seconds: (door.ledger.lease_of(claim.key.kind) / 3).as_secs().max(1),
        active: admitted.active,
        limit,
    };
    let mut response = (status, headers(limit, &admitted), Json(body)).into_response();
    if let Some(location) = location
        && let Ok(location) = location.parse()
    {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// What the headers tell of the quota.
fn headers(limit: u32, admitted: &Admitted) -> [(HeaderName, String); 2] {
    let active = u32::try_from(admitted.active).unwrap_or(u32::MAX);
    [
        (
            HeaderName::from_static("ratelimit-policy"),
            problem::rate_limit_policy(limit),
        ),
        (
            HeaderName::from_static("ratelimit"),
            problem::rate_limit(limit.saturating_sub(active)),
        ),
    ]
}

/// The user's live sessions.
async fn list(door: &HttpDoor, user: &UserId) -> Result<Listing, ApiError> {
    door.ledger.list(user).await.map_err(ApiError::Outage)
}
