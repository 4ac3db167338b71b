//! Where a connection comes from: one server, or the master that sentinels name.

use std::future;
use std::time::Duration;

use redis::aio::{AsyncPushSender, MultiplexedConnection, SendError};
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, ErrorKind, ProtocolVersion, PushInfo,
    RedisError,
};
use socket2::TcpKeepalive;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::in_flight;
use super::sentinel::{SentinelLog, Sentinels};
use crate::store::StoreError;
use crate::store::redis::error::{self, ServerRole};

/// How many calls the client library may hold that it hasn't written out yet. It exceeds the
/// possible number of calls, since a call may ask twice and the keeper asks too, so that a call
/// never waits to be handed over.
const UNWRITTEN: usize = 2 * in_flight::MOST;

/// How old a connection must be before we replace it because its server has become a replica: by
/// then its name may resolve to the new master.
const REPLACEABLE_AFTER: Duration = Duration::from_secs(5);

/// How long a peer may be silent before the system probes it, how often it probes, and after how
/// many unanswered probes the peer is gone. The keeper pings more often; this is for connections
/// that it doesn't watch: those to sentinels, and abandoned ones.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(2), Duration::from_secs(1), 3);

/// How long sent data may stay unacknowledged: the same time. Without it, the system retries for a
/// quarter of an hour.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(5);

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

/// A connection that signals when it has ended.
#[derive(Debug, Clone)]
pub(in crate::store::redis) struct Link {
    /// The handle for calls.
    pub(in crate::store::redis) calls: MultiplexedConnection,
    /// Cancelled once the connection has ended, on either side, idle or not.
    pub(super) ended: CancellationToken,
}

/// Signals the end of a connection: the client library drops its push sender then.
struct EndSignal {
    /// Cancels [`Link::ended`] when dropped.
    _guard: DropGuard,
}

impl AsyncPushSender for EndSignal {
    /// We request no push messages. The end of the connection is pushed too, and then this is
    /// dropped.
    fn send(&self, _: PushInfo) -> Result<(), SendError> {
        Ok(())
    }
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

/// Connects to that server. The caller sets the deadline.
///
/// # Errors
/// The server can't be reached, or refuses us.
pub(in crate::store::redis) async fn link(server: ConnectionInfo) -> Result<Link, RedisError> {
    let ended = CancellationToken::new();
    let ending = EndSignal {
        _guard: ended.clone().drop_guard(),
    };
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(None)
        .set_response_timeout(None)
        .set_pipeline_buffer_size(UNWRITTEN)
        .set_push_sender(ending);
    let client = redis::Client::open(tuned(server))?;
    let made = client.get_multiplexed_async_connection_with_config(&config);
    let calls = made.await.map_err(without_credentials)?;
    Ok(Link { calls, ended })
}

/// The server with our protocol and TCP settings.
///
/// RESP3 because the client library requires it for push senders. `TCP_NODELAY` so that a small
/// call doesn't wait for the acknowledgement of earlier data, and keepalives so that the system
/// notices when the peer is gone; Unix sockets have neither.
fn tuned(server: ConnectionInfo) -> ConnectionInfo {
    let (idle, interval, retries) = KEEPALIVE;
    let keepalive = TcpKeepalive::new()
        .with_time(idle)
        .with_interval(interval)
        .with_retries(retries);
    let tcp = TcpSettings::default()
        .set_nodelay(true)
        .set_keepalive(keepalive);
    #[cfg(target_os = "linux")]
    let tcp = tcp.set_user_timeout(UNACKNOWLEDGED);
    let redis = server.redis_settings().clone();
    server
        .set_tcp_settings(tcp)
        .set_redis_settings(redis.set_protocol(ProtocolVersion::RESP3))
}

/// The connection error without the arguments that a server quotes if it doesn't know HELLO: they
/// include the user and the password.
fn without_credentials(error: RedisError) -> RedisError {
    let unknown = error
        .detail()
        .filter(|detail| detail.starts_with("unknown command"));
    // Other commands carry no secret, and their hints differ.
    if unknown.is_some_and(|detail| detail.to_ascii_uppercase().contains("HELLO")) {
        return (ErrorKind::RESP3NotSupported, "it does not know HELLO").into();
    }
    error
}

/// Connects to that server, which must be ready to serve us.
///
/// # Errors
/// It can't be reached, refuses us, or is not ready.
pub(super) async fn ready_link(server: ConnectionInfo) -> Result<Link, RedisError> {
    let mut link = link(server).await?;
    ping(&mut link.calls).await?;
    Ok(link)
}

/// Pings the server. A refusal for lack of rights also counts as an answer, because the commands we
/// need may still be allowed. So does a refusal of writes: reconnecting wouldn't change that, and
/// the operations report it themselves.
///
/// # Errors
/// No answer came, or the server is not ready: it is loading, or wants a password.
pub(super) async fn ping(link: &mut MultiplexedConnection) -> Result<(), RedisError> {
    match redis::cmd("PING").query_async(link).await {
        Err(error) if matches!(error.code(), Some("NOPERM" | "MISCONF")) => Ok(()),
        answer => answer,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use redis::RedisConnectionInfo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A connection to a server that answers each command with that text; without a text, the
    /// server has closed the connection.
    #[expect(
        clippy::disallowed_methods,
        reason = "the task ends with the connection"
    )]
    pub(in crate::store::redis::connection) async fn connection(
        answer: Option<&'static [u8]>,
    ) -> MultiplexedConnection {
        let (ours, mut theirs) = tokio::io::duplex(4096);
        // So that nothing is sent at first.
        let settings = RedisConnectionInfo::default().set_skip_set_lib_name();
        let config = AsyncConnectionConfig::new();
        let made = MultiplexedConnection::new_with_config(&settings, ours, config);
        let (calls, client) = made.await.unwrap();
        let server = async move {
            let mut asked = [0; 4096];
            while let (Some(answer), Ok(1..)) = (answer, theirs.read(&mut asked).await) {
                theirs.write_all(answer).await.unwrap();
            }
        };
        tokio::spawn(async { tokio::join!(client, server) });
        calls
    }

