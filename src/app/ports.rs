//! The two ports: bound before anything is said to be ready, served until they are closed.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::{Router as GrpcRouter, TcpIncoming};

use super::{BuildError, RunError};
use crate::config::Listen;

/// Where an instance listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// Envoy's port.
    pub grpc: Listen,
    /// Everybody else's port.
    pub http: SocketAddr,
}

/// Envoy's port.
#[derive(Debug)]
pub(super) enum GrpcListener {
    /// Over TCP.
    Tcp(TcpListener),
    /// Over a Unix socket.
    Unix(UnixListener, SocketFile),
}

/// The file of a Unix socket that is listened on; removed when dropped.
#[derive(Debug)]
pub(super) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Who comes next removes what is left behind.
        drop(std::fs::remove_file(&self.0));
    }
}

/// Binds Envoy's port.
pub(super) async fn bind_grpc(listen: &Listen) -> Result<GrpcListener, BuildError> {
    let failed = |source| BuildError::Listen {
        address: listen.to_string(),
        key: "grpc.listen",
        source,
    };
    match listen {
        Listen::Tcp(address) => TcpListener::bind(address)
            .await
            .map(GrpcListener::Tcp)
            .map_err(failed),
        Listen::Unix(path) => {
            remove_stale_socket(path).await;
            UnixListener::bind(path)
                .map(|listener| GrpcListener::Unix(listener, SocketFile(path.clone())))
                .map_err(failed)
        }
    }
}

/// Removes a socket file that nobody listens at: a process that was killed leaves one behind.
async fn remove_stale_socket(path: &Path) {
    let is_socket = std::fs::metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if is_socket
        && UnixStream::connect(path)
            .await
            .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    {
        // If it can't be removed, binding says why.
        drop(std::fs::remove_file(path));
    }
}

/// Binds everybody else's port.
pub(super) async fn bind_http(address: SocketAddr) -> Result<TcpListener, BuildError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|source| BuildError::Listen {
        address: address.to_string(),
        key: "http.listen",
        source,
    })
}

/// Where the listeners are.
pub(super) fn addresses(grpc: &GrpcListener, http: &TcpListener) -> Result<Addresses, BuildError> {
    let unknown = |key| {
        move |source| BuildError::Listen {
            address: "its bound port".to_owned(),
            key,
            source,
        }
    };
    let grpc = match grpc {
        GrpcListener::Tcp(listener) => {
            Listen::Tcp(listener.local_addr().map_err(unknown("grpc.listen"))?)
        }
        GrpcListener::Unix(_, file) => Listen::Unix(file.0.clone()),
    };
    Ok(Addresses {
        grpc,
        http: http.local_addr().map_err(unknown("http.listen"))?,
    })
}

/// Serves Envoy until `close`, and then those whose calls are under way.
pub(super) async fn serve_grpc(
    router: GrpcRouter,
    listener: GrpcListener,
    close: CancellationToken,
) -> Result<(), RunError> {
    let closed = close.cancelled_owned();
    let served = match listener {
        GrpcListener::Tcp(listener) => {
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            router.serve_with_incoming_shutdown(incoming, closed).await
        }
        GrpcListener::Unix(listener, _file) => {
            let incoming = UnixListenerStream::new(listener);
            router.serve_with_incoming_shutdown(incoming, closed).await
        }
    };
    served.map_err(|error| RunError::Grpc(error.to_string()))
}

/// Serves everybody else until `close`, and then those whose calls are under way.
pub(super) async fn serve_http(
    router: axum::Router,
    listener: TcpListener,
    close: CancellationToken,
) -> Result<(), RunError> {
    let served = axum::serve(listener, router)
        .with_graceful_shutdown(close.cancelled_owned())
        .await;
    served.map_err(|error| RunError::Http(error.to_string()))
}
