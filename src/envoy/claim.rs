//! Decodes a check: what is asked for, by whom, for which stream. Pure.
//!
//! Where a player says nothing, a cookie of ours may name its playback: [`super::cookie`].

use std::borrow::Cow;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::address::Address;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;

use super::cookie::{self, Cookie};
use super::evidence::{CheckEvidence, Evidence, Finding, find, joined_origin};
use super::grpc;
use super::request::{self, CheckRequest, Peer};
use super::routes::RouteLists;
use crate::config::{Identity, Source};
use crate::ledger::Claim;
use crate::session::{Door, Fact, FactLoss, FactName, Facts, IdError, Kind, SessionKey, UserId};

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
    /// A stream, and the cookie that names it where nothing else does.
    Stream(Claim, Option<Cookie>),
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

/// What a check asks for, if it can be told. `random` is for a cookie, should one have to be made. `lost` hears of facts that can't be kept as
/// they came.
pub(super) fn decode(
    request: &CheckRequest,
    identity: &Identity,
    routes: &RouteLists,
    random: impl FnOnce() -> u128,
    lost: impl Fn(Fact, FactLoss),
) -> Result<Ask, Unclaimed> {
    let evidence = CheckEvidence::of(request).ok_or(Unclaimed::NotHttp)?;
    if evidence.http().method == "OPTIONS" {
        return Ok(Ask::Preflight);
    }
    let user = named("user", &identity.user, &evidence)?.ok_or(Unclaimed::NoUser)?;
    if evidence.http().method == "HEAD" {
        return Ok(Ask::Head);
    }
    let issues = cookie::is_issued(&evidence)?;
    let of_route = of_route(routes, issues, &evidence)?;
    enforces(request, true)?;
    let sources = of_route.as_deref().unwrap_or(&identity.session);
    // Each request has an id of its own: on a route with a cookie that would be in the cookie's way.
    let sources = sources
        .iter()
        .filter(|source| !issues || **source != Source::Request);
    let (mut derived, mut joined) = (false, None);
    let (key, cookie) = match session_key(find(sources, &evidence))? {
        Some((source, key)) => {
            derived = identity.is_derived(source);
            joined = derived.then(|| joined_origin(source, &evidence)).flatten();
            (key, None)
        }
        None if issues => {
            let cookie = cookie::cookie(&evidence, routes, random)?;
            let cookie = cookie.ok_or(Unclaimed::NoSession)?;
            (cookie.session(&user), Some(cookie))
        }
        None => return Err(Unclaimed::NoSession),
    };
    let plan = named("plan", &identity.plan, &evidence)?;
    let facts = Facts {
        joined,
        ..facts(identity, &evidence, Door::ExtAuthz, &lost)
    };
    // A request that is a stream of its own may not even be retried with the same words.
    let takeover = match key.kind {
        Kind::Playback => named("takeover", &identity.takeover, &evidence)?,
        Kind::Request | Kind::Video => None,
    };
    let claim = Claim {
        user,
        plan,
        key,
        facts,
        takeover,
        derived,
        free: false,
    };
    Ok(Ask::Stream(claim, cookie))
}

/// The route's own list of session sources.
fn of_route(
    routes: &RouteLists,
    issues: bool,
    evidence: &CheckEvidence<'_>,
) -> Result<Option<Arc<[Source]>>, Unclaimed> {
    let Some(list) = evidence.context(ROUTE_SESSION) else {
        return Ok(None);
    };
    let wrong = |flaw: &dyn Display| Unclaimed::Misconfigured(ROUTE_SESSION, flaw.to_string());
    let sources = routes.sources(list).map_err(|error| wrong(&error))?;
    if issues && sources.contains(&Source::Request) {
        return Err(wrong(
            &"request can't be in it where the route has a cookie issued",
        ));
    }
    Ok(Some(sources))
}