    #[test]
    fn connections_have_nodelay_and_keepalive() {
        for url in ["redis://cache", "rediss://gate:secret@cache/2"] {
            let given: ConnectionInfo = url.parse().unwrap();
            let server = tuned(given.clone());
            let tcp = server.tcp_settings();
            assert!(tcp.nodelay() && tcp.keepalive().is_some(), "{tcp:?}");
            let (idle, interval, retries) = KEEPALIVE;
            #[cfg(target_os = "linux")]
            assert_eq!(tcp.user_timeout(), Some(idle + interval * retries));
            let (now, before) = (server.redis_settings(), given.redis_settings());
            assert_eq!(now.password(), before.password());
            assert_eq!((now.username(), now.db()), (before.username(), before.db()));
        }
    }

    #[test]
    fn a_failure_to_connect_never_repeats_the_password() {
        let said = |line: &str| {
            let value = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap();
            let error = without_credentials(value.extract_error().unwrap_err());
            error::of_connecting(&error, ServerRole::Standalone).to_string()
        };
        // A server quotes the first 128 bytes of the arguments, so also a part of a long password.
        let long = "hunter2".repeat(30);
        for (name, password) in [
            ("'HELLO'", "hunter2"),
            ("`HELLO`", &long[..100]),
            ("'hello'", "hunter2"),
        ] {
            let echo = format!(
                "ERR unknown command {name}, with args beginning with: '3' 'AUTH' 'gate' '{password}"
            );
            let said = said(&echo);
            assert!(
                !said.contains("hunter2") && said.contains("Redis 6.2 or newer"),
                "{said}"
            );
        }
        // Any other error is reported, even if it shares words with the password.
        for other in [
            "WRONGPASS invalid username-password pair or user is disabled",
            "ERR unknown command 'SELECT', with args beginning with: '2'",
            "NOAUTH HELLO must be called with the client already authenticated",
        ] {
            assert!(said(other).contains(other), "{other}");
        }
    }

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
