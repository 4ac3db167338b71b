//! The two ports: their addresses and everything needed to accept connections, read and bound
//! before the instance reports that it is ready.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::acceptor::{Acceptor, ConnectionTimes};
use super::connection::{Places, room};
use super::listener::{bind_grpc, bind_http};
use super::serve::{Answers, serve};
use crate::config::{Config, Listen};
use crate::reload::{PortTls, Served, Validity};
use crate::reload::{Reloaded, ReloadedFiles, Unusable};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::Port;

/// Why a port can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// Its address can't be listened on.
    #[error("failed to listen on {address} ({key}): {source}")]
    Listen {
        /// The address.
        address: String,
        /// The configuration key that names it.
        key: &'static str,
        /// The cause.
        source: std::io::Error,
    },
    /// Its certificate or key can't be used.
    #[error(transparent)]
    File(#[from] Unusable),
}

/// The addresses that an instance listens on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// Envoy's port.
    pub grpc: Listen,
    /// The HTTP port.
    pub http: SocketAddr,
}

/// Both ports, bound.
#[derive(Debug)]
pub(crate) struct Ports {
    /// The addresses; with port 0 in the configuration, the assigned ports.
    pub(crate) addresses: Addresses,
    /// Accepts gateways' connections.
    grpc: Acceptor,
    /// Accepts HTTP connections.
    http: Acceptor,
}

impl Ports {
    /// Reads their certificates, which are followed from then on, and binds the ports.
    pub(crate) async fn open(
        config: &Config,
        times: ConnectionTimes,
        metrics: &Arc<Metrics>,
        reloaded_files: &mut ReloadedFiles,
    ) -> Result<Self, PortError> {
        let mut tls = |port| {
            let Some(PortTls { label, files }) = PortTls::of(config, port) else {
                return Ok(None);
            };
            let followed = Reloaded::load(label, files, Arc::clone(metrics))?;
            let metrics = Arc::clone(metrics);
            let tell = move |served: &Served| {
                let Validity { from, until } = served.validity.unwrap_or_default();
                metrics.certificate(port, from, until);
            };
            tell(&followed.current());
            let followed = Arc::new(followed.then(tell));
            reloaded_files.add(&followed);
            Ok::<_, PortError>(Some(followed))
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

    /// Serves both until `close`, then finishes the calls in progress; one task for each port.
    ///
    /// `max_message_bytes`: the largest gRPC message that `grpc` accepts.
    pub(crate) fn serve(
        self,
        grpc: impl Answers,
        http: impl Answers,
        max_message_bytes: usize,
        close: &CancellationToken,
    ) -> JoinSet<()> {
        let mut servers = JoinSet::new();
        servers.spawn(serve(grpc, self.grpc, max_message_bytes, close.clone()));
        servers.spawn(serve(http, self.http, max_message_bytes, close.clone()));
        servers
    }
}

/// How many files this process may have open.
fn open_files() -> u64 {
    match rlimit::Resource::NOFILE.get() {
        Ok((soft, _)) => soft,
        Err(error) => {
            debug!(%error, "failed to read the limit of open files; assuming the usual minimum");
            1024
        }
    }
}
