//! Serves the two ports until they are closed, then finishes the calls in progress.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::BoxError;
use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::service::{Service, service_fn};
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::acceptor::Acceptor;
use super::bounds::{CountedBody, answered, counted};
use super::connection::Connection;
use super::gather::{Gathered, Gatherer};
use super::peer::Peer;
use crate::events::Hangup;
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

/// Answers the requests to a port.
pub(crate) trait Answers:
    Service<
        Request<CountedBody>,
        Response = Response<Self::Answer>,
        Error = Infallible,
        Future: Send + 'static,
    > + Send
    + Sync
    + 'static
{
    /// The body of an answer.
    type Answer: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static;
}

impl<S, B> Answers for S
where
    S: Service<
            Request<CountedBody>,
            Response = Response<B>,
            Error = Infallible,
            Future: Send + 'static,
        > + Send
        + Sync
        + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Answer = B;
}

/// Serves the connections to one port.
struct Server<A> {
    /// The port.
    port: Port,
    /// Answers requests.
    answers: A,
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
    answers: impl Answers,
    acceptor: Acceptor,
    max_message_bytes: usize,
    close: CancellationToken,
) {
    let server = Arc::new(Server {
        port: acceptor.port,
        answers,
        max_message_bytes: match acceptor.port {
            Port::Grpc => Some(max_message_bytes),
            Port::Http => None,
        },
        quiet: acceptor.times.quiet,
        close: close.clone(),
    });
    let serve = move |connection| Arc::clone(&server).serve(connection);
    acceptor.each(close, serve).await;
}

/// A server for gRPC: HTTP/2 only.
fn grpc_server(gatherer: Gatherer) -> Builder<Gatherer> {
    let mut server = Builder::new(gatherer).http2_only();
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
        // No client of gRPC reads it.
        .auto_date_header(false)
        .keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1);
    server
}

/// A server for HTTP, in the version that a client chooses.
fn http_server(gatherer: Gatherer, quiet: Duration) -> Builder<Gatherer> {
    let mut server = Builder::new(gatherer);
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

impl<A: Answers> Server<A> {
    /// Serves one connection until its client leaves or is asked to leave: when the port is closed,
    /// when it has made no request in time, and at the HTTP port when it has been idle for too
    /// long. A client that ignores either of the latter two is disconnected after the same time
    /// again.
    async fn serve(self: Arc<Self>, connection: Connection) {
        let peer = Arc::clone(connection.peer());
        let (server, asking) = (Arc::clone(&self), Arc::clone(&peer));
        let hangup = (self.port == Port::Http).then(Hangup::default);
        let hung_up = hangup.clone().unwrap_or_default().0;
        let max_message_bytes = self.max_message_bytes;
        let service = service_fn(move |request: Request<Incoming>| {
            let (mut request, share) = counted(&asking, max_message_bytes, request);
            if let Some(hangup) = &hangup {
                request.extensions_mut().insert(hangup.clone());
            }
            let answer = server.answers.call(request);
            async move {
                let answer = answer.await?;
                Ok::<_, Infallible>(answer.map(|body| answered(body, share)))
            }
        });
        let mut gathered = Gathered::default();
        let protocol = match self.port {
            Port::Grpc => grpc_server(gathered.gatherer()),
            Port::Http => http_server(gathered.gatherer(), self.quiet),
        };
        let mut serving = pin!(protocol.serve_connection(TokioIo::new(connection), service));
        let may_be_idle = |peer: &Peer| max_message_bytes.is_some() && peer.has_asked();
        let (mut is_closed, mut is_quiet) = (false, false);
        loop {
            tokio::select! {
                ended = poll_fn(|cx| gathered.poll(serving.as_mut(), cx)) => {
                    if let Err(error) = ended {
                        debug!(%error, "a connection ended with an error");
                    }
                    return;
                }
                () = hung_up.cancelled() => return,
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

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll};

    use http_body_util::Full;
    use testkit::frames;
    use tokio::io::{
        AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex,
    };
    use tokio::task::JoinSet;

    use super::super::connection::Places;
    use super::*;
    use crate::telemetry::Metrics;

    /// How many requests are in flight.
    const IN_FLIGHT: u32 = 64;

    /// How often as many are sent.
    const ROUNDS: u32 = 20;

    /// A wire that counts the writes to it: over TCP each is a system call.
    struct CountingWire {
        wire: DuplexStream,
        writes: Arc<AtomicUsize>,
    }

    impl AsyncRead for CountingWire {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<std::io::Result<()>> {
            Pin::new(&mut self.wire).poll_read(cx, buffer)
        }
    }

    impl AsyncWrite for CountingWire {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<std::io::Result<usize>> {
            self.writes.fetch_add(1, Ordering::SeqCst);
            Pin::new(&mut self.wire).poll_write(cx, bytes)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Pin::new(&mut self.wire).poll_flush(cx)
        }

        fn poll_shutdown(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<std::io::Result<()>> {
            Pin::new(&mut self.wire).poll_shutdown(cx)
        }
    }

    /// Reads until as many streams have ended.
    async fn read_ends(wire: &mut DuplexStream, mut count: u32) {
        while count > 0 {
            let mut head = [0; 9];
            wire.read_exact(&mut head).await.unwrap();
            let [high, middle, low, kind, flags, ..] = head;
            let length = u32::from_be_bytes([0, high, middle, low]);
            let mut payload = vec![0; usize::try_from(length).unwrap()];
            wire.read_exact(&mut payload).await.unwrap();
            assert!(kind != 3 && kind != 7, "a reset or a goodbye");
            // Of DATA and HEADERS.
            count -= u32::from(kind < 2 && flags & 1 == 1);
        }
    }

    /// On the runtime with several threads, on which each answer of a task of its own would be
    /// written before the next is made.
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn the_answers_to_requests_in_flight_share_their_writes() {
        let places = Places::new(Port::Grpc, 1, Arc::new(Metrics::new()));
        let place = places.filled(places.try_take().unwrap());
        let (wire, mut gateway) = duplex(1 << 20);
        let writes = Arc::new(AtomicUsize::default());
        let counting = CountingWire {
            wire,
            writes: Arc::clone(&writes),
        };
        let answers = service_fn(async |_: Request<CountedBody>| {
            Ok(Response::new(Full::new(Bytes::from(vec![7; 200]))))
        });
        let server = Arc::new(Server {
            port: Port::Grpc,
            answers,
            max_message_bytes: Some(1024),
            quiet: Duration::from_secs(60),
            close: CancellationToken::new(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(server.serve(Connection::new(counting, place)));
        let hello = [frames::hello(), frames::window_update(1 << 30)].concat();
        gateway.write_all(&hello).await.unwrap();
        let block = frames::Head::post("/").block();
        for round in 0..ROUNDS {
            let streams = (0..IN_FLIGHT).map(|n| 2 * (round * IN_FLIGHT + n) + 1);
            let request = |stream| frames::headers(stream, &block, true);
            let requests: Vec<u8> = streams.flat_map(request).collect();
            gateway.write_all(&requests).await.unwrap();
            read_ends(&mut gateway, IN_FLIGHT).await;
        }
        let (writes, requests) = (writes.load(Ordering::SeqCst), ROUNDS * IN_FLIGHT);
        let most = usize::try_from(requests / 5).unwrap();
        assert!(writes <= most, "{writes} writes for {requests} requests");
    }
}
