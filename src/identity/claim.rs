//! Decodes a check: which stream is requested, and by whom. Pure functions.
//!
//! If a player sends no id, a cookie of ours may name its playback: [`super::cookie`].

use std::fmt::Display;
use std::sync::Arc;

use super::attributes::{CheckedRequest, RequestAttributes};
use super::cookie::{self, Cookie};
use super::fact::{Fact, FactLoss, FactName};
use super::facts::{Door, Facts};
use super::find::{Finding, find, joined_origin};
use super::id::{IdError, PlanName, UserId};
use super::key::{Kind, SessionKey, Takeover};
use super::message::EndMessage;
use super::routes::RouteLists;
use super::source::Source;
use super::sources::Identity;

/// The key in `context_extensions` of the route's own list of session sources.
const ROUTE_SESSION: &str = "streamgate.session";

/// The key in `context_extensions` that says whether the route's streams are refused at all.
const ROUTE_ENFORCE: &str = "streamgate.enforce";

/// What a door decoded from a request for a stream.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The stream's user.
    pub user: UserId,
    /// The user's plan, according to the request.
    pub plan: Option<PlanName>,
    /// The stream's key.
    pub key: SessionKey,
    /// Optional facts about it.
    pub facts: Facts,
    /// Whose slot it asks for if all are taken; without it, the configured policy applies.
    pub takeover: Option<Takeover>,
    /// What the viewer of a session that it displaces is told.
    pub message: Option<EndMessage>,
    /// Whether the player did not make its id for this playback.
    pub derived: bool,
    /// Whether it may displace without drawing on the budget, because an operator asks or because
    /// nothing is refused anyway.
    pub free: bool,
}

/// What a check asks for.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "one is made for each check and taken apart at once; a box would be one allocation more"
)]
pub(crate) enum CheckKind {
    /// A preflight: no stream, and no user.
    Preflight,
    /// A `HEAD` request by a known user; no stream.
    Head,
    /// A stream, the cookie that names it if nothing else does, and the route's [`enforce`].
    Stream(Claim, Option<Cookie>, Option<bool>),
}

/// Why a check can't be passed to the ledger.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ClaimError {
    /// It is not about an HTTP request.
    #[error("the check is not about an HTTP request: streamgate supports only Envoy's HTTP filter")]
    NotHttp,
    /// Nothing in the request identifies the user.
    #[error("nothing in the request says which user it is from")]
    NoUser,
    /// Nothing in the request identifies the session.
    #[error("nothing in the request says which playback it belongs to")]
    NoSession,
    /// The name of the user or session is not valid.
    #[error("the {what} ({source_name}) {flaw}")]
    Malformed {
        /// What it should name.
        what: &'static str,
        /// Where it was found.
        source_name: String,
        /// What is wrong with it.
        flaw: String,
    },
    /// The route's context for us is invalid: its key, and why.
    #[error("this route's context extension {0} is wrong: {1}")]
    Misconfigured(&'static str, String),
}

/// Decodes what a check asks for. `random` is used if a cookie has to be made. `lost` is called for
/// facts that can't be kept unchanged.
pub(crate) fn decode(
    request: &impl CheckedRequest,
    identity: &Identity,
    routes: &RouteLists,
    random: impl FnOnce() -> u128,
    lost: impl Fn(Fact, FactLoss),
) -> Result<CheckKind, ClaimError> {
    if request.method() == "OPTIONS" {
        return Ok(CheckKind::Preflight);
    }
    let user = named("user", &identity.user, request)?.ok_or(ClaimError::NoUser)?;
    if request.method() == "HEAD" {
        return Ok(CheckKind::Head);
    }
    let issues = cookie::is_issued(request)?;
    let of_route = of_route(routes, issues, request)?;
    let enforce = enforce(request)?;
    let sources = of_route.as_deref().unwrap_or(&identity.session);
    // Each request has an id of its own: on a route with a cookie it would take precedence over the
    // cookie.
    let sources = sources
        .iter()
        .filter(|source| !issues || **source != Source::Request);
    let (mut derived, mut joined) = (false, None);
    let (key, cookie) = match session_key(find(sources, request))? {
        Some((source, key)) => {
            derived = identity.is_derived(source);
            joined = derived.then(|| joined_origin(source, request)).flatten();
            (key, None)
        }
        None if issues => {
            let cookie = cookie::cookie(request, routes, random)?;
            let cookie = cookie.ok_or(ClaimError::NoSession)?;
            (cookie.session(&user), Some(cookie))
        }
        None => return Err(ClaimError::NoSession),
    };
    let plan = named("plan", &identity.plan, request)?;
    let facts = Facts {
        joined,
        ..facts(identity, request, Door::ExtAuthz, &lost)
    };
    // A request that is a stream of its own may not even be retried with the same words.
    let takeover = match key.kind {
        Kind::Playback => named("takeover", &identity.takeover, request)?,
        Kind::Request | Kind::Video => None,
    };
    let claim = Claim {
        user,
        plan,
        key,
        facts,
        takeover,
        message: None,
        derived,
        free: false,
    };
    Ok(CheckKind::Stream(claim, cookie, enforce))
}

