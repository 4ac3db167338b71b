//! Serving the two ports until they are closed, and then those whose calls are under way.

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

/// The largest head of an HTTP/1 request, and of an HTTP/2 one: more than browsers send with all their cookies.
const MAX_HEAD_BYTES: (usize, u32) = (64 * 1024, 32 * 1024);

/// How many requests one HTTP/2 connection may have under way.
const MAX_STREAMS: u32 = 200;

/// How many bytes of one HTTP/2 stream, and of one connection, may be under way unread.
const WINDOWS: (u32, u32) = (64 * 1024, 256 * 1024);

/// How long an HTTP/2 connection may be silent before it is asked for a sign of life, and how long that may take.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));

/// What one connection to the gRPC port may have under way. Far more than a gateway needs: a worker of Envoy's has one connection, over which
/// it sends some ten checks at a time and one stream for each access logger, and it opens another one when the streams run out.
mod grpc {
    /// How many requests.
    pub(super) const MAX_STREAMS: u32 = 1024;

    /// The largest header list of a request, in bytes.
    pub(super) const MAX_HEADER_LIST: u32 = 16 * 1024;

    /// How many cancelled requests may wait to be noticed before the connection is closed. Viewers who leave during their check come in crowds
    /// when a match ends, and h2's default of 20 would fail every other check of that gateway.
    pub(super) const MAX_PENDING_RESETS: usize = 2 * MAX_STREAMS as usize;

    /// How many requests that are malformed, or more than may be under way, are refused before the connection is closed.
    pub(super) const MAX_REFUSED: usize = 1024;

    /// How many bytes of one stream, and of one connection, may be under way unread.
    pub(super) const WINDOWS: (u32, u32) = (1024 * 1024, 4 * 1024 * 1024);

    /// How many bytes of an answer may wait to be sent.
    pub(super) const MAX_UNSENT: usize = 64 * 1024;
}

/// How the connections to one port are served.
struct Server {
    /// Speaks HTTP.
    protocol: Builder<TokioExecutor>,
    /// Answers requests.
    router: Router,
    /// The largest message that is read, at the gRPC port.
    max_message_bytes: Option<usize>,
    /// How long a client may make no request.
    quiet: Duration,
    /// Asks all clients to leave.
    close: CancellationToken,
}

/// Serves a port until `close`, and then those whose calls are under way.
///
/// `max_message_bytes`: the largest message that is read at the gRPC port.
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

/// How gRPC is spoken: over HTTP/2 alone.
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

/// How HTTP is spoken, in whichever version a client chooses.
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
    /// Serves one connection until its client leaves or is asked to leave. It is asked to when the port is closed, when it has made no request in
    /// time, and at the HTTP port when it has been idle for too long. A client that ignores the latter two for as long again is disconnected.
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
                        debug!(%error, "a connection ended badly");
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
