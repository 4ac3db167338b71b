//! The gRPC doors, all on one port: Envoy's checks, its access logs, health, and reflection for whoever explores with a tool.

mod access_log;
mod check;
#[cfg(test)]
mod check_tests;
mod claim;
#[cfg(test)]
mod claim_tests;
mod cmcd;
#[cfg(test)]
mod cmcd_tests;
mod cookie;
#[cfg(any(fuzzing, test))]
mod cookie_fuzzing;
#[cfg(test)]
mod cookie_tests;
mod entry;
#[cfg(test)]
mod entry_tests;
mod evidence;
#[cfg(test)]
mod evidence_tests;
#[cfg(test)]
mod fixtures;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod grant;
mod grpc;
mod jwt;
mod request;
#[cfg(any(fuzzing, test))]
mod request_fuzzing;
mod routes;
mod service;
#[cfg(test)]
mod sources_tests;
mod verdict;
#[cfg(test)]
mod verdict_tests;
mod written;

pub use access_log::AccessLogDoor;
pub use check::CheckDoor;
pub use routes::RouteLists;

use std::time::Duration;

use envoy_types::pb::envoy::service::accesslog::v3::access_log_service_server::AccessLogServiceServer;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::pb::health_server::{Health, HealthServer};

pub use access_log::STREAM_AGE;
use service::CheckService;

/// The services that Envoy's protocols define, for reflection; made from the protos of `envoy-types`.
const DESCRIPTORS: &[u8] = include_bytes!("descriptors.bin");

/// How long a connection may be silent before it is asked for a sign of life; gateways vanish too.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));

/// How many cancelled calls may wait to be noticed before a connection counts as hostile and is closed. Viewers who leave during their check
/// come in crowds, when a match ends; the default of 20 would take every other check of that gateway with them.
const MAX_PENDING_RESETS: usize = 100_000;

/// How much of one stream, and of one connection, may be under way unread: a durable logger's whole buffer, at once.
const WINDOWS: (u32, u32) = (4 * 1024 * 1024, 16 * 1024 * 1024);

/// The gRPC server, and what it serves.
///
/// # Errors
/// The descriptors are broken, which a test holds against.
pub fn server(
    check: CheckDoor,
    access_log: AccessLogDoor,
    health: HealthServer<impl Health>,
) -> Result<tonic::transport::server::Router, tonic_reflection::server::Error> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let access_log = AccessLogServiceServer::new(access_log)
        .max_decoding_message_size(access_log::MAX_MESSAGE_BYTES);
    let mut routes = Routes::builder();
    routes
        .add_service(CheckService::new(check))
        .add_service(access_log)
        .add_service(health)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?);
    let mut server = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .http2_max_pending_accept_reset_streams(Some(MAX_PENDING_RESETS))
        .initial_stream_window_size(WINDOWS.0)
        .initial_connection_window_size(WINDOWS.1)
        .tcp_nodelay(true);
    Ok(server.add_routes(routes.routes()))
}
