//! The names in a URL: a user, and a session of theirs.

use std::borrow::Cow;

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use serde::de::DeserializeOwned;

use super::caller::Caller;
use crate::http::ApiState;
use crate::http::error::ApiError;
use crate::identity::{IdError, Kind, PlanName, SessionId, SessionKey, UserId};
use crate::util::percent;

/// `{user}`, and a caller that may act for them.
#[derive(Debug)]
pub(in crate::http) struct OfUser {
    /// The caller.
    pub(in crate::http) caller: Caller,
    /// The user.
    pub(in crate::http) user: UserId,
}

/// The same, with `?plan=` if the call considers the user's plan.
#[derive(Debug)]
pub(in crate::http) struct OfUserOnPlan {
    /// The caller.
    pub(in crate::http) caller: Caller,
    /// The user.
    pub(in crate::http) user: UserId,
    /// The user's plan.
    pub(in crate::http) plan: Option<PlanName>,
}

/// `{user}` and `{session}`, and `?kind=` if it is not a playback.
#[derive(Debug)]
pub(in crate::http) struct OfSession {
    /// The caller.
    pub(in crate::http) caller: Caller,
    /// The session's user.
    pub(in crate::http) user: UserId,
    /// The session's key.
    pub(in crate::http) key: SessionKey,
}

/// The characters that we escape in a URL: all but those that RFC 3986 calls unreserved.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

impl FromRequestParts<ApiState> for OfUser {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, door: &ApiState) -> Result<Self, ApiError> {
        let (caller, user) = caller_and_user(parts, door).await?;
        parameters(parts.uri.query().unwrap_or_default(), &[])?;
        Ok(Self { caller, user })
    }
}

impl FromRequestParts<ApiState> for OfUserOnPlan {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, door: &ApiState) -> Result<Self, ApiError> {
        let (caller, user) = caller_and_user(parts, door).await?;
        let asked = parameters(parts.uri.query().unwrap_or_default(), &["plan"])?;
        let plan = asked.first().filter(|(_, name)| !name.is_empty());
        let plan = plan.map(|(_, name)| PlanName::parse(name)).transpose();
        let plan = named("plan", plan)?;
        Ok(Self { caller, user, plan })
    }
}

/// The caller, and the user in the path, for whom they may act.
async fn caller_and_user(parts: &mut Parts, door: &ApiState) -> Result<(Caller, UserId), ApiError> {
    let caller = Caller::from_request_parts(parts, door).await?;
    let user: String = segments(parts, door).await?;
    let user = addressed("user", &user, UserId::parse)?;
    caller.may_act_for(&user)?;
    Ok((caller, user))
}

impl FromRequestParts<ApiState> for OfSession {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, door: &ApiState) -> Result<Self, ApiError> {
        let caller = Caller::from_request_parts(parts, door).await?;
        let (user, session): (String, String) = segments(parts, door).await?;
        let user = addressed("user", &user, UserId::parse)?;
        caller.may_act_for(&user)?;
        let key = SessionKey {
            kind: kind_asked(parts.uri.query().unwrap_or_default())?,
            id: addressed("session", &session, SessionId::parse)?,
        };
        Ok(Self { caller, user, key })
    }
}

/// The decoded segments of the path.
async fn segments<T: DeserializeOwned + Send>(
    parts: &mut Parts,
    door: &ApiState,
) -> Result<T, ApiError> {
    let Path(segments) = Path::<T>::from_request_parts(parts, door)
        .await
        .map_err(|rejection| ApiError::BadRequest(format!("{}.", rejection.body_text())))?;
    Ok(segments)
}

/// The name, or the error for an invalid one.
pub(in crate::http) fn named<T>(what: &str, name: Result<T, IdError>) -> Result<T, ApiError> {
    name.map_err(|flaw| ApiError::BadRequest(format!("The {what} {flaw}.")))
}

