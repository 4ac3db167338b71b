//! Tells the service manager when we serve and when we drain: systemd's protocol for `Type=notify`.

use std::convert::Infallible;
use std::io;
#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt;
#[cfg(target_os = "linux")]
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};

use tokio::sync::watch;
use tracing::warn;

use crate::http::Phase;

/// The variable in which a service manager names its socket.
pub(super) const VARIABLE: &str = "NOTIFY_SOCKET";

/// Tells each phase to the service manager at that socket, if there is one.
pub(super) async fn tell_phases(
    socket: Option<PathBuf>,
    mut phases: watch::Receiver<Phase>,
) -> Infallible {
    if let Some(socket) = socket {
        tell_phase(&socket, &mut phases).await;
        while phases.changed().await.is_ok() {
            tell_phase(&socket, &mut phases).await;
        }
    }
    std::future::pending().await
}

/// Tells the phase of now.
async fn tell_phase(socket: &Path, phases: &mut watch::Receiver<Phase>) {
    let phase = *phases.borrow_and_update();
    let state = match phase {
        Phase::Starting => return,
        Phase::Serving => "READY=1",
        Phase::Draining => "STOPPING=1",
    };
    if let Err(problem) = send(socket, state).await {
        let socket = socket.display();
        warn!(%socket, state, %problem, "failed to notify the service manager ({VARIABLE}); it may stop this process");
    }
}

/// Sends one message.
async fn send(socket: &Path, message: &str) -> io::Result<()> {
    let sender = UnixDatagram::unbound()?;
    sender.connect_addr(&address(socket)?)?;
    sender.set_nonblocking(true)?;
    let sender = tokio::net::UnixDatagram::from_std(sender)?;
    sender.send(message.as_bytes()).await?;
    Ok(())
}

/// The address of a socket: a path, or after an `@` a name in Linux's abstract namespace, where no
/// file belongs to it.
fn address(socket: &Path) -> io::Result<SocketAddr> {
    #[cfg(target_os = "linux")]
    if let Some(name) = socket.as_os_str().as_bytes().strip_prefix(b"@") {
        return SocketAddr::from_abstract_name(name);
    }
    SocketAddr::from_pathname(socket)
}
