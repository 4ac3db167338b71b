//! What an address names: a user, and a session of theirs.

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::error::ApiError;
use crate::session::{Kind, SessionId, SessionKey, UserId};

/// `{user}`
#[derive(Debug)]
pub(super) struct OfUser(pub(super) UserId);

/// `{user}` and `{session}`, and `?kind=` where it is no playback.
#[derive(Debug)]
pub(super) struct OfSession {
    /// Whose it is.
    pub(super) user: UserId,
    /// Which it is.
    pub(super) key: SessionKey,
}

/// What may stand behind the question mark.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// The session's kind.
    kind: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for OfUser {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let user: String = segments(parts, state).await?;
        Ok(Self(self::user(&user)?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for OfSession {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let (user, session): (String, String) = segments(parts, state).await?;
        let asked = Query::<Asked>::from_request_parts(parts, state).await;
        let Query(Asked { kind }) =
            asked.map_err(|rejection| ApiError::BadRequest(format!("{rejection}.")))?;
        Ok(Self {
            user: self::user(&user)?,
            key: SessionKey {
                kind: kind.as_deref().map_or(Ok(Kind::Playback), self::kind)?,
                id: session_id(&session)?,
            },
        })
    }
}

/// The parts of the address, with what is escaped in them put right.
async fn segments<T, S>(parts: &mut Parts, state: &S) -> Result<T, ApiError>
where
    T: DeserializeOwned + Send,
    S: Send + Sync,
{
    let Path(segments) = Path::<T>::from_request_parts(parts, state)
        .await
        .map_err(|rejection| ApiError::BadRequest(format!("{rejection}.")))?;
    Ok(segments)
}

/// A user as a client names it.
fn user(text: &str) -> Result<UserId, ApiError> {
    UserId::parse(text).map_err(|flaw| ApiError::BadRequest(format!("The user {flaw}.")))
}

/// A session's id as a client names it.
pub(super) fn session_id(text: &str) -> Result<SessionId, ApiError> {
    SessionId::parse(text).map_err(|flaw| ApiError::BadRequest(format!("The session {flaw}.")))
}

/// A kind as a client names it.
fn kind(text: &str) -> Result<Kind, ApiError> {
    Kind::from_name(text).ok_or_else(|| {
        ApiError::BadRequest(format!(
            "The kind is {text:?}; allowed are \"playback\", \"request\" and \"video\"."
        ))
    })
}
