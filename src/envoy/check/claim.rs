//! Decodes a check: the claim that it makes, and what else is logged and answered by.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use envoy_types::pb::envoy::config::core::v3::address::Address;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;

use crate::envoy::wire::attributes::CheckAttributes;
use crate::envoy::wire::grpc_status;
use crate::envoy::wire::request::{self, CheckRequest, Peer};
use crate::identity::attributes::RequestAttributes;
use crate::identity::claim::{self, Ask, ROUTE_ENFORCE, Unclaimed};
use crate::identity::{Fact, FactLoss, Identity, RouteLists, UserId};

/// What a check asks for; see [`claim::decode`].
pub(in crate::envoy) fn decode(
    request: &CheckRequest,
    identity: &Identity,
    routes: &RouteLists,
    random: impl FnOnce() -> u128,
    lost: impl Fn(Fact, FactLoss),
) -> Result<Ask, Unclaimed> {
    let attributes = CheckAttributes::of(request).ok_or(Unclaimed::NotHttp)?;
    claim::decode(&attributes, identity, routes, random, lost)
}

/// Whether the check's refusals are passed on; see [`claim::enforces`].
pub(in crate::envoy) fn enforces(
    request: &CheckRequest,
    configured: bool,
) -> Result<bool, Unclaimed> {
    let context = request.attributes.as_ref();
    let said =
        context.and_then(|context| request::text(&context.context_extensions, ROUTE_ENFORCE));
    claim::enforces(said, configured)
}

/// Whose request it is, for the log; `None` where that can't be told.
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

/// Both ends of the viewer's connection to the gateway: where it came to, with the port, and from whom, as the gateway sees it.
pub(in crate::envoy) fn ends(request: &CheckRequest) -> (Option<String>, Option<IpAddr>) {
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
pub(in crate::envoy) fn is_grpc(request: &CheckRequest) -> bool {
    CheckAttributes::of(request).is_some_and(|attributes| grpc_status::is_call(&attributes))
}
