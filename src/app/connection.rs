//! One connection to a port of ours, whatever it runs over, and the place that it takes.
//!
//! Places are bounded for each port, so that clients of the HTTP port can't use up the file descriptors that gateways and the store need.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::transport::server::Connected;

use crate::telemetry::Metrics;
use crate::telemetry::metrics::Port;

/// The most HTTP connections at once. What more there were would only wait for the processor.
const MAX_HTTP: u64 = 16_384;

/// What bytes come and go through: TCP, TLS over it, a Unix socket.
pub(super) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<W: AsyncRead + AsyncWrite + Send + Unpin> Wire for W {}

/// A connection that was accepted. Its place is free when it is dropped.
pub(super) struct Connection {
    wire: Box<dyn Wire>,
    _place: Place,
}

/// The places for connections that one port has.
#[derive(Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    port: Port,
    metrics: Arc<Metrics>,
}

/// A place for a connection. It counts as open from when somebody has come to it.
#[must_use]
#[derive(Debug)]
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    port: Port,
    metrics: Arc<Metrics>,
}

/// How many connections each port takes at once: HTTP never more than five eighths of the files that the process may have open, Envoy's port
/// two thirds of the rest. What is left is for the store, the log, and files that are read anew.
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
    /// So many for a port.
    pub(super) fn new(port: Port, count: usize, metrics: Arc<Metrics>) -> Self {
        let free = Arc::new(Semaphore::new(count));
        Self {
            free,
            port,
            metrics,
        }
    }

    /// Takes one if any is free.
    pub(super) fn try_take(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.free).try_acquire_owned().ok()
    }

    /// Takes one as soon as one is free.
    pub(super) async fn take(&self) -> OwnedSemaphorePermit {
        match Arc::clone(&self.free).acquire_owned().await {
            Ok(permit) => permit,
            // Nobody closes it.
            Err(_) => std::future::pending().await,
        }
    }

    /// Somebody has come to one that was taken.
    pub(super) fn filled(&self, permit: OwnedSemaphorePermit) -> Place {
        self.metrics.connection_opened(self.port);
        Place {
            _permit: permit,
            port: self.port,
            metrics: Arc::clone(&self.metrics),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.metrics.connection_closed(self.port);
    }
}

// === impl Connection ===

impl Connection {
    /// One over that wire, in that place.
    pub(super) fn new(wire: impl Wire + 'static, place: Place) -> Self {
        Self {
            wire: Box::new(wire),
            _place: place,
        }
    }
}

impl Connected for Connection {
    /// Nobody asks where a gateway is.
    type ConnectInfo = ();

    fn connect_info(&self) -> Self::ConnectInfo {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_read(cx, buf)
    }
}

/// Says of no wire that it takes several buffers at once: HTTP/2 would then write each answer of 256 bytes and more by a call to the system of
/// its own, instead of many checks' answers by one.
impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write(cx, buf)
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
    async fn answers_are_gathered_whatever_the_wire_can_do() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let places = Places::new(Port::Grpc, 1, metrics);
        let (wire, _other_end) = tokio::net::UnixStream::pair().unwrap();
        assert!(wire.is_write_vectored());
        let place = places.filled(places.try_take().unwrap());
        assert!(!Connection::new(wire, place).is_write_vectored());
    }

    #[tokio::test]
    async fn a_place_is_free_again_when_its_connection_is_gone() {
        let metrics = Arc::new(Metrics::new().unwrap());
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
