//! Who calls, and what they may do.
//!
//! Tokens stand in a file (`http.tokens_file`), one on a line: the token, its role, and the one user it is good for, if it is. Only their
//! hashes are kept in memory, and they are compared in constant time. Without such a file everybody may do everything.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::Response;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::error::ApiError;
use crate::session::{IdError, UserId};

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Caller {
    /// Somebody who needs no token.
    Anybody,
    /// The bearer of a token.
    Bearer(Grant),
}

/// What a token is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// What its bearer is.
    role: Role,
    /// Whom alone its bearer may act for.
    user: Option<UserId>,
}

/// What the bearer of a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// A back end or player: starts, renews, reads, releases.
    Client,
    /// Somebody who may also end streams against their viewers' will, and see everybody's.
    Operator,
}

/// The tokens that are good.
#[derive(Clone, Default)]
pub struct Tokens(Arc<RwLock<Option<Vec<Token>>>>);

/// A token that is good.
#[derive(Clone)]
struct Token {
    /// Its hash.
    hash: [u8; 32],
    /// What it is good for.
    grant: Grant,
}

/// Why a file holds no tokens. The line is named; what stands in it is not told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokensError {
    /// A line lacks the role.
    #[error("line {0} has no role; each line is: token role [user]")]
    NoRole(usize),
    /// A line names another role.
    #[error("line {0}: the role is neither client nor operator; each line is: token role [user]")]
    UnknownRole(usize),
    /// A line names a user that is no name.
    #[error("line {0}: the user {1}")]
    User(usize, IdError),
    /// A line goes on after the user.
    #[error("line {0} goes on after the user; each line is: token role [user]")]
    TooMuch(usize),
    /// A token is too short to be a secret.
    #[error("line {0}: the token has fewer than {MIN_TOKEN} characters and could be guessed")]
    TooShort(usize),
    /// Two lines have the same token.
    #[error("line {0} has the token of an earlier line")]
    Twice(usize),
    /// No line has a token, so that nobody could call.
    #[error("there is no token in it")]
    Empty,
}

/// The fewest characters of a token.
const MIN_TOKEN: usize = 16;

// === impl Caller ===

impl Caller {
    /// Whether the caller may start, read and release this user's sessions.
    pub(super) fn may_act_for(&self, user: &UserId) -> Result<(), ApiError> {
        match self {
            Self::Bearer(Grant {
                user: Some(own), ..
            }) if own != user => Err(ApiError::Forbidden(
                "This token is good for another user only.",
            )),
            Self::Anybody | Self::Bearer(_) => Ok(()),
        }
    }

    /// Whether the caller may act for everybody.
    pub(super) fn may_see_everybody(&self) -> Result<(), ApiError> {
        self.may_operate()?;
        match self {
            Self::Bearer(Grant { user: Some(_), .. }) => Err(ApiError::Forbidden(
                "This token is good for one user only.",
            )),
            Self::Anybody | Self::Bearer(_) => Ok(()),
        }
    }

    /// Whether the caller may end streams against their viewers' will.
    pub(super) fn may_operate(&self) -> Result<(), ApiError> {
        match self {
            Self::Bearer(Grant {
                role: Role::Client, ..
            }) => Err(ApiError::Forbidden("This takes an operator's token.")),
            Self::Anybody | Self::Bearer(_) => Ok(()),
        }
    }

    /// Whether the caller may say which plan a user is on.
    pub(super) fn may_name_plans(&self) -> Result<(), ApiError> {
        if self.may_vouch() {
            Ok(())
        } else {
            Err(ApiError::Forbidden(
                "A plan is named by back ends alone; this token is bound to a user.",
            ))
        }
    }

    /// Whether the caller may vouch for the end of a stream that runs inside Envoy.
    pub(super) const fn may_vouch(&self) -> bool {
        match self {
            Self::Anybody => true,
            Self::Bearer(grant) => grant.user.is_none(),
        }
    }
}

// === impl Tokens ===

impl Tokens {
    /// Reads the lines of a file. Empty ones and those that begin with `#` are left out.
    ///
    /// # Errors
    /// A line is no token with a role.
    pub fn parse(text: &str) -> Result<Self, TokensError> {
        let mut tokens: Vec<Token> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let token = Token::parse(line, index + 1)?;
            if tokens.iter().any(|known| known.hash == token.hash) {
                return Err(TokensError::Twice(index + 1));
            }
            tokens.push(token);
        }
        if tokens.is_empty() {
            return Err(TokensError::Empty);
        }
        Ok(Self(Arc::new(RwLock::new(Some(tokens)))))
    }

    /// Takes over those of another.
    pub fn replace(&self, other: &Self) {
        let tokens = other.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = tokens;
    }

    /// What a token is good for; `None` if it is not. Takes as long whichever it is.
    fn grant(&self, token: &str) -> Option<Caller> {
        let tokens = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let Some(tokens) = tokens.as_ref() else {
            return Some(Caller::Anybody);
        };
        let hash = hash(token);
        let mut found = None;
        for token in tokens {
            if bool::from(token.hash.ct_eq(&hash)) {
                found = Some(Caller::Bearer(token.grant.clone()));
            }
        }
        found
    }

    /// Whether there are tokens at all.
    fn are_wanted(&self) -> bool {
        let tokens = self.0.read().unwrap_or_else(PoisonError::into_inner);
        tokens.is_some()
    }

    /// Who calls, by the password of the small API: a token that is good for that user, where tokens are wanted.
    pub(super) fn caller_by_password(
        &self,
        user: &UserId,
        password: &str,
    ) -> Result<Caller, ApiError> {
        let caller = self.grant(password).ok_or(ApiError::Unauthorized)?;
        caller.may_act_for(user).map_err(|_| ApiError::Unauthorized)?;
        Ok(caller)
    }
}

impl Token {
    /// Reads a line.
    fn parse(line: &str, number: usize) -> Result<Self, TokensError> {
        let mut words = line.split_whitespace();
        let token = words.next().unwrap_or_default();
        if token.chars().count() < MIN_TOKEN {
            return Err(TokensError::TooShort(number));
        }
        let role = match words.next() {
            Some("client") => Role::Client,
            Some("operator") => Role::Operator,
            Some(_) => return Err(TokensError::UnknownRole(number)),
            None => return Err(TokensError::NoRole(number)),
        };
        let user = words.next().map(UserId::parse).transpose();
        let user = user.map_err(|flaw| TokensError::User(number, flaw))?;
        if words.next().is_some() {
            return Err(TokensError::TooMuch(number));
        }
        Ok(Self {
            hash: hash(token),
            grant: Grant { role, user },
        })
    }
}

impl fmt::Debug for Tokens {
    /// Shows none of them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

/// The hash by which a token is known.
fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// Finds out who calls, and turns away whoever brings no good token where one is wanted.
pub(super) async fn authenticate(
    State(tokens): State<Tokens>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let caller = if tokens.are_wanted() {
        let token = bearer(request.headers()).ok_or(ApiError::Unauthorized)?;
        tokens.grant(token).ok_or(ApiError::Unauthorized)?
    } else {
        Caller::Anybody
    };
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

/// The token of an `Authorization: Bearer` header.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then_some(token.trim_start())
}
