//! Where a connection comes from: one server, or the master that sentinels name.

use std::future;
use std::time::Duration;

use redis::{ConnectionAddr, ConnectionInfo};

use super::link::{Link, ready_link};
use super::sentinel::{SentinelLog, Sentinels};
use crate::store::StoreError;
use crate::store::redis::error::{self, ServerRole};

/// How old a connection must be before we replace it because its server has become a replica: by
/// then its name may resolve to the new master.
const REPLACEABLE_AFTER: Duration = Duration::from_secs(5);

/// The time limit of one connection attempt, everything included.
const ATTEMPT: Duration = Duration::from_secs(2);

/// The same for a node of a cluster: much shorter than a failover, so that a node that swallows
/// what is sent to it doesn't delay the attempt that would succeed.
const ATTEMPT_AT_NODE: Duration = Duration::from_millis(500);

/// Where one connection comes from.
#[derive(Debug, Clone)]
pub(in crate::store::redis) enum ConnectionSource {
    /// That server, which has that role.
    Server(ConnectionInfo, ServerRole),
    /// The master that these sentinels name.
    Sentinel(Sentinels),
}

/// A server, and the configuration that named it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RedisServer {
    /// Its address, for display and without secrets.
    pub(super) place: String,
    /// Its address.
    pub(super) address: ConnectionAddr,
    /// The number of the sentinels' configuration that names it as the master; 0 without sentinels.
    pub(super) epoch: u64,
}

impl RedisServer {
    /// The server at that address, from a configuration with that number.
    pub(super) fn new(address: ConnectionAddr, epoch: u64) -> Self {
        Self {
            place: place(&address),
            address,
            epoch,
        }
    }
}

/// A connection that was made.
#[derive(Debug)]
pub(super) struct Connected {
    /// The connection to a server that is ready to serve us.
    pub(super) link: Link,
    /// The server it leads to.
    pub(super) server: RedisServer,
}

impl ConnectionSource {
    /// The destination, for display and without secrets.
    pub(in crate::store::redis) fn place(&self) -> String {
        match self {
            Self::Server(server, _) => place(server.addr()),
            Self::Sentinel(sentinels) => sentinels.place(),
        }
    }

    /// The sentinels, for display.
    pub(super) fn sentinels(&self) -> Option<String> {
        match self {
            Self::Server(..) => None,
            Self::Sentinel(sentinels) => Some(sentinels.names()),
        }
    }

    /// The number of the database.
    pub(super) fn database(&self) -> i64 {
        match self {
            Self::Server(server, _) => server.redis_settings().db(),
            Self::Sentinel(sentinels) => sentinels.master.redis_settings().db(),
        }
    }

    /// The role of the server that calls are made to.
    pub(super) const fn peer(&self) -> ServerRole {
        match self {
            Self::Server(_, role) => *role,
            Self::Sentinel(_) => ServerRole::Master,
        }
    }

    /// How old a connection must be before we close it because its server has become a replica.
    /// With sentinels, a new connection leads to a master.
    pub(super) const fn replaceable_after(&self) -> Duration {
        match self {
            Self::Server(..) => REPLACEABLE_AFTER,
            Self::Sentinel(_) => Duration::ZERO,
        }
    }

    /// Connects to a server that is ready to serve us.
    ///
    /// # Errors
    /// There is no server, it can't be reached, or it is not ready.
    pub(super) async fn connect(&self) -> Result<Connected, StoreError> {
        let server = match self {
            Self::Server(server, _) => server,
            Self::Sentinel(sentinels) => return sentinels.connect().await,
        };
        let link = ready_link(server.clone()).await;
        let link = link.map_err(|error| error::of_connecting(&error, self.peer()))?;
        let server = RedisServer::new(server.addr().clone(), 0);
        Ok(Connected { link, server })
    }

    /// Waits until another server than that one should be used; returns the error to close the
    /// connection with.
    pub(super) async fn other_than(
        &self,
        used: &RedisServer,
        told: &mut SentinelLog,
    ) -> StoreError {
        match self {
            Self::Server(..) => future::pending().await,
            Self::Sentinel(sentinels) => sentinels.other_than(used.clone(), told).await,
        }
    }

    /// The time limit of one connection attempt.
    pub(super) const fn attempt(&self) -> Duration {
        match self {
            Self::Server(_, ServerRole::Node) => ATTEMPT_AT_NODE,
            Self::Server(..) | Self::Sentinel(_) => ATTEMPT,
        }
    }

    /// The error if a connection attempt has no result within its time.
    pub(super) fn silence(&self) -> StoreError {
        let server = match self {
            Self::Server(server, _) => server,
            Self::Sentinel(sentinels) => &sentinels.master,
        };
        error::of_silence(self.attempt(), server)
    }
}

/// A server's address, for display and without secrets. The library omits the brackets that
/// separate an IPv6 address from the port.
pub(in crate::store::redis) fn place(address: &ConnectionAddr) -> String {
    match address {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. }
            if host.contains(':') =>
        {
            format!("[{host}]:{port}")
        }
        _ => address.to_string(),
    }
}

/// A server at that address, to be connected to as to that one.
pub(in crate::store::redis) fn at(
    like: &ConnectionInfo,
    host: String,
    port: u16,
) -> ConnectionInfo {
    let address = match like.addr().clone() {
        ConnectionAddr::TcpTls {
            insecure,
            tls_params,
            ..
        } => ConnectionAddr::TcpTls {
            host,
            port,
            insecure,
            tls_params,
        },
        _ => ConnectionAddr::Tcp(host, port),
    };
    like.clone().set_addr(address)
}

/// Ensures that connections to that server can be made.
///
/// # Errors
/// Its address can't be used at all.
pub(in crate::store::redis) fn prepare(server: &ConnectionInfo) -> Result<(), StoreError> {
    if matches!(server.addr(), ConnectionAddr::TcpTls { .. }) {
        // The client library expects the process to install a provider, and panics if there is
        // none. An error means that one is installed already, which is fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    let client = redis::Client::open(server.clone());
    let unusable = |error| error::of_connecting(&error, ServerRole::Standalone);
    client.map(drop).map_err(unusable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_shows_where_it_leads_and_no_password() {
        let server = |url: &str| url.parse::<ConnectionInfo>().unwrap();
        let sentinels = Sentinels {
            sentinels: vec![
                server("redis://:hunter2@s1:26379"),
                server("redis://s2:7000"),
            ],
            service: "tv".to_owned(),
            master: server("rediss://gate:hunter2@tv/2"),
        };
        let source = ConnectionSource::Sentinel(sentinels);
        assert_eq!(source.place(), "the master of tv");
        assert_eq!(source.sentinels().unwrap(), "s1:26379, s2:7000");
        assert!(!format!("{source:?}").contains("hunter2"), "{source:?}");
        let alone = |url| ConnectionSource::Server(server(url), ServerRole::Standalone);
        let source = alone("redis://[::1]:7000");
        assert_eq!(source.place(), "[::1]:7000");
        let source = alone("redis://:hunter2@cache");
        assert_eq!(source.place(), "cache:6379");
        assert_eq!(source.sentinels(), None);
        assert!(!format!("{source:?}").contains("hunter2"), "{source:?}");
    }
}