/// The route's own list of session sources.
fn of_route(
    routes: &RouteLists,
    issues: bool,
    request: &impl CheckedRequest,
) -> Result<Option<Arc<[Source]>>, ClaimError> {
    let Some(list) = request.context(ROUTE_SESSION) else {
        return Ok(None);
    };
    let wrong = |flaw: &dyn Display| ClaimError::Misconfigured(ROUTE_SESSION, flaw.to_string());
    let sources = routes.sources(list).map_err(|error| wrong(&error))?;
    if issues && sources.contains(&Source::Request) {
        return Err(wrong(
            &"it can't contain request if the route issues a cookie",
        ));
    }
    Ok(Some(sources))
}

/// Whether refusals reach the client, if the route's [`ROUTE_ENFORCE`] says so.
pub(crate) fn enforce(request: &impl RequestAttributes) -> Result<Option<bool>, ClaimError> {
    let Some(said) = request.context(ROUTE_ENFORCE) else {
        return Ok(None);
    };
    said.parse().map(Some).map_err(|_| {
        let flaw = format!("got {said:?}; allowed: true, false");
        ClaimError::Misconfigured(ROUTE_ENFORCE, flaw)
    })
}

/// The facts about the session. They are only displayed, so none of them is a reason to refuse a
/// stream.
pub(crate) fn facts(
    identity: &Identity,
    request: &impl RequestAttributes,
    door: Door,
    lost: &impl Fn(Fact, FactLoss),
) -> Facts {
    Facts {
        device: fact(&identity.device, request, lost),
        content: fact(&identity.content, request, lost),
        door: Some(door),
        ..Facts::default()
    }
}

/// As much as can be kept of the first fact that the sources have. If that is malformed, the next
/// source isn't tried: a client must not be able to select its device by spoiling an earlier
/// source.
fn fact<T: FactName>(
    sources: &[Source],
    request: &impl RequestAttributes,
    lost: &impl Fn(Fact, FactLoss),
) -> Option<T> {
    match find(sources, request) {
        Ok(found) => T::keep(Some(&found?.1), lost),
        Err(_) => T::keep(None, lost),
    }
}

/// The first name that the sources have.
pub(crate) fn named<T: CheckedName>(
    what: &'static str,
    sources: &[Source],
    request: &impl RequestAttributes,
) -> Result<Option<T>, ClaimError> {
    match find(sources, request) {
        Ok(None) => Ok(None),
        Ok(Some((source, text))) => T::parse(&text)
            .map(Some)
            .map_err(|flaw| malformed(what, source, &flaw)),
        Err((source, flaw)) => Err(malformed(what, source, &flaw)),
    }
}

/// A newtype around a checked name.
pub(crate) trait CheckedName: Sized {
    /// The name, if the text is valid.
    fn parse(text: &str) -> Result<Self, IdError>;
}

/// Makes these types usable with [`named`].
macro_rules! names {
    ($($module:ident::$name:ident),+) => {
        $(impl CheckedName for super::$module::$name {
            fn parse(text: &str) -> Result<Self, IdError> {
                Self::parse(text)
            }
        })+
    };
}

names!(id::UserId, id::SessionId, id::PlanName, key::Takeover);

/// The session's key, and the source of its id, which decides the kind.
fn session_key<'s>(found: Finding<'s, '_>) -> Result<Option<(&'s Source, SessionKey)>, ClaimError> {
    let what = "session id";
    let Some((source, text)) = found.map_err(|(source, flaw)| malformed(what, source, &flaw))?
    else {
        return Ok(None);
    };
    let kind = if *source == Source::Request {
        Kind::Request
    } else {
        Kind::Playback
    };
    let id = CheckedName::parse(&text).map_err(|flaw| malformed(what, source, &flaw))?;
    Ok(Some((source, SessionKey { kind, id })))
}

/// The error for a value that isn't a valid name.
fn malformed(what: &'static str, source: &Source, flaw: &dyn Display) -> ClaimError {
    ClaimError::Malformed {
        what,
        source_name: source.to_string(),
        flaw: flaw.to_string(),
    }
}
