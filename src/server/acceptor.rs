//! Accepts connections. Each takes a place, is prepared in a task of its own (with TLS if the port
//! has it), and is then served there. No client waits for another's handshake, and no error of the
//! operating system stops the port from accepting.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::TROUBLE_PERIOD;
use super::connection::{Connection, Place, Places};
use super::listener::{Listener, Socket};
use crate::reload::Reloaded;
use crate::reload::Served;
use crate::telemetry::metrics::{ClosedFor, LabelValue, Port};
use crate::util::Throttle;

/// How long a peer may be silent before the system probes it, how often it probes, and after how
/// many unanswered probes the peer is gone: half a minute in all.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(15), Duration::from_secs(5), 3);

/// How long sent data may stay unacknowledged. Keepalive doesn't apply while data is in flight.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// How long the acceptor pauses when the system refuses: it has run out of file descriptors or
/// memory, and others must release some.
const REST: Duration = Duration::from_millis(100);

/// Time limits for clients.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionTimes {
    /// The time limit of the TLS handshake.
    pub handshake: Duration,
    /// The time limit of the first request. At the HTTP port, also of each request head and of an
    /// idle connection.
    pub quiet: Duration,
}

impl Default for ConnectionTimes {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            quiet: Duration::from_secs(30),
        }
    }
}

/// Accepts the connections to one port.
#[derive(Debug)]
pub(super) struct Acceptor {
    /// The port.
    pub(super) port: Port,
    /// Its listener.
    pub(super) listener: Listener,
    /// The TLS configuration, if the port has TLS.
    pub(super) tls: Option<Arc<Reloaded<Served>>>,
    /// Bounds the number of connections.
    pub(super) places: Places,
    /// Time limits for clients.
    pub(super) times: ConnectionTimes,
}

/// Throttles for the conditions that keep a port from accepting.
#[derive(Debug)]
struct Trouble {
    /// All places are taken, and one is being freed.
    crowded: Throttle,
    /// All places are taken by connections that have made requests.
    full: Throttle,
    /// The system refuses.
    refused: Throttle,
}

impl Trouble {
    /// Fresh throttles.
    fn new() -> Self {
        Self {
            crowded: Throttle::every(TROUBLE_PERIOD),
            full: Throttle::every(TROUBLE_PERIOD),
            refused: Throttle::every(TROUBLE_PERIOD),
        }
    }
}

// === impl Acceptor ===

impl Acceptor {
    /// Serves each connection in a task of its own until `close`, then waits for those still being
    /// served. Dropping this ends them.
    pub(super) async fn each<S>(
        self,
        close: CancellationToken,
        serve: impl Fn(Connection) -> S + Clone + Send + 'static,
    ) where
        S: Future<Output = ()> + Send,
    {
        let mut connections = JoinSet::new();
        let trouble = Trouble::new();
        // An accepted client waits for its place inside this future, so the future must survive the
        // end of other connections.
        let mut accepting = Box::pin(self.accept(&trouble));
        loop {
            let (socket, permit) = tokio::select! {
                biased;
                () = close.cancelled() => break,
                Some(_) = connections.join_next() => continue,
                accepted = &mut accepting => accepted,
            };
            accepting.set(self.accept(&trouble));
            let place = self.places.filled(permit);
            let peer = Arc::clone(place.peer());
            let served = self.tls.as_ref().map(|tls| tls.current());
            let tls = served.map(|served| Arc::clone(&served.config).into());
            // Boxed separately, so that the memory of a handshake isn't kept as long as its
            // connection.
            let ready = Box::pin(ready(socket, tls, place, self.times.handshake));
            let (serve, close) = (serve.clone(), close.clone());
            peer.served_by(connections.spawn(async move {
                let ready = tokio::select! {
                    () = close.cancelled() => return,
                    ready = ready => ready,
                };
                match ready {
                    Ok(connection) => Box::pin(serve(connection)).await,
                    Err(error) => debug!(%error, "a connection failed before its first request"),
                }
            }));
        }
        drop(accepting);
        // Close the port, so that no new client queues there.
        drop(self.listener);
        while connections.join_next().await.is_some() {}
    }

    /// Accepts the next client and takes a place for it.
    async fn accept(&self, trouble: &Trouble) -> (Socket, OwnedSemaphorePermit) {
        let socket = self.next(trouble).await;
        if let Some(permit) = self.places.try_take() {
            return (socket, permit);
        }
        let port = self.port.as_str();
        if self.places.make_free() {
            if trouble.crowded.is_due() {
                warn!(
                    port,
                    "connection limit reached; closing connections that have made no request"
                );
            }
        } else if trouble.full.is_due() {
            warn!(
                port,
                "connection limit reached; new clients wait in the accept queue"
            );
        }
        (socket, self.places.take().await)
    }

    /// Accepts the next client.
    async fn next(&self, trouble: &Trouble) -> Socket {
        loop {
            match self.listener.accept().await {
                Ok(socket) => return socket,
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    if trouble.refused.is_due() {
                        let port = self.port.as_str();
                        warn!(port, %error, "failed to accept a connection; retrying");
                    }
                    tokio::time::sleep(REST).await;
                }
            }
        }
    }
}

/// Whether the error concerns only a client that left before it was accepted, and not those after
/// it.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused
    )
}

/// The connection, once it can carry requests.
async fn ready(
    socket: Socket,
    tls: Option<TlsAcceptor>,
    place: Place,
    within: Duration,
) -> io::Result<Connection> {
    let (socket, tls) = match (socket, tls) {
        (Socket::Unix(socket), _) => return Ok(Connection::new(socket, place)),
        (Socket::Tcp(socket), tls) => {
            attend(&socket);
            match tls {
                Some(tls) => (socket, tls),
                None => return Ok(Connection::new(socket, place)),
            }
        }
    };
    let Ok(shaken) = tokio::time::timeout(within, tls.accept(socket)).await else {
        place.peer().close(ClosedFor::Silence);
        return Err(ErrorKind::TimedOut.into());
    };
    let shaken = shaken?;
    place.peer().heard();
    Ok(Connection::new(shaken, place))
}

/// Sends small answers immediately, and has the system detect when the peer is gone. Errors are
/// ignored, because the connection also works without.
fn attend(socket: &TcpStream) {
    let (idle, interval, retries) = KEEPALIVE;
    let keepalive = TcpKeepalive::new()
        .with_time(idle)
        .with_interval(interval)
        .with_retries(retries);
    drop(socket.set_nodelay(true));
    let socket = SockRef::from(socket);
    drop(socket.set_tcp_keepalive(&keepalive));
    #[cfg(target_os = "linux")]
    drop(socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lost_peer_is_detected_within_half_a_minute() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await;
        let (socket, _) = listener.accept().await.unwrap();
        attend(&socket);
        assert!(socket.nodelay().unwrap());
        let socket = SockRef::from(&socket);
        assert!(socket.keepalive().unwrap());
        let idle = socket.tcp_keepalive_time().unwrap();
        let asking = socket.tcp_keepalive_interval().unwrap();
        let asking = asking * socket.tcp_keepalive_retries().unwrap();
        assert_eq!(idle + asking, Duration::from_secs(30));
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(idle + asking));
        drop(client);
    }
}
