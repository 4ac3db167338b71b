//! Accepting connections: each gets its place, is made ready in a task of its own, over TLS where the port has it, and is then served there.
//! Nobody waits for anybody else's handshake, and no error of the system's ends the accepting.

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

/// How long a peer may be silent before the system asks whether it is still there, how often it asks, and after how many questions without
/// an answer it is gone: half a minute in all.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(15), Duration::from_secs(5), 3);

/// How long what was sent may stay without an acknowledgement. Keepalive says nothing while something is on its way.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// How long accepting rests when the system refuses: it is out of file descriptors or memory, and needs others to give some back.
const REST: Duration = Duration::from_millis(100);

/// How long clients may take.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionTimes {
    /// For the TLS handshake.
    pub handshake: Duration,
    /// For the first request. At the HTTP port, also for each request head and for an idle connection.
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
    /// Which port.
    pub(super) port: Port,
    /// Where they come from.
    pub(super) listener: Listener,
    /// With what TLS is spoken, if it is.
    pub(super) tls: Option<Arc<Reloaded<Served>>>,
    /// How many at once.
    pub(super) places: Places,
    /// How long they may take.
    pub(super) times: ConnectionTimes,
}

/// What may keep a port from accepting, for as long as it lasts.
#[derive(Debug)]
struct Trouble {
    /// All places are taken, and one is made free.
    crowded: Throttle,
    /// All places are taken by connections that have made requests.
    full: Throttle,
    /// The system refuses.
    refused: Throttle,
}

impl Trouble {
    /// None yet.
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
    /// Serves each connection in a task of its own, until `close`; then waits for those that are still served. Dropped, it ends them.
    pub(super) async fn each<S>(
        self,
        close: CancellationToken,
        serve: impl Fn(Connection) -> S + Clone + Send + 'static,
    ) where
        S: Future<Output = ()> + Send,
    {
        let mut connections = JoinSet::new();
        let trouble = Trouble::new();
        // An accepted client waits for its place inside this future, so the future must survive the end of other connections.
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
            // Each in a box of its own, so that what a handshake takes isn't kept for as long as its connection.
            let ready = Box::pin(ready(socket, tls, place, self.times.handshake));
            let (serve, close) = (serve.clone(), close.clone());
            peer.served_by(connections.spawn(async move {
                let ready = tokio::select! {
                    () = close.cancelled() => return,
                    ready = ready => ready,
                };
                match ready {
                    Ok(connection) => Box::pin(serve(connection)).await,
                    Err(error) => debug!(%error, "a connection came to nothing"),
                }
            }));
        }
        drop(accepting);
        // Close the port, so that no new client queues there.
        drop(self.listener);
        while connections.join_next().await.is_some() {}
    }

    /// The next who comes, and a place for them.
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

    /// The next who comes.
    async fn next(&self, trouble: &Trouble) -> Socket {
        loop {
            match self.listener.accept().await {
                Ok(socket) => return socket,
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    if trouble.refused.is_due() {
                        let port = self.port.as_str();
                        warn!(port, %error, "failed to accept a connection; trying again");
                    }
                    tokio::time::sleep(REST).await;
                }
            }
        }
    }
}

/// Whether it says that somebody has left before being let in, and nothing of those who come after.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused
    )
}

/// The connection, once something can be said over it.
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

/// Sends small answers at once, and has the system find out when the peer is gone. If it can't be had, there is nobody to tell.
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
    async fn the_system_finds_out_within_half_a_minute_that_a_peer_is_gone() {
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
