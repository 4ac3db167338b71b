//! The two ports: where they are, and all that accepting needs, read and bound before anything is said to be ready.

use std::net::SocketAddr;
use std::sync::Arc;

use tracing::debug;

use super::BuildError;
use super::accept::{Acceptor, ConnectionTimes};
use super::connection::{Places, room};
use super::listener::{bind_grpc, bind_http};
use crate::config::{Config, Listen};
use crate::follow::{Followed, Followers};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::Port;
use crate::tls::{PortTls, Served, Validity};

/// Where an instance listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// Envoy's port.
    pub grpc: Listen,
    /// Everybody else's port.
    pub http: SocketAddr,
}

/// Both ports, bound.
#[derive(Debug)]
pub(super) struct Ports {
    /// Where they are; with port 0 in the configuration, the ports that they got.
    pub(super) addresses: Addresses,
    /// Accepts gateways.
    pub(super) grpc: Acceptor,
    /// Accepts everybody else.
    pub(super) http: Acceptor,
}

impl Ports {
    /// Reads their certificates, which are followed from then on, and binds them.
    pub(super) async fn open(
        config: &Config,
        times: ConnectionTimes,
        metrics: &Arc<Metrics>,
        followers: &mut Followers,
    ) -> Result<Self, BuildError> {
        let mut tls = |port| {
            let Some(PortTls { label, files }) = PortTls::of(config, port) else {
                return Ok(None);
            };
            let followed = Followed::load(label, files, Arc::clone(metrics))?;
            let metrics = Arc::clone(metrics);
            let tell = move |served: &Served| {
                let Validity { from, until } = served.validity.unwrap_or_default();
                metrics.certificate(port, from, until);
            };
            tell(&followed.current());
            let followed = Arc::new(followed.then(tell));
            followers.add(&followed);
            Ok::<_, BuildError>(Some(followed))
        };
        let (grpc_tls, http_tls) = (tls(Port::Grpc)?, tls(Port::Http)?);
        let (grpc_room, http_room) = room(open_files());
        let places = |port, room| Places::new(port, room, Arc::clone(metrics));
        let (grpc, grpc_address) = bind_grpc(&config.grpc.listen).await?;
        let (http, http_address) = bind_http(config.http.listen).await?;
        Ok(Self {
            addresses: Addresses {
                grpc: grpc_address,
                http: http_address,
            },
            grpc: Acceptor {
                port: Port::Grpc,
                listener: grpc,
                tls: grpc_tls,
                places: places(Port::Grpc, grpc_room),
                times,
            },
            http: Acceptor {
                port: Port::Http,
                listener: http,
                tls: http_tls,
                places: places(Port::Http, http_room),
                times,
            },
        })
    }
}

/// How many files this process may have open.
fn open_files() -> u64 {
    match rlimit::Resource::NOFILE.get() {
        Ok((soft, _)) => soft,
        Err(error) => {
            debug!(%error, "failed to find out how many files may be open; taking the least that is usual");
            1024
        }
    }
}
