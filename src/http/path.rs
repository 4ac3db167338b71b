//! What an address names: a user, and a session of theirs.

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use serde::de::DeserializeOwned;

use super::error::ApiError;
use crate::session::{IdError, Kind, SessionId, SessionKey, UserId};

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

/// What is escaped in an address: all but what RFC 3986 calls unreserved.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

impl<S: Send + Sync> FromRequestParts<S> for OfUser {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let user: String = segments(parts, state).await?;
        named("user", UserId::parse(&user)).map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for OfSession {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let (user, session): (String, String) = segments(parts, state).await?;
        Ok(Self {
            user: named("user", UserId::parse(&user))?,
            key: SessionKey {
                kind: kind_asked(parts.uri.query().unwrap_or_default())?,
                id: named("session", SessionId::parse(&session))?,
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
        .map_err(|rejection| ApiError::BadRequest(format!("{}.", rejection.body_text())))?;
    Ok(segments)
}

/// A name, or the answer to a client that has written none there.
pub(super) fn named<T>(what: &str, name: Result<T, IdError>) -> Result<T, ApiError> {
    name.map_err(|flaw| ApiError::BadRequest(format!("The {what} {flaw}.")))
}

/// The kind behind the question mark. Whatever else stands there may be a kind misspelt, and would have another session meant.
fn kind_asked(query: &str) -> Result<Kind, ApiError> {
    match query.split_once('=') {
        None if query.is_empty() => Ok(Kind::Playback),
        Some(("kind", name)) => Kind::from_name(name).ok_or_else(|| {
            ApiError::BadRequest(format!(
                "The kind is {name:?}; allowed are \"playback\", \"request\" and \"video\"."
            ))
        }),
        _ => Err(ApiError::BadRequest(format!(
            "The query {query:?} is not known here; only \"kind\" is."
        ))),
    }
}

/// A text as a part of an address.
pub(crate) fn escaped(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, ESCAPED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_a_playback_unless_another_is_named() {
        for (query, expected) in [
            ("", Some(Kind::Playback)),
            ("kind=playback", Some(Kind::Playback)),
            ("kind=request", Some(Kind::Request)),
            ("kind=video", Some(Kind::Video)),
            ("kind=", None),
            ("kind", None),
            ("kind=Video", None),
            ("knd=video", None),
            ("kind=video&kind=request", None),
        ] {
            assert_eq!(kind_asked(query).ok(), expected, "{query}");
        }
    }

    #[test]
    fn what_could_be_mistaken_in_an_address_is_escaped() {
        for (text, expected) in [
            ("anna-1._~", "anna-1._~"),
            ("a/b?c#d%e f", "a%2Fb%3Fc%23d%25e%20f"),
            ("é", "%C3%A9"),
        ] {
            assert_eq!(escaped(text).to_string(), expected);
        }
    }
}
