//! `/v1/users/{user}/sessions`: start, heartbeat, read, release, end all.
//!
//! One idempotent `PUT` is start and heartbeat: whoever can't tell whether the last one arrived sends it again. What changes anything is
//! done in a task of its own, so that a client that hangs up doesn't cut it off in the middle.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio_util::sync::CancellationToken;

use super::error::{ApiError, tell_quota};
use super::path::{OfSession, OfUser, escaped};
use super::release::release_one;
use super::shapes::{EndedBody, NamedBody, SessionBody, StartBody, StartedBody, UserBody};
use super::{HttpDoor, body};
use crate::ledger::{Claim, Decision, Leaves, Ledger, Outage, Patience};
use crate::releaser::{Notice, Releaser};
use crate::session::{
    Admission, Ending, Entry, Kind, Refusal, Released, Session, SessionId, SessionKey, UserId,
    WhenFull,
};
use crate::telemetry::metrics::ReleaseCause;

/// `PUT /v1/users/{user}/sessions/{session}`: starts a playback, or says that it goes on.
pub(super) async fn put(
    State(door): State<HttpDoor>,
    OfSession { user, key }: OfSession,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    if key.kind != Kind::Playback {
        let told = "Only a playback can be started here.";
        return Err(ApiError::BadRequest(told.to_owned()));
    }
    start(&door, claim(user, key, &headers, body)?).await
}

