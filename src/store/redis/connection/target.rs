//! Where connections come from: the one server that is configured, or the master that sentinels name.
//!
//! Cluster is to become a further case of [`RedisTarget`] and, since its connections have another type, of what is handed out.

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

/// How many calls the client library may hold that it has not written out yet. More than there can be, since a call may ask twice and the keeper
/// asks too: handing one over must not be what a call waits for.
const UNWRITTEN: usize = 2 * in_flight::MOST;

/// How old a connection must be to be replaced because its server has become a replica: a name may lead to the new master by now, but need not.
const REPLACEABLE_AFTER: Duration = Duration::from_secs(5);

/// How long a peer may be silent before the system asks whether it is still there, how often it asks, and after how many questions without
/// an answer it is gone. The keeper asks more often; this is for what it doesn't watch: sentinels' connections, and those it has given up.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(5), Duration::from_secs(1), 3);

/// How long what was sent may stay without an acknowledgement: as long. Without it, the system tries for a quarter of an hour.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(8);

/// Where connections come from.
#[derive(Debug, Clone)]
pub enum RedisTarget {
    /// One server, as its URL says it.
    Standalone(ConnectionInfo),
    /// The master that these name.
    Sentinel(Sentinels),
}

/// A server, and by which word it is used.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RedisServer {
    /// Where it is, for people; without secrets.
    pub(super) place: String,
    /// Where it is.
    pub(super) address: ConnectionAddr,
    /// The number of the sentinels' configuration by which it is the master; 0 without sentinels.
    pub(super) epoch: u64,
}

impl RedisServer {
    /// The server there, by a configuration of that number.
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
    /// The connection, to a server that is ready to serve us.
    pub(super) link: Link,
    /// Where it leads.
    pub(super) server: RedisServer,
}

/// A connection that tells when it has ended.
#[derive(Debug, Clone)]
pub(super) struct Link {
    /// Where calls are made.
    pub(super) calls: MultiplexedConnection,
    /// Cancelled once the connection has ended, on either side, idle or not.
    pub(super) ended: CancellationToken,
}

/// Signals the end of a connection: the client library drops its push sender then.
struct EndSignal {
    /// Cancels [`Link::ended`] when it is dropped.
    _guard: DropGuard,
}

impl AsyncPushSender for EndSignal {
    /// Nothing that a server pushes has been asked for. The end is pushed too, and then this is dropped.
    fn send(&self, _: PushInfo) -> Result<(), SendError> {
        Ok(())
    }
}

impl RedisTarget {
    /// Sees to it that connections can be made.
    ///
    /// # Errors
    /// An address can't be used at all.
    pub(in crate::store::redis) fn prepare(&self) -> Result<(), StoreError> {
        match self {
            Self::Standalone(server) => prepare(server),
            Self::Sentinel(sentinels) => sentinels.peers().try_for_each(prepare),
        }
    }

    /// Where this leads, for people; without secrets.
    pub(in crate::store::redis) fn place(&self) -> String {
        match self {
            Self::Standalone(server) => place(server.addr()),
            Self::Sentinel(sentinels) => format!("the master of {}", sentinels.service),
        }
    }

    /// Who says where that is, for people.
    pub(super) fn sentinels(&self) -> Option<String> {
        match self {
            Self::Standalone(_) => None,
            Self::Sentinel(sentinels) => Some(sentinels.names()),
        }
    }

    /// The number of the database.
    pub(super) fn database(&self) -> i64 {
        match self {
            Self::Standalone(server) => server.redis_settings().db(),
            Self::Sentinel(sentinels) => sentinels.master.redis_settings().db(),
        }
    }

    /// Whom calls are made to.
    pub(super) const fn peer(&self) -> ServerRole {
        match self {
            Self::Standalone(_) => ServerRole::Standalone,
            Self::Sentinel(_) => ServerRole::Master,
        }
    }

    /// How old a connection has to be to be given up because its server has become a replica. A new one that sentinels have a say in leads to a master.
    pub(super) const fn replaceable_after(&self) -> Duration {
        match self {
            Self::Standalone(_) => REPLACEABLE_AFTER,
            Self::Sentinel(_) => Duration::ZERO,
        }
    }

    /// Makes a connection to a server that is ready to serve us.
    ///
    /// # Errors
    /// There is none, it can't be reached, or it is not ready.
    pub(super) async fn connect(&self) -> Result<Connected, StoreError> {
        let server = match self {
            Self::Standalone(server) => server,
            Self::Sentinel(sentinels) => return sentinels.connect().await,
        };
        let link = ready_link(server.clone()).await;
        let link = link.map_err(|error| error::of_connecting(&error, self.peer()))?;
        let server = RedisServer::new(server.addr().clone(), 0);
        Ok(Connected { link, server })
    }

