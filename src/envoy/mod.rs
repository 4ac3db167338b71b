//! The gRPC doors, all on one port: Envoy's checks, its access logs, health, and reflection for
//! interactive tools.

mod access_log;
mod check;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
#[cfg(feature = "parts")]
#[doc(hidden)]
pub mod parts;
#[cfg(test)]
mod tests;
mod wire;

pub use access_log::AccessLogDoor;
pub use check::CheckDoor;

use tonic::service::Routes;
use tonic_health::pb::health_server::{Health, HealthServer};

pub(crate) use access_log::MAX_MESSAGE_BYTES;
pub use access_log::STREAM_AGE;
use wire::log_service::AccessLogService;
pub(crate) use wire::service::Services;

/// The services of Envoy's protocols, for reflection; generated from the protos of `envoy-types`.
const DESCRIPTORS: &[u8] = include_bytes!("descriptors.bin");

/// All services of the gRPC port.
///
/// # Errors
/// The descriptors are broken, which a test rules out.
pub(crate) fn services(
    check: CheckDoor,
    access_log: AccessLogDoor,
    health: HealthServer<impl Health>,
) -> Result<Services, tonic_reflection::server::Error> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let mut routes = Routes::builder();
    routes
        .add_service(AccessLogService(access_log))
        .add_service(health)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?);
    let routes = routes.routes().into_axum_router();
    // Without this, axum would prepare each route again for each connection.
    Ok(Services::new(check, routes.with_state(())))
}
