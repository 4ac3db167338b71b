//! Decodes a check: what is asked for, by whom, for which stream. Pure.

use std::borrow::Cow;

use envoy_types::pb::envoy::service::auth::v3::CheckRequest;

use super::evidence::{CheckEvidence, Evidence, find};
use super::routes::RouteLists;
use crate::config::{Identity, Source};
use crate::ledger::Claim;
use crate::session::{Door, Facts, IdError, Kind, SessionKey, UserId};

/// The route's own list of session sources (`context_extensions`).
const ROUTE_SESSION: &str = "streamgate.session";

/// Whether the route's streams are refused at all (`context_extensions`).
const ROUTE_ENFORCE: &str = "streamgate.enforce";

/// What a check asks for.
#[derive(Debug)]
pub(super) enum Ask {
    /// A preflight: no stream, and no user to be seen.
    Preflight,
    /// A look at a stream, by a known user; no stream.
    Head,
    /// A stream.
    Stream(Claim),
}

/// Why a check can't be asked of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unclaimed {
    /// It is not about an HTTP request.
    #[error(
        "the check is not about an HTTP request: streamgate stands behind Envoy's HTTP filter only"
    )]
    NotHttp,
    /// Nothing says whose stream it is.
    #[error("nothing in the request says which user it is from")]
    NoUser,
    /// Nothing says which stream it is.
    #[error("nothing in the request says which playback it belongs to")]
    NoSession,
    /// Something that names the user or the session is no name.
    #[error("the {what} ({source_name}) {flaw}")]
    Malformed {
        /// What it was to name.
        what: &'static str,
        /// Where it was found.
        source_name: String,
        /// What is wrong with it.
        flaw: String,
    },
    /// What the route says to us can't be understood: under which key, and why.
    #[error("this route's context extension {0} is wrong: {1}")]
    Misconfigured(&'static str, String),
}

/// What a check asks for, if it can be told.
pub(super) fn decode(
    request: &CheckRequest,
    identity: &Identity,
    routes: &RouteLists,
) -> Result<Ask, Unclaimed> {
    let evidence = request
        .attributes
        .as_ref()
        .and_then(CheckEvidence::of)
        .ok_or(Unclaimed::NotHttp)?;
    if evidence.http().method == "OPTIONS" {
        return Ok(Ask::Preflight);
    }
    let user = named("user", &identity.user, &evidence)?.ok_or(Unclaimed::NoUser)?;
    if evidence.http().method == "HEAD" {
        return Ok(Ask::Head);
    }
    let of_route = evidence.context(ROUTE_SESSION);
    let of_route = of_route.map(|list| routes.sources(list)).transpose();
    let of_route =
        of_route.map_err(|error| Unclaimed::Misconfigured(ROUTE_SESSION, error.to_string()))?;
    enforces(request, true)?;
    let sources = of_route.as_deref().unwrap_or(&identity.session);
    let key = session_key(sources, &evidence)?.ok_or(Unclaimed::NoSession)?;
    let plan = named("plan", &identity.plan, &evidence)?;
    let facts = facts(identity, &evidence, Door::ExtAuthz)?;
    // A request that is a stream of its own may not even be retried with the same words.
    let takeover = match key.kind {
        Kind::Playback => named("takeover", &identity.takeover, &evidence)?,
        Kind::Request | Kind::Video => None,
    };
    Ok(Ask::Stream(Claim {
        user,
        plan,
        key,
        facts,
        takeover,
    }))
}

/// Whether who is refused is told so, as the route or else the configuration has it.
pub(super) fn enforces(request: &CheckRequest, configured: bool) -> Result<bool, Unclaimed> {
    let attributes = request.attributes.as_ref();
    let said = attributes.and_then(|attributes| attributes.context_extensions.get(ROUTE_ENFORCE));
    said.map_or(Ok(configured), |said| {
        said.parse().map_err(|_| {
            let flaw = format!("got {said:?}; allowed: true, false");
            Unclaimed::Misconfigured(ROUTE_ENFORCE, flaw)
        })
    })
}

/// Whose request it is, for the log; `None` where that can't be told.
pub(super) fn user_of(request: &CheckRequest, identity: &Identity) -> Option<UserId> {
    let evidence = request.attributes.as_ref().and_then(CheckEvidence::of)?;
    named("user", &identity.user, &evidence).ok().flatten()
}

/// Envoy's id of the request, for the log.
pub(super) fn request_id(request: &CheckRequest) -> String {
    let evidence = request.attributes.as_ref().and_then(CheckEvidence::of);
    let id = evidence
        .as_ref()
        .and_then(|evidence| evidence.request_id().ok().flatten());
    id.map(Cow::into_owned).unwrap_or_default()
}

/// What is known of the session beside its key.
pub(super) fn facts(
    identity: &Identity,
    evidence: &impl Evidence,
    door: Door,
) -> Result<Facts, Unclaimed> {
    Ok(Facts {
        device: named("device", &identity.device, evidence)?,
        content: named("content", &identity.content, evidence)?,
        door: Some(door),
        position_seconds: None,
    })
}

/// The first name that the sources have.
pub(super) fn named<T: Name>(
    what: &'static str,
    sources: &[Source],
    evidence: &impl Evidence,
) -> Result<Option<T>, Unclaimed> {
    match find(sources, evidence) {
        Ok(None) => Ok(None),
        Ok(Some((source, text))) => T::parse(&text)
            .map(Some)
            .map_err(|flaw| malformed(what, source, &flaw)),
        Err((source, flaw)) => Err(malformed(what, source, &flaw)),
    }
}

/// A newtype around a checked name.
pub(super) trait Name: Sized {
    /// The name, if the text can be one.
    fn parse(text: &str) -> Result<Self, IdError>;
}

/// Lets [`named`] make these.
macro_rules! names {
    ($($name:ident),+) => {
        $(impl Name for crate::session::$name {
            fn parse(text: &str) -> Result<Self, IdError> {
                Self::parse(text)
            }
        })+
    };
}

names!(UserId, SessionId, PlanName, DeviceId, ContentId, Takeover);

/// Which stream it is. The source that has its id decides the kind.
fn session_key(
    sources: &[Source],
    evidence: &impl Evidence,
) -> Result<Option<SessionKey>, Unclaimed> {
    let what = "session id";
    let Some((source, text)) =
        find(sources, evidence).map_err(|(source, flaw)| malformed(what, source, &flaw))?
    else {
        return Ok(None);
    };
    let kind = if *source == Source::Request {
        Kind::Request
    } else {
        Kind::Playback
    };
    let id = Name::parse(&text).map_err(|flaw| malformed(what, source, &flaw))?;
    Ok(Some(SessionKey { kind, id }))
}

/// Something that is there but is no name.
fn malformed(what: &'static str, source: &Source, flaw: &dyn std::fmt::Display) -> Unclaimed {
    Unclaimed::Malformed {
        what,
        source_name: source.to_string(),
        flaw: flaw.to_string(),
    }
}
