//! One connection: its settings, how it is made, and how its end is noticed.

use std::time::Duration;

use redis::aio::{AsyncPushSender, MultiplexedConnection, SendError};
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, ConnectionInfo, ErrorKind, ProtocolVersion, PushInfo, RedisError,
};
use socket2::TcpKeepalive;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::in_flight;

/// How many calls the client library may hold that it hasn't written out yet. It exceeds the
/// possible number of calls, since a call may ask twice and the keeper asks too, so that a call
/// never waits to be handed over.
const UNWRITTEN: usize = 2 * in_flight::MOST;

/// How long a peer may be silent before the system probes it, how often it probes, and after how
/// many unanswered probes the peer is gone. The keeper pings more often; this is for connections
/// that it doesn't watch: those to sentinels, and abandoned ones.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(2), Duration::from_secs(1), 3);

/// How long sent data may stay unacknowledged: the same time. Without it, the system retries for a
/// quarter of an hour.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(5);

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

/// Connects to that server. The caller sets the deadline.
///
/// # Errors
/// The server can't be reached, or refuses us.
pub(in crate::store::redis) async fn link(server: ConnectionInfo) -> Result<Link, RedisError> {
    let ended = CancellationToken::new();
    let ending = EndSignal {
        _guard: ended.clone().drop_guard(),
    };
    let calls = with_pushes(server, ending).await?;
    Ok(Link { calls, ended })
}

/// Connects to that server, whose push messages go to `pushes`. The caller sets the deadline.
///
/// # Errors
/// The server can't be reached, or refuses us.
pub(in crate::store::redis) async fn with_pushes(
    server: ConnectionInfo,
    pushes: impl AsyncPushSender,
) -> Result<MultiplexedConnection, RedisError> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(None)
        .set_response_timeout(None)
        .set_pipeline_buffer_size(UNWRITTEN)
        .set_push_sender(pushes);
    let client = redis::Client::open(tuned(server))?;
    let made = client.get_multiplexed_async_connection_with_config(&config);
    made.await.map_err(without_credentials)
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
    use crate::store::redis::error::{self, ServerRole};

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
}
