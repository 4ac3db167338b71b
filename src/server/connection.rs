//! One connection to one of our ports, over any transport, and the place that it takes.
//!
//! The number of places is bounded for each port, so that clients of the HTTP port can't use up the
//! file descriptors that gateways and the store need.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::warn;

use super::TROUBLE_PERIOD;
use super::frames::Frames;
use super::peer::{Peer, Peers};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::{Http2Error, LabelValue, Port};
use crate::util::Throttle;

/// The most HTTP connections at once. Any more would only wait for the processor.
const MAX_HTTP: u64 = 16_384;

/// The transport of a connection: TCP, TLS over TCP, or a Unix socket.
pub(super) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<W: AsyncRead + AsyncWrite + Send + Unpin> Wire for W {}

/// An accepted connection. Dropping it frees its place.
pub(super) struct Connection {
    /// The transport.
    wire: Box<dyn Wire>,
    /// The HTTP/2 frames sent so far.
    sent: Frames,
    /// Its place.
    place: Place,
}

/// The places for connections at one port.
#[derive(Debug)]
pub(super) struct Places {
    /// The free places.
    free: Arc<Semaphore>,
    /// The peers that hold the others.
    peers: Arc<Peers>,
    /// The metrics and log throttles that the port's connections share.
    told: Arc<Told>,
}

/// A place for a connection. The connection counts as open once a client has taken the place.
#[must_use]
#[derive(Debug)]
pub(super) struct Place {
    /// Frees the place when dropped.
    _permit: OwnedSemaphorePermit,
    /// The peer that holds it.
    peer: Arc<Peer>,
    /// Counts and logs its events.
    told: Arc<Told>,
}

/// Reports a port's connections to operators.
#[derive(Debug)]
struct Told {
    /// The port.
    port: Port,
    /// The counters.
    metrics: Arc<Metrics>,
    /// Throttles the warning about malformed requests.
    malformed: Throttle,
    /// Throttles the warning about floods.
    floods: Throttle,
}

/// How many connections each port accepts at once: HTTP at most five eighths of the files that the
/// process may have open, Envoy's port two thirds of the rest. What remains is for the store, the
/// log, and reloaded files.
pub(super) fn room(open_files: u64) -> (usize, usize) {
    let http = MAX_HTTP.min(open_files / 8 * 5);
    let grpc = open_files.saturating_sub(http) / 3 * 2;
    let places = |count| {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        count.clamp(1, Semaphore::MAX_PERMITS)
    };
    (places(grpc), places(http))
}

// === impl Places, Place ===

impl Places {
    /// That many places for a port.
    pub(super) fn new(port: Port, count: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            free: Arc::new(Semaphore::new(count)),
            peers: Peers::new(port, Arc::clone(&metrics)),
            told: Arc::new(Told {
                port,
                metrics,
                malformed: Throttle::every(TROUBLE_PERIOD),
                floods: Throttle::every(TROUBLE_PERIOD),
            }),
        }
    }

    /// Takes a place if one is free.
    pub(super) fn try_take(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.free).try_acquire_owned().ok()
    }

    /// Waits for a free place and takes it.
    pub(super) async fn take(&self) -> OwnedSemaphorePermit {
        match Arc::clone(&self.free).acquire_owned().await {
            Ok(permit) => permit,
            // The semaphore is never closed.
            Err(_) => std::future::pending().await,
        }
    }

    /// Closes the longest-silent connection that never made a request. Returns false if there is
    /// none.
    pub(super) fn make_free(&self) -> bool {
        self.peers.close_most_silent()
    }

    /// Assigns a taken place to a client.
    pub(super) fn filled(&self, permit: OwnedSemaphorePermit) -> Place {
        self.told.metrics.connection_opened(self.told.port);
        Place {
            _permit: permit,
            peer: self.peers.join(),
            told: Arc::clone(&self.told),
        }
    }
}

impl Place {
    /// The peer that holds the place.
    pub(super) fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.told.metrics.connection_closed(self.told.port);
    }
}

// === impl Told ===

impl Told {
    /// Counts an HTTP/2 error that we sent, and occasionally warns about it.
    fn error(&self, error: Http2Error) {
        self.metrics.http2_error(self.port, error);
        let (port, text) = (self.port.as_str(), error.as_str());
        match error {
            Http2Error::ResetProtocol | Http2Error::GoAwayProtocol
                if self.port == Port::Grpc && self.malformed.is_due() =>
            {
                warn!(
                    port,
                    error = text,
                    "refused a malformed HTTP/2 request; if it was a check by Envoy, its `:authority` is probably not a host name: set `authority: streamgate` in `envoy_grpc` and `grpc_health_check`, because Envoy sends its cluster's name by default; otherwise its headers may be larger than 16 KiB"
                );
            }
            Http2Error::ResetCalm | Http2Error::GoAwayCalm if self.floods.is_due() => {
                warn!(
                    port,
                    error = text,
                    "closed a connection that flooded the port"
                );
            }
            _ => {}
        }
    }
}

// === impl Connection ===

impl Connection {
    /// A connection over that transport, in that place.
    pub(super) fn new(wire: impl Wire + 'static, place: Place) -> Self {
        Self {
            wire: Box::new(wire),
            sent: Frames::default(),
            place,
        }
    }

    /// The peer at the other end.
    pub(super) fn peer(&self) -> &Arc<Peer> {
        self.place.peer()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.wire).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.place.peer.heard();
        }
        read
    }
}

/// Doesn't offer vectored writes: with them, HTTP/2 would write each answer of 256 bytes or more
/// with a system call of its own, instead of many checks' answers with one.
impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let count = ready!(Pin::new(&mut this.wire).poll_write(cx, buf))?;
        let told = &this.place.told;
        this.sent
            .follow(buf.get(..count).unwrap_or_default(), |error| {
                told.error(error);
            });
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_clients_can_not_use_up_the_file_descriptors() {
        for (open_files, grpc, http) in [
            (0, 1, 1),
            (256, 64, 160),
            (1_024, 256, 640),
            (20_000, 5_000, 12_500),
            (65_536, 32_768, 16_384),
            (1 << 20, 688_128, 16_384),
            (u64::MAX, Semaphore::MAX_PERMITS, 16_384),
        ] {
            let room = room(open_files);
            assert_eq!(room, (grpc, http), "{open_files}");
        }
    }

    #[tokio::test]
    async fn answers_are_batched_on_any_wire() {
        let metrics = Arc::new(Metrics::new());
        let places = Places::new(Port::Grpc, 1, metrics);
        let (wire, _other_end) = tokio::net::UnixStream::pair().unwrap();
        assert!(wire.is_write_vectored());
        let place = places.filled(places.try_take().unwrap());
        assert!(!Connection::new(wire, place).is_write_vectored());
    }

    #[tokio::test]
    async fn a_place_is_free_again_when_its_connection_is_gone() {
        let metrics = Arc::new(Metrics::new());
        let open = |count: usize| format!("streamgate_connections{{port=\"http\"}} {count}\n");
        let places = Places::new(Port::Http, 1, Arc::clone(&metrics));
        let permit = places.try_take().unwrap();
        assert!(metrics.render().contains(&open(0)), "nobody has come yet");
        let (wire, _other_end) = tokio::io::duplex(1);
        let connection = Connection::new(wire, places.filled(permit));
        assert!(metrics.render().contains(&open(1)));
        assert!(places.try_take().is_none());
        drop(connection);
        assert!(metrics.render().contains(&open(0)));
        drop(places.take().await);
    }
}