/// A name in a URL. Browsers and other URL parsers remove the segments `.` and `..`, escaped or
/// not, so a call with such a name would reach different resources from different clients.
fn addressed<T>(
    what: &str,
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, IdError>,
) -> Result<T, ApiError> {
    if matches!(text, "." | "..") {
        return Err(ApiError::BadRequest(format!(
            "The {what} is {text:?}, which URL parsers remove. Send POST /v1/release to end its session."
        )));
    }
    named(what, parse(text))
}

/// The kind in the query. Any other parameter may be a misspelt kind, which would mean another
/// session.
fn kind_asked(query: &str) -> Result<Kind, ApiError> {
    let asked = parameters(query, &["kind"])?;
    let Some((_, name)) = asked.first() else {
        return Ok(Kind::Playback);
    };
    Kind::from_name(name).ok_or_else(|| {
        ApiError::BadRequest(format!(
            "The kind is {name:?}; allowed are \"playback\", \"request\" and \"video\"."
        ))
    })
}

/// The decoded query parameters; each at most once, and no others.
pub(in crate::http) fn parameters(
    query: &str,
    known: &[&'static str],
) -> Result<Vec<(&'static str, String)>, ApiError> {
    let mut found: Vec<(&'static str, String)> = Vec::new();
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let name = decoded(name)?;
        let Some(name) = known.iter().copied().find(|known| *known == name) else {
            let known = match known {
                [] => "none".to_owned(),
                known => known.join(" or "),
            };
            return Err(ApiError::BadRequest(format!(
                "The parameter {name:?} is unknown; allowed: {known}."
            )));
        };
        if found.iter().any(|(other, _)| *other == name) {
            return Err(ApiError::BadRequest(format!(
                "The parameter {name:?} occurs twice."
            )));
        }
        found.push((name, decoded(value)?));
    }
    Ok(found)
}

/// The one required parameter.
pub(in crate::http) fn only_parameter(name: &'static str, query: &str) -> Result<String, ApiError> {
    let mut found = parameters(query, &[name])?;
    found
        .pop()
        .map(|(_, value)| value)
        .ok_or_else(|| ApiError::BadRequest(format!("The parameter {name:?} is missing.")))
}

/// A name or a value of the query, decoded.
fn decoded(text: &str) -> Result<String, ApiError> {
    let decoded = percent::decode(text).map(Cow::into_owned);
    decoded.map_err(|_| ApiError::BadRequest("The query string is not valid UTF-8.".to_owned()))
}

/// A text, escaped for use in a URL.
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
            ("kind=%76ideo", Some(Kind::Video)),
            ("kind=%ff", None),
            ("&", Some(Kind::Playback)),
        ] {
            assert_eq!(kind_asked(query).ok(), expected, "{query}");
        }
    }

    #[test]
    fn a_parameter_is_decoded_and_occurs_once() {
        let known = &["limit", "cursor"];
        let ok = |query| parameters(query, known).ok();
        for (query, expected) in [
            ("", Some(vec![])),
            ("limit=5", Some(vec![("limit", "5")])),
            (
                "cursor=a%2Fb+c&limit=",
                Some(vec![("cursor", "a/b c"), ("limit", "")]),
            ),
            ("limit", Some(vec![("limit", "")])),
            ("limit=1&limit=1", None),
            ("Limit=1", None),
            ("limit=1&x", None),
            ("limit=%ff", None),
        ] {
            let expected: Option<Vec<_>> = expected.map(|found| {
                let found = found.into_iter();
                found
                    .map(|(name, value)| (name, value.to_owned()))
                    .collect()
            });
            assert_eq!(ok(query), expected, "{query}");
        }
        assert_eq!(only_parameter("id", "id=film%207").unwrap(), "film 7");
        for query in ["", "i=1", "id=1&id=2"] {
            assert!(only_parameter("id", query).is_err(), "{query}");
        }
    }

    #[test]
    fn ambiguous_characters_in_a_url_are_escaped() {
        for (text, expected) in [
            ("anna-1._~", "anna-1._~"),
            ("a/b?c#d%e f", "a%2Fb%3Fc%23d%25e%20f"),
            ("é", "%C3%A9"),
        ] {
            assert_eq!(escaped(text).to_string(), expected);
        }
    }
}
