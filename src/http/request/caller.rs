//! Identifies the caller and what they may do: by their token, and by the user that the gateway
//! names.
//!
//! Without a tokens file every caller may do everything, and the port must be kept private; only
//! pages of other sites are refused. A gateway that lets viewers through names them in
//! `x-streamgate-user`. That header only takes rights away, so it needs no verification: a client
//! that bypasses the gateway could just as well omit it.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};

use super::foreign_page;
use super::path::named;
use super::tokens::{Grant, Role, Tokens};
use crate::http::ApiState;
use crate::http::error::{ApiError, Scheme};
use crate::identity::UserId;
use crate::util::authorization;

/// The header in which a gateway names the viewer that it has let through.
pub(in crate::http) const VIEWER: &str = "x-streamgate-user";

/// An operator.
#[derive(Debug)]
pub(in crate::http) struct Operator {
    /// The label of the token, if it has one.
    pub(in crate::http) label: Option<Arc<str>>,
}

/// The caller.
#[derive(Debug)]
pub(in crate::http) struct Caller(Grant);

impl Caller {
    /// Whether they may act for that user.
    pub(in crate::http) fn may_act_for(&self, user: &UserId) -> Result<(), ApiError> {
        match &self.0.user {
            Some(own) if own != user => Err(ApiError::Forbidden(
                "You may act for only one user, and this is another one.",
            )),
            _ => Ok(()),
        }
    }

    /// Whether they may end a user's sessions against their will.
    pub(in crate::http) fn may_operate(&self) -> Result<(), ApiError> {
        match self.0.role {
            Role::Operator => Ok(()),
            Role::Client => Err(ApiError::Forbidden("This call needs the role operator.")),
        }
    }

    /// Whether their token proves that they are an operator. Without a tokens file anybody may make
    /// an operator's calls, but nobody has proved anything.
    pub(in crate::http) fn is_operator_by_token(&self, door: &ApiState) -> bool {
        door.tokens.is_some() && self.may_operate().is_ok()
    }

    /// Whether they may see all users' sessions.
    pub(in crate::http) fn may_see_all(&self) -> Result<(), ApiError> {
        self.may_operate()?;
        if self.acts_for_others() {
            return Ok(());
        }
        Err(ApiError::Forbidden(
            "You may act for only one user, and this call concerns all users.",
        ))
    }

    /// Whether they may see and set single users' limits. A token for one user must not raise that
    /// user's own limit.
    pub(in crate::http) fn may_set_limits(&self) -> Result<(), ApiError> {
        self.may_operate()?;
        if self.acts_for_others() {
            return Ok(());
        }
        Err(ApiError::Forbidden(
            "You may act for only one user, and limits are set by operators who act for all.",
        ))
    }

    /// Whether they may act for any user, as a back end does: only such callers know a user's plan,
    /// or that a stream has ended that can't be stopped from here.
    pub(in crate::http) const fn acts_for_others(&self) -> bool {
        self.0.user.is_none()
    }
}

impl FromRequestParts<ApiState> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, door: &ApiState) -> Result<Self, ApiError> {
        let granted = match tokens(parts, door)? {
            None => Grant::of(Role::Operator, None),
            Some(tokens) => {
                let token = credentials(&parts.headers, "bearer");
                let granted = token.and_then(|token| tokens.find(token).cloned());
                let granted =
                    granted.ok_or_else(|| unauthorized(&parts.headers, Scheme::Bearer))?;
                if granted.has_expired(door.ledger.now()) {
                    return Err(ApiError::TokenExpired(Scheme::Bearer));
                }
                granted
            }
        };
        match viewer(&parts.headers, Scheme::Bearer)? {
            None => Ok(Self(granted)),
            Some(viewer) => {
                Self(granted).may_act_for(&viewer)?;
                // Viewers are not operators, whatever their gateway may do.
                Ok(Self(Grant::of(Role::Client, Some(viewer))))
            }
        }
    }
}

