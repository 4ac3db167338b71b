//! Serving the two ports until they are closed, and then those whose calls are under way.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Router as GrpcRouter;
use tracing::debug;

use super::RunError;
use super::accept::Acceptor;
use super::connection::Connection;

/// The largest head of an HTTP/1 request, and of an HTTP/2 one: more than browsers send with all their cookies.
const MAX_HEAD_BYTES: (usize, u32) = (64 * 1024, 32 * 1024);

/// How many requests one HTTP/2 connection may have under way.
const MAX_STREAMS: u32 = 200;

/// How long an HTTP/2 connection may be silent before it is asked for a sign of life, and how long that may take.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));

/// Serves Envoy until `close`, and then those whose calls are under way.
pub(super) async fn serve_grpc(
    router: GrpcRouter,
    acceptor: Acceptor,
    close: CancellationToken,
) -> Result<(), RunError> {
    let (send, accepted) = mpsc::channel(1);
    let accepting = acceptor.each(close.clone(), move |connection| {
        let send = send.clone();
        async move {
            // Nobody takes it once the port is closed.
            drop(send.send(Ok::<_, Infallible>(connection)).await);
        }
    });
    let accepted = ReceiverStream::new(accepted);
    let serving = router.serve_with_incoming_shutdown(accepted, close.cancelled_owned());
    tokio::select! {
        served = serving => served.map_err(|error| RunError::Grpc(error.to_string())),
        never = async { accepting.await; std::future::pending().await } => never,
    }
}

/// Serves everybody else until `close`, and then those whose calls are under way.
pub(super) async fn serve_http(
    router: Router,
    acceptor: Acceptor,
    close: CancellationToken,
) -> Result<(), RunError> {
    let quiet = acceptor.times.quiet;
    let server = Arc::new(server(quiet));
    let closing = close.clone();
    let serve = move |connection| {
        let (server, router, closing) = (Arc::clone(&server), router.clone(), closing.clone());
        async move { serve_one(&server, router, connection, quiet, closing).await }
    };
    acceptor.each(close, serve).await;
    Ok(())
}

/// How HTTP is spoken, in whichever version a client chooses.
fn server(quiet: Duration) -> Builder<TokioExecutor> {
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
        .keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1);
    server
}

/// Serves one connection until its client leaves, or has been asked to leave: because the port is closed, or because nothing has been asked
/// for too long. Who doesn't heed the latter is left.
async fn serve_one(
    server: &Builder<TokioExecutor>,
    router: Router,
    connection: Connection,
    quiet: Duration,
    close: CancellationToken,
) {
    let calls = Arc::new(Calls::default());
    let (door, counted) = (TowerToHyperService::new(router), Arc::clone(&calls));
    let service = service_fn(move |request: Request<Incoming>| {
        let call = Calls::begin(&counted);
        let answer = hyper::service::Service::call(&door, request);
        async move {
            let _call = call;
            answer.await
        }
    });
    let mut serving = pin!(server.serve_connection(TokioIo::new(connection), service));
    let (mut is_closed, mut is_quiet) = (false, false);
    loop {
        tokio::select! {
            ended = serving.as_mut() => {
                if let Err(error) = ended {
                    debug!(%error, "a connection ended badly");
                }
                return;
            }
            () = close.cancelled(), if !is_closed => is_closed = true,
            () = calls.quiet(quiet) => {
                if is_quiet {
                    return;
                }
                is_quiet = true;
            }
        }
        serving.as_mut().graceful_shutdown();
    }
}

/// The calls over one connection.
#[derive(Debug, Default)]
struct Calls {
    /// How many there have been.
    begun: AtomicUsize,
    /// How many wait for their answer.
    under_way: AtomicUsize,
}

/// A call that waits for its answer.
#[must_use]
struct Call(Arc<Calls>);

impl Calls {
    fn begin(calls: &Arc<Self>) -> Call {
        calls.begun.fetch_add(1, Ordering::Relaxed);
        calls.under_way.fetch_add(1, Ordering::Relaxed);
        Call(Arc::clone(calls))
    }

    /// Returns when none has begun or waited for so long.
    async fn quiet(&self, span: Duration) {
        loop {
            let begun = self.begun.load(Ordering::Relaxed);
            tokio::time::sleep(span).await;
            let has_begun = self.begun.load(Ordering::Relaxed) != begun;
            if !has_begun && self.under_way.load(Ordering::Relaxed) == 0 {
                return;
            }
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}
