//! Decodes a check: its claim, and what else is needed to log and answer it.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3;
use envoy_types::pb::envoy::config::core::v3::address::Address;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use prost::Message;

use crate::config::Changeable;
use crate::doors::RequestContext;
use crate::envoy::wire::attributes::CheckAttributes;
use crate::envoy::wire::denial::DenialStyle;
use crate::envoy::wire::grpc_status;
use crate::envoy::wire::request::{CheckRequest, SocketPeer};
use crate::identity::attributes::RequestAttributes;
use crate::identity::claim::{self, CheckKind, ClaimError};
use crate::identity::{Fact, FactLoss, Identity, RouteLists, UserId};

/// What a check asks for; see [`claim::decode`].
pub(in crate::envoy) fn decode(
    request: &CheckRequest<'_>,
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
pub(in crate::envoy) struct CheckContext {
    /// What the log says about it, and the settings that decide it.
    pub(in crate::envoy) request: RequestContext,
    /// Whether the request is a gRPC call.
    is_grpc: bool,
    /// How long Envoy waits for the answer, if it says so.
    pub(super) deadline: Option<Duration>,
}

impl CheckContext {
    /// The context of a check. `enforce` says whether refusals reach the client, if the route
    /// decides that; `settings` are those in force.
    pub(in crate::envoy) fn of(
        request: &CheckRequest<'_>,
        enforce: Option<bool>,
        settings: Arc<Changeable>,
        deadline: Option<Duration>,
    ) -> Self {
        let attributes = CheckAttributes::of(request);
        let attributes = attributes.as_ref();
        let id = attributes.and_then(|attributes| attributes.request_id().ok().flatten());
        let gateway = request.destination.as_ref().and_then(socket);
        let client = request.source.as_ref().and_then(socket);
        let request = RequestContext {
            request_id: id.map(Cow::into_owned).unwrap_or_default(),
            enforces: enforce.unwrap_or(settings.limits.enforce),
            settings,
            gateway: gateway.map(|(address, port)| match port {
                Some(port) => SocketAddr::new(address, port).to_string(),
                None => address.to_string(),
            }),
            client: client.map(|(address, _)| address),
        };
        Self {
            request,
            is_grpc: attributes.is_some_and(grpc_status::is_call),
            deadline,
        }
    }

    /// The form in which the client reads a denial.
    pub(super) fn style(&self) -> DenialStyle<'_> {
        DenialStyle {
            refusal: &self.request.settings.refusal,
            is_grpc: self.is_grpc,
        }
    }
}

/// Whether refusals reach the client, if the check's route says so legibly; see [`claim::enforce`].
pub(super) fn enforce_of(request: &CheckRequest<'_>) -> Option<bool> {
    let attributes = CheckAttributes::of(request)?;
    claim::enforce(&attributes).ok().flatten()
}

/// The request's user, for the log; `None` if unknown.
pub(in crate::envoy) fn user_of(request: &CheckRequest<'_>, identity: &Identity) -> Option<UserId> {
    let attributes = CheckAttributes::of(request)?;
    let user = claim::named("user", &identity.user, &attributes);
    user.ok().flatten()
}

/// The address of one end, if it is an IP address.
fn socket(peer: &SocketPeer<'_>) -> Option<(IpAddr, Option<u16>)> {
    let address = v3::Address::decode(peer.address?).ok()?;
    let Some(Address::SocketAddress(socket)) = address.address else {
        return None;
    };
    let port = match socket.port_specifier {
        Some(PortSpecifier::PortValue(port)) => u16::try_from(port).ok(),
        Some(PortSpecifier::NamedPort(_)) | None => None,
    };
    Some((socket.address.parse().ok()?, port))
}
