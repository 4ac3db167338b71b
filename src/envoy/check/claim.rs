//! Decodes a check: its claim, and what else is needed to log and answer it.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::address::Address;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;

use crate::config::Changeable;
use crate::doors::ClaimedRequest;
use crate::envoy::wire::attributes::CheckAttributes;
use crate::envoy::wire::denial::DenialStyle;
use crate::envoy::wire::grpc_status;
use crate::envoy::wire::request::{self, CheckRequest, SocketPeer};
use crate::identity::attributes::RequestAttributes;
use crate::identity::claim::{self, CheckKind, ClaimError, ROUTE_ENFORCE};
use crate::identity::{Claim, Fact, FactLoss, Identity, RouteLists, UserId};

/// What a check asks for; see [`claim::decode`].
pub(in crate::envoy) fn decode(
    request: &CheckRequest,
    identity: &Identity,
    routes: &RouteLists,
    random: impl FnOnce() -> u128,
    lost: impl Fn(Fact, FactLoss),
) -> Result<CheckKind, ClaimError> {
    let attributes = CheckAttributes::of(request).ok_or(ClaimError::NotHttp)?;
    claim::decode(&attributes, identity, routes, random, lost)
}

/// The other facts about a check that the lease cache doesn't answer: for the log, for the form of
/// a denial, and for the decision. Decoded once, so that the request need not be kept while the
/// store is asked.
#[derive(Debug)]
pub(super) struct CheckContext {
    /// Envoy's id of the request; empty if it has none.
    pub(super) request_id: String,
    /// The settings in force when the check arrived; they decide everything about it.
    pub(super) settings: Arc<Changeable>,
    /// Whether a refusal reaches the client: according to the route, or else the configuration. In
    /// a dry run a refused stream is let in without a slot, and counted as if it had been refused.
    pub(super) enforces: bool,
    /// Whether the request is a gRPC call.
    is_grpc: bool,
    /// The address and port that the viewer connected to, as seen by the gateway.
    gateway: Option<String>,
    /// The viewer's address.
    client: Option<IpAddr>,
    /// How long Envoy waits for the answer, if it says so.
    pub(super) deadline: Option<Duration>,
}

impl CheckContext {
    /// The context of a check. `settings` are those in force.
    pub(super) fn of(
        request: &CheckRequest,
        settings: Arc<Changeable>,
        deadline: Option<Duration>,
    ) -> Self {
        let (gateway, client) = peers(request);
        let configured = settings.limits.enforce;
        Self {
            request_id: request_id(request),
            enforces: enforces(request, configured).unwrap_or(configured),
            is_grpc: is_grpc(request),
            settings,
            gateway,
            client,
            deadline,
        }
    }

    /// The form in which the client reads a denial.
    pub(super) fn style(&self) -> DenialStyle<'_> {
        DenialStyle {
            refusal: &self.settings.refusal,
            is_grpc: self.is_grpc,
        }
    }

    /// A claim of this check, for the log.
    pub(super) fn claimed<'a>(&'a self, claim: &'a Claim) -> ClaimedRequest<'a> {
        ClaimedRequest {
            claim,
            request_id: &self.request_id,
            settings: &self.settings,
            enforces: self.enforces,
            gateway: self.gateway.as_deref(),
            client: self.client,
        }
    }
}

/// Whether refusals of the check reach the client; see [`claim::enforces`].
fn enforces(request: &CheckRequest, configured: bool) -> Result<bool, ClaimError> {
    let context = request.attributes.as_ref();
    let said =
        context.and_then(|context| request::text(&context.context_extensions, ROUTE_ENFORCE));
    claim::enforces(said, configured)
}

/// The request's user, for the log; `None` if unknown.
pub(in crate::envoy) fn user_of(request: &CheckRequest, identity: &Identity) -> Option<UserId> {
    let attributes = CheckAttributes::of(request)?;
    let user = claim::named("user", &identity.user, &attributes);
    user.ok().flatten()
}

/// Envoy's id of the request, for the log.
pub(in crate::envoy) fn request_id(request: &CheckRequest) -> String {
    let attributes = CheckAttributes::of(request);
    let id = attributes
        .as_ref()
        .and_then(|attributes| attributes.request_id().ok().flatten());
    id.map(Cow::into_owned).unwrap_or_default()
}

/// Both ends of the viewer's connection to the gateway, as seen by the gateway: the address and
/// port it came to, and the viewer's address.
fn peers(request: &CheckRequest) -> (Option<String>, Option<IpAddr>) {
    let attributes = request.attributes.as_ref();
    let gateway = attributes.and_then(|found| socket(found.destination.as_ref()));
    let client = attributes.and_then(|found| socket(found.source.as_ref()));
    let gateway = gateway.map(|(address, port)| match port {
        Some(port) => SocketAddr::new(address, port).to_string(),
        None => address.to_string(),
    });
    (gateway, client.map(|(address, _)| address))
}

/// The address of one end, if it is an IP address.
fn socket(peer: Option<&SocketPeer>) -> Option<(IpAddr, Option<u16>)> {
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
pub(in crate::envoy) fn is_grpc(request: &CheckRequest) -> bool {
    CheckAttributes::of(request).is_some_and(|attributes| grpc_status::is_call(&attributes))
}