    /// Waits until another server is to be used than that one; what to end the connection with.
    pub(super) async fn other_than(
        &self,
        used: &RedisServer,
        told: &mut SentinelLog,
    ) -> StoreError {
        match self {
            Self::Standalone(_) => future::pending().await,
            Self::Sentinel(sentinels) => sentinels.other_than(used.clone(), told).await,
        }
    }

    /// The failure to connect, where nothing has come of it within that time.
    pub(super) fn silence(&self, limit: Duration) -> StoreError {
        match self {
            Self::Standalone(server) => error::of_silence(limit, server),
            Self::Sentinel(sentinels) => error::of_silence(limit, &sentinels.master),
        }
    }
}

/// Where a server is, for people; without secrets. The library leaves out the brackets that part an address of IPv6 from the port.
pub(super) fn place(address: &ConnectionAddr) -> String {
    match address {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. }
            if host.contains(':') =>
        {
            format!("[{host}]:{port}")
        }
        _ => address.to_string(),
    }
}

/// Sees to it that connections to that server can be made.
fn prepare(server: &ConnectionInfo) -> Result<(), StoreError> {
    if matches!(server.addr(), ConnectionAddr::TcpTls { .. }) {
        // The client library leaves this choice to the process, and panics where none was made. That somebody has made it is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    let client = redis::Client::open(server.clone());
    let unusable = |error| error::of_connecting(&error, ServerRole::Standalone);
    client.map(drop).map_err(unusable)
}

/// A connection to that server. Deadlines are the callers' own.
///
/// # Errors
/// It can't be reached, or refuses us.
pub(super) async fn link(server: ConnectionInfo) -> Result<Link, RedisError> {
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
/// RESP3 because the client library requires it for push senders. `TCP_NODELAY` so that a small call doesn't wait until what was sent before it
/// has been acknowledged, and keepalives so that the system finds out when the peer is gone; Unix sockets have neither.
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

/// That failure to connect, without what a server that doesn't know HELLO repeats of its arguments: the user and the password are among them.
fn without_credentials(error: RedisError) -> RedisError {
    let unknown = error
        .detail()
        .filter(|detail| detail.starts_with("unknown command"));
    // Other commands carry no secret, and what can be done about them is another matter.
    if unknown.is_some_and(|detail| detail.to_ascii_uppercase().contains("HELLO")) {
        return (ErrorKind::RESP3NotSupported, "it does not know HELLO").into();
    }
    error
}

/// A connection to that server, which is ready to serve us.
///
/// # Errors
/// It can't be reached, refuses us, or is not ready.
pub(super) async fn ready_link(server: ConnectionInfo) -> Result<Link, RedisError> {
    let mut link = link(server).await?;
    ping(&mut link.calls).await?;
    Ok(link)
}

/// Asks for a sign of life. That we may not ask is one too: what we need may be allowed all the same. So is that the server takes no writes: to
/// connect anew would not change that, and what it is asked meanwhile tells so itself.
///
/// # Errors
/// None came, or the server is not ready: it is loading, or wants a password.
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

    /// A connection to a server that gives each command that answer; without one, a connection that the server has ended.
    #[expect(
        clippy::disallowed_methods,
        reason = "the task ends with the connection"
    )]
    pub(in crate::store::redis::connection) async fn connection(
        answer: Option<&'static [u8]>,
    ) -> MultiplexedConnection {
        let (ours, mut theirs) = tokio::io::duplex(4096);
        // So nothing is sent to begin with.
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
    fn small_calls_go_at_once_and_the_system_finds_out_that_a_peer_is_gone() {
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
        // A server repeats the first 128 bytes of the arguments, and so a part of a long password.
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
        // Whatever else it says is told, whichever words the password may have in common with it.
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
        let source = RedisTarget::Sentinel(sentinels);
        assert_eq!(source.place(), "the master of tv");
        assert_eq!(source.sentinels().unwrap(), "s1:26379, s2:7000");
        assert!(!format!("{source:?}").contains("hunter2"), "{source:?}");
        let source = RedisTarget::Standalone(server("redis://[::1]:7000"));
        assert_eq!(source.place(), "[::1]:7000");
        let source = RedisTarget::Standalone(server("redis://:hunter2@cache"));
        assert_eq!(source.place(), "cache:6379");
        assert_eq!(source.sentinels(), None);
        assert!(!format!("{source:?}").contains("hunter2"), "{source:?}");
    }
}
