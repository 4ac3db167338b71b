//! Serves the two ports until they are closed, then finishes the calls in progress.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::acceptor::Acceptor;
use super::bounds::{answered, counted};
use super::connection::Connection;
use super::peer::Peer;
use crate::telemetry::metrics::{ClosedFor, Port};

/// The largest head of an HTTP/1 and of an HTTP/2 request, in bytes: more than browsers send with
/// all their cookies.
const MAX_HEAD_BYTES: (usize, u32) = (64 * 1024, 32 * 1024);

/// How many concurrent requests one HTTP/2 connection may have.
const MAX_STREAMS: u32 = 200;

/// How many unread bytes one HTTP/2 stream, and one connection, may have in flight.
const WINDOWS: (u32, u32) = (64 * 1024, 256 * 1024);

/// How long an HTTP/2 connection may be silent before it is pinged, and how long the answer may
/// take.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));

/// Limits of one connection to the gRPC port. They far exceed what a gateway needs: each worker of
/// Envoy has one connection, over which it sends some ten checks at a time and one stream for each
/// access logger, and it opens another when the streams run out.
mod grpc {
    /// The number of concurrent requests.
    pub(super) const MAX_STREAMS: u32 = 1024;

    /// The largest header list of a request, in bytes.
    pub(super) const MAX_HEADER_LIST: u32 = 16 * 1024;

    /// How many cancelled requests may wait to be processed before the connection is closed. When a
    /// match ends, many viewers leave during their check at once, and h2's default of 20 would fail
    /// every other check of that gateway.
    pub(super) const MAX_PENDING_RESETS: usize = 2 * MAX_STREAMS as usize;

    /// How many requests are refused, because they are malformed or exceed the concurrent streams,
    /// before the connection is closed.
    pub(super) const MAX_REFUSED: usize = 1024;

    /// How many unread bytes one stream, and one connection, may have in flight.
    pub(super) const WINDOWS: (u32, u32) = (1024 * 1024, 4 * 1024 * 1024);

    /// How many bytes of an answer may wait to be sent.
    pub(super) const MAX_UNSENT: usize = 64 * 1024;
}

/// Serves the connections to one port.
struct Server {
    /// The HTTP implementation.
    protocol: Builder<TokioExecutor>,
    /// Answers requests.
    router: Router,
    /// The largest message that the gRPC port accepts; none at the HTTP port.
    max_message_bytes: Option<usize>,
    /// How long a client may make no request.
    quiet: Duration,
    /// Asks all clients to leave.
    close: CancellationToken,
}

/// Serves a port until `close`, then finishes the calls in progress.
///
/// `max_message_bytes`: the largest message that the gRPC port accepts.
pub(super) async fn serve(
    router: Router,
    acceptor: Acceptor,
    max_message_bytes: usize,
    close: CancellationToken,
) {
    let quiet = acceptor.times.quiet;
    let (protocol, max_message_bytes) = match acceptor.port {
        Port::Grpc => (grpc_server(), Some(max_message_bytes)),
        Port::Http => (http_server(quiet), None),
    };
    let server = Arc::new(Server {
        protocol,
        router,
        max_message_bytes,
        quiet,
        close: close.clone(),
    });
    let serve = move |connection| Arc::clone(&server).serve(connection);
    acceptor.each(close, serve).await;
}

/// A server for gRPC: HTTP/2 only.
fn grpc_server() -> Builder<TokioExecutor> {
    let mut server = Builder::new(TokioExecutor::new()).http2_only();
    server
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(grpc::MAX_STREAMS)
        .max_header_list_size(grpc::MAX_HEADER_LIST)
        .max_pending_accept_reset_streams(grpc::MAX_PENDING_RESETS)
        .max_local_error_reset_streams(grpc::MAX_REFUSED)
        .initial_stream_window_size(grpc::WINDOWS.0)
        .initial_connection_window_size(grpc::WINDOWS.1)
        .max_send_buf_size(grpc::MAX_UNSENT)
        .keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1);
    server
}

/// A server for HTTP, in the version that a client chooses.
fn http_server(quiet: Duration) -> Builder<TokioExecutor> {
    let mut server = Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(quiet)
        .max_buf_size(MAX_HEAD_BYTES.0);
    server
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HEAD_BYTES.1)
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(WINDOWS.0)
        .initial_connection_window_size(WINDOWS.1)
        .keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1);
    server
}

impl Server {
    /// Serves one connection until its client leaves or is asked to leave: when the port is closed,
    /// when it has made no request in time, and at the HTTP port when it has been idle for too
    /// long. A client that ignores either of the latter two is disconnected after the same time
    /// again.
    async fn serve(self: Arc<Self>, connection: Connection) {
        let peer = Arc::clone(connection.peer());
        let (door, asking) = (
            TowerToHyperService::new(self.router.clone()),
            Arc::clone(&peer),
        );
        let max_message_bytes = self.max_message_bytes;
        let service = service_fn(move |request: Request<Incoming>| {
            let (request, share) = counted(&asking, max_message_bytes, request);
            let answer = door.call(request);
            async move {
                let answer = answer.await?;
                Ok::<_, std::convert::Infallible>(answer.map(|body| answered(body, share)))
            }
        });
        let mut serving = pin!(
            self.protocol
                .serve_connection(TokioIo::new(connection), service)
        );
        let may_be_idle = |peer: &Peer| max_message_bytes.is_some() && peer.has_asked();
        let (mut is_closed, mut is_quiet) = (false, false);
        loop {
            tokio::select! {
                ended = serving.as_mut() => {
                    if let Err(error) = ended {
                        debug!(%error, "a connection ended with an error");
                    }
                    return;
                }
                () = self.close.cancelled(), if !is_closed => is_closed = true,
                () = peer.quiet(self.quiet), if !may_be_idle(&peer) => {
                    if may_be_idle(&peer) {
                        continue;
                    }
                    if is_quiet {
                        return;
                    }
                    is_quiet = true;
                    if !peer.has_asked() {
                        peer.leaves(ClosedFor::Silence);
                    }
                }
            }
            serving.as_mut().graceful_shutdown();
        }
    }
}