/// `POST /v1/users/{user}/sessions`: starts a playback whose id is made here.
pub(super) async fn post(
    State(door): State<HttpDoor>,
    OfUser(user): OfUser,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let key = SessionKey {
        kind: Kind::Playback,
        id: SessionId::from_number(rand::random()),
    };
    let location = format!("/v1/users/{}/sessions/{}", escaped(user.as_str()), key.id);
    let mut response = start(&door, claim(user, key, &headers, body)?).await?;
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// `GET /v1/users/{user}/sessions`: what is live.
pub(super) async fn get_all(
    State(door): State<HttpDoor>,
    OfUser(user): OfUser,
) -> Result<Json<UserBody>, ApiError> {
    let sessions = live(&door.ledger, &user).await?;
    let (limit, active) = (door.ledger.limit_of(&user, None), sessions.len());
    Ok(Json(UserBody {
        user: user.to_string(),
        limit,
        active,
        can_start: left(limit, active) > 0,
        sessions: sessions.iter().map(SessionBody::of).collect(),
    }))
}

/// `GET /v1/users/{user}/sessions/{session}`: one of them.
pub(super) async fn get_one(
    State(door): State<HttpDoor>,
    OfSession { user, key }: OfSession,
) -> Result<Json<SessionBody>, ApiError> {
    let sessions = live(&door.ledger, &user).await?;
    let session = sessions.iter().find(|session| session.key == key);
    session
        .map(|session| Json(SessionBody::of(session)))
        .ok_or(ApiError::NotLive)
}

/// `DELETE /v1/users/{user}/sessions/{session}`: releases it.
pub(super) async fn delete_one(
    State(door): State<HttpDoor>,
    OfSession { user, key }: OfSession,
) -> Result<StatusCode, ApiError> {
    let releasing = door.clone();
    detached(
        &door,
        async move { release_one(&releasing, user, key).await },
    )
    .await
}

/// `DELETE /v1/users/{user}/sessions`: ends all that can be ended, against their viewers' will. After a 503, send it again.
pub(super) async fn delete_all(
    State(door): State<HttpDoor>,
    OfUser(user): OfUser,
) -> Result<Json<EndedBody>, ApiError> {
    let ledger = Arc::clone(&door.ledger);
    detached(&door, async move { end_all(&ledger, &user).await })
        .await
        .map(Json)
}

/// What a client asks for.
fn claim(
    user: UserId,
    key: SessionKey,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Claim, ApiError> {
    let told: StartBody = body::object_or_nothing(headers, body)?;
    Ok(Claim {
        user,
        plan: told.plan()?,
        key,
        facts: told.facts()?,
        when_full: told.when_full()?,
    })
}

/// Starts a playback, or says that it goes on.
async fn start(door: &HttpDoor, claim: Claim) -> Result<Response, ApiError> {
    let renew_after = door.ledger.lease_of(claim.key.kind) / 3;
    let gone = CancellationToken::new();
    let patience = Patience {
        deadline: None,
        gone: gone.clone(),
    };
    let _gone_with_this_request = gone.drop_guard();
    let (ledger, releaser) = (Arc::clone(&door.ledger), door.releaser.clone());
    let decision = detached(door, async move {
        let answer = decide(&ledger, &releaser, claim, &patience).await;
        answer.map_err(ApiError::Outage)
    })
    .await?;
    let admitted = match decision.admission {
        Admission::Admitted(admitted) => admitted,
        Admission::Refused(refusal) => return Err(ApiError::refused(&refusal, &door.show)),
    };
    let status = match admitted.entry {
        Entry::Started => StatusCode::CREATED,
        Entry::Renewed => StatusCode::OK,
    };
    let body = StartedBody {
        session: SessionBody::of(&admitted.session),
        renew_after_seconds: renew_after.as_secs().max(1),
        active: admitted.active,
        limit: decision.limit,
    };
    let mut response = (status, Json(body)).into_response();
    let remaining = left(decision.limit, admitted.active);
    tell_quota(response.headers_mut(), decision.limit, remaining);
    Ok(response)
}

/// Asks for a slot. A takeover names a session by its id alone; if that is no playback's, it is looked for among those that hold the slots.
async fn decide(
    ledger: &Ledger,
    releaser: &Releaser,
    mut claim: Claim,
    patience: &Patience,
) -> Result<Decision, Outage> {
    let mut decision = ask(ledger, releaser, &claim, patience).await?;
    if let Some(named) = named_among_holders(&claim.when_full, &decision.admission) {
        if named.kind.is_stoppable() {
            claim.when_full = WhenFull::TakeOver(named);
            return ask(ledger, releaser, &claim, patience).await;
        }
        decision.admission = Admission::Refused(Refusal::NotStoppable);
    }
    Ok(decision)
}

/// The session of another kind that a takeover may have meant: one that holds a slot and has that id.
fn named_among_holders(when_full: &WhenFull, admission: &Admission) -> Option<SessionKey> {
    match (when_full, admission) {
        (WhenFull::TakeOver(named), Admission::Refused(Refusal::Full { holders, .. })) => {
            let mut keys = holders.iter().map(|session| &session.key);
            keys.find(|key| key.id == named.id && key.kind != named.kind)
                .cloned()
        }
        _ => None,
    }
}

/// Asks for a slot, and has taken back what that may have left behind if it was not allowed. What was let in stays, whoever has hung up.
async fn ask(
    ledger: &Ledger,
    releaser: &Releaser,
    claim: &Claim,
    patience: &Patience,
) -> Result<Decision, Outage> {
    let answer = ledger.heartbeat(claim, patience).await;
    let doubtful = match &answer {
        Ok(decision) => match decision.leaves {
            Leaves::Doubtful(ticket) => Some(ticket),
            Leaves::Started(_) | Leaves::Nothing => None,
        },
        Err(outage) => outage.doubtful,
    };
    if let Some(ticket) = doubtful {
        let notice = Notice::Undo(claim.key.clone(), ticket);
        releaser.submit(claim.user.clone(), notice);
    }
    answer
}

/// Ends a user's sessions, but those that run inside Envoy.
async fn end_all(ledger: &Ledger, user: &UserId) -> Result<EndedBody, ApiError> {
    let (mut ended, mut not_stoppable) = (Vec::new(), Vec::new());
    for session in live(ledger, user).await? {
        let (ending, cause) = (Ending::Operator, ReleaseCause::Operator);
        let released = ledger.release(user, &session.key, ending, cause).await;
        let told = NamedBody::of(&session.key);
        match released.map_err(ApiError::Outage)? {
            Released::NotStoppable => not_stoppable.push(told),
            // Whoever has ended by itself meanwhile has ended.
            Released::Freed(_) | Released::NotLive | Released::AlreadyEnded(_) | Released::Kept => {
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

/// How many more streams may start.
fn left(limit: u32, active: usize) -> u32 {
    limit.saturating_sub(u32::try_from(active).unwrap_or(u32::MAX))
}

/// Does something to its end, whether or not anybody waits for it.
async fn detached<T: Send + 'static>(
    door: &HttpDoor,
    doing: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    let done = door.tasks.spawn(doing).await;
    done.unwrap_or(Err(ApiError::Internal))
}