/// Whether who is refused is told so, as the route or else the configuration has it.
pub(super) fn enforces(request: &CheckRequest, configured: bool) -> Result<bool, Unclaimed> {
    let attributes = request.attributes.as_ref();
    let said = attributes.and_then(|found| request::text(&found.context_extensions, ROUTE_ENFORCE));
    said.map_or(Ok(configured), |said| {
        said.parse().map_err(|_| {
            let flaw = format!("got {said:?}; allowed: true, false");
            Unclaimed::Misconfigured(ROUTE_ENFORCE, flaw)
        })
    })
}

/// Whose request it is, for the log; `None` where that can't be told.
pub(super) fn user_of(request: &CheckRequest, identity: &Identity) -> Option<UserId> {
    let evidence = CheckEvidence::of(request)?;
    named("user", &identity.user, &evidence).ok().flatten()
}

/// Envoy's id of the request, for the log.
pub(super) fn request_id(request: &CheckRequest) -> String {
    let evidence = CheckEvidence::of(request);
    let id = evidence
        .as_ref()
        .and_then(|evidence| evidence.request_id().ok().flatten());
    id.map(Cow::into_owned).unwrap_or_default()
}

/// Both ends of the viewer's connection to the gateway: where it came to, with the port, and from whom, as the gateway sees it.
pub(super) fn ends(request: &CheckRequest) -> (Option<String>, Option<IpAddr>) {
    let attributes = request.attributes.as_ref();
    let gateway = attributes.and_then(|found| socket(found.destination.as_ref()));
    let client = attributes.and_then(|found| socket(found.source.as_ref()));
    let gateway = gateway.map(|(address, port)| match port {
        Some(port) => SocketAddr::new(address, port).to_string(),
        None => address.to_string(),
    });
    (gateway, client.map(|(address, _)| address))
}

/// The address of one end, if it is one of the Internet's.
fn socket(peer: Option<&Peer>) -> Option<(IpAddr, Option<u16>)> {
    let Some(Address::SocketAddress(socket)) = peer?.address.as_ref()?.address.as_ref() else {
        return None;
    };
    let port = match socket.port_specifier {
        Some(PortSpecifier::PortValue(port)) => u16::try_from(port).ok(),
        Some(PortSpecifier::NamedPort(_)) | None => None,
    };
    Some((socket.address.parse().ok()?, port))
}

/// Whether the request is a gRPC call.
pub(super) fn is_grpc(request: &CheckRequest) -> bool {
    let evidence = CheckEvidence::of(request);
    evidence.is_some_and(|evidence| grpc::is_call(&evidence))
}

/// What is known of the session apart from its key. It is only shown, so none of it is a reason to refuse a stream.
pub(super) fn facts(
    identity: &Identity,
    evidence: &impl Evidence,
    door: Door,
    lost: &impl Fn(Fact, FactLoss),
) -> Facts {
    Facts {
        device: fact(&identity.device, evidence, lost),
        content: fact(&identity.content, evidence, lost),
        door: Some(door),
        ..Facts::default()
    }
}

/// As much as can be kept of the first fact that the sources have. Where that is malformed, the next source isn't asked: a client that spoils
/// one source must not choose its device by the next.
fn fact<T: FactName>(
    sources: &[Source],
    evidence: &impl Evidence,
    lost: &impl Fn(Fact, FactLoss),
) -> Option<T> {
    match find(sources, evidence) {
        Ok(found) => T::keep(Some(&found?.1), lost),
        Err(_) => T::keep(None, lost),
    }
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

names!(UserId, SessionId, PlanName, Takeover);

/// Which stream it is, and the source that has its id, which decides the kind.
fn session_key<'s>(found: Finding<'s, '_>) -> Result<Option<(&'s Source, SessionKey)>, Unclaimed> {
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
    let id = Name::parse(&text).map_err(|flaw| malformed(what, source, &flaw))?;
    Ok(Some((source, SessionKey { kind, id })))
}

/// Something that is there but is no name.
fn malformed(what: &'static str, source: &Source, flaw: &dyn Display) -> Unclaimed {
    Unclaimed::Malformed {
        what,
        source_name: source.to_string(),
        flaw: flaw.to_string(),
    }
}