/// The operator who calls, and may call about all users; none if the caller is anybody else.
pub(in crate::http) fn operator(headers: &HeaderMap, door: &ApiState) -> Option<Operator> {
    if headers.contains_key(VIEWER) {
        return None;
    }
    let Some(tokens) = &door.tokens else {
        return Some(Operator { label: None });
    };
    let tokens = tokens.current();
    let grant = tokens.find(credentials(headers, "bearer")?)?;
    let is_operator = grant.role == Role::Operator && !grant.has_expired(door.ledger.now());
    is_operator.then(|| Operator {
        label: grant.label.clone(),
    })
}

/// The tokens that callers need. If none are needed, refuses a page of another site.
fn tokens(parts: &Parts, door: &ApiState) -> Result<Option<Arc<Tokens>>, ApiError> {
    match &door.tokens {
        Some(tokens) => Ok(Some(tokens.current())),
        None => {
            foreign_page::check(parts, &door.http.cors_origins, &door.http.hosts)?;
            Ok(None)
        }
    }
}

/// The user that a client claims to be by HTTP Basic. With tokens, the password must be a token
/// that is valid for that user.
pub(in crate::http) fn basic_user(parts: &Parts, door: &ApiState) -> Result<UserId, ApiError> {
    let headers = &parts.headers;
    let tokens = tokens(parts, door)?;
    let refused = || unauthorized(headers, Scheme::Basic);
    let pair = basic_pair(headers).filter(|(name, _)| !name.is_empty());
    let (name, password) = pair.ok_or_else(refused)?;
    let user = named("user", UserId::parse(&name))?;
    if let Some(tokens) = tokens {
        let grant = tokens.find(&password).ok_or_else(refused)?;
        if grant.user.as_ref().is_some_and(|own| *own != user) {
            return Err(refused());
        }
        if grant.has_expired(door.ledger.now()) {
            return Err(ApiError::TokenExpired(Scheme::Basic));
        }
    }
    if let Some(viewer) = viewer(headers, Scheme::Basic)? {
        let user_alone = Grant::of(Role::Client, Some(viewer));
        Caller(user_alone).may_act_for(&user)?;
    }
    Ok(user)
}

/// The user name and password of HTTP Basic (RFC 7617), if present.
pub(in crate::http) fn basic_pair(headers: &HeaderMap) -> Option<(String, String)> {
    authorization::basic(credentials(headers, "basic")?)
}

/// The text after a scheme's name in the `Authorization` header. If there are several such headers,
/// none counts.
fn credentials<'h>(headers: &'h HeaderMap, scheme: &str) -> Option<&'h str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, None) = (values.next()?, values.next()) else {
        return None;
    };
    authorization::credentials(value.to_str().ok()?, scheme)
}

/// The error for missing or invalid credentials.
fn unauthorized(headers: &HeaderMap, scheme: Scheme) -> ApiError {
    let shown = headers.contains_key(header::AUTHORIZATION);
    ApiError::Unauthorized { scheme, shown }
}

/// The viewer that a gateway has let through. A gateway that doesn't know the viewer sends an empty
/// name, which means none.
fn viewer(headers: &HeaderMap, scheme: Scheme) -> Result<Option<UserId>, ApiError> {
    let mut values = headers.get_all(VIEWER).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let malformed = |flaw: &str| ApiError::BadRequest(format!("The header {VIEWER} {flaw}."));
    if values.next().is_some() {
        return Err(malformed("occurs twice"));
    }
    let name = std::str::from_utf8(value.as_bytes()).map_err(|_| malformed("is not UTF-8"))?;
    if name.is_empty() {
        return Err(ApiError::Unauthorized {
            scheme,
            shown: false,
        });
    }
    UserId::parse(name)
        .map(Some)
        .map_err(|flaw| malformed(&flaw.to_string()))
}
