//! The sockets that ports listen on, bound before the instance reports that it is ready.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::ports::PortError;
use crate::config::Listen;

/// A bound port.
#[derive(Debug)]
pub(super) enum Listener {
    /// Over TCP.
    Tcp(TcpListener),
    /// Over a Unix socket.
    Unix {
        listener: UnixListener,
        /// Removed together with the listener.
        _file: SocketFile,
    },
}

/// An accepted client.
#[derive(Debug)]
pub(super) enum Socket {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

impl Listener {
    /// Accepts the next client. Dropping this future loses no client.
    pub(super) async fn accept(&self) -> std::io::Result<Socket> {
        match self {
            Self::Tcp(listener) => {
                let (socket, _) = listener.accept().await?;
                Ok(Socket::Tcp(socket))
            }
            Self::Unix { listener, .. } => {
                let (socket, _) = listener.accept().await?;
                Ok(Socket::Unix(socket))
            }
        }
    }
}

/// The file of a listening Unix socket; removed when dropped.
#[derive(Debug)]
pub(super) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // The next process to listen here removes a file left behind.
        drop(std::fs::remove_file(&self.0));
    }
}

/// Binds Envoy's port; returns the actual address, because port 0 picks any free port.
pub(super) async fn bind_grpc(listen: &Listen) -> Result<(Listener, Listen), PortError> {
    let bind = async || match listen {
        Listen::Tcp(address) => {
            let listener = TcpListener::bind(address).await?;
            let bound = listener.local_addr()?;
            Ok((Listener::Tcp(listener), Listen::Tcp(bound)))
        }
        Listen::Unix(path) => {
            if let Some(flaw) = unusable_socket(path) {
                return Err(std::io::Error::other(flaw));
            }
            remove_stale_socket(path).await;
            let listener = UnixListener::bind(path)?;
            let bound = Listener::Unix {
                listener,
                _file: SocketFile(path.clone()),
            };
            Ok((bound, listen.clone()))
        }
    };
    bind().await.map_err(|source| PortError::Listen {
        address: listen.to_string(),
        key: "grpc.listen",
        source,
    })
}

/// Why no socket can be made at that path, as far as we can tell in advance.
pub(crate) fn unusable_socket(path: &Path) -> Option<String> {
    // A bare file name is relative to the process's working directory.
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder {
        let shown = folder.display();
        match std::fs::metadata(folder) {
            Err(error) => {
                let flaw = format!("the folder {shown} can't be used: {error}");
                return Some(match error.kind() {
                    ErrorKind::NotFound => format!("{flaw}; create it, or choose another path"),
                    ErrorKind::PermissionDenied => {
                        format!("{flaw}; give this process access to it, or choose another path")
                    }
                    _ => format!("{flaw}; choose another path"),
                });
            }
            Ok(found) if !found.is_dir() => {
                return Some(format!("{shown} is not a folder; choose another path"));
            }
            Ok(_) => {}
        }
    }
    let is_in_place = std::fs::metadata(path).is_ok_and(|found| !found.file_type().is_socket());
    is_in_place
        .then(|| "the path exists and is not a socket; delete it or choose another path".to_owned())
}

/// Removes a socket file that no process listens on: a killed process leaves one behind.
async fn remove_stale_socket(path: &Path) {
    let is_socket = std::fs::metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if is_socket
        && UnixStream::connect(path)
            .await
            .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    {
        // If it can't be removed, binding reports why.
        drop(std::fs::remove_file(path));
    }
}

/// Binds the HTTP port; returns the actual address, because port 0 picks any free port.
pub(super) async fn bind_http(address: SocketAddr) -> Result<(Listener, SocketAddr), PortError> {
    let bind = async || {
        let listener = TcpListener::bind(address).await?;
        let bound = listener.local_addr()?;
        Ok((Listener::Tcp(listener), bound))
    };
    bind().await.map_err(|source| PortError::Listen {
        address: address.to_string(),
        key: "http.listen",
        source,
    })
}
