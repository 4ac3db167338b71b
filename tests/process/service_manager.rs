//! What a service manager such as systemd hears of the process (`Type=notify`).

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net;

use testkit::streamgate::Streamgate;
use testkit::watch::PATIENCE;
use tokio::net::UnixDatagram;

/// A service manager's socket of that name: a path, or after an `@` an abstract name.
fn service_manager(name: &str) -> UnixDatagram {
    let address = match name.strip_prefix('@') {
        Some(name) => net::SocketAddr::from_abstract_name(name),
        None => net::SocketAddr::from_pathname(name),
    };
    let socket = net::UnixDatagram::bind_addr(&address.unwrap()).unwrap();
    socket.set_nonblocking(true).unwrap();
    UnixDatagram::from_std(socket).unwrap()
}

/// What it hears from a process that starts and is told to end.
async fn hears_of_a_life(name: &str) {
    let manager = service_manager(name);
    let hears = async || {
        let mut buffer = [0; 64];
        let received = tokio::time::timeout(PATIENCE, manager.recv(&mut buffer));
        let length = received.await.expect("it notifies").unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let mut service = Streamgate::start(&[("NOTIFY_SOCKET", name)]).await;
    assert_eq!(hears().await, "READY=1");
    assert_eq!(service.get("/readyz").await.status(), 200);
    service.signal("TERM").await;
    assert_eq!(hears().await, "STOPPING=1");
    assert_eq!(service.stopped().await.code(), Some(0));
}

#[tokio::test]
async fn the_service_manager_hears_when_it_serves_and_when_it_drains() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let path = path.to_str().unwrap();
    hears_of_a_life(path).await;
    hears_of_a_life(&format!("@{path}")).await;
}

#[tokio::test]
async fn a_service_manager_that_is_gone_is_a_warning() {
    let service = Streamgate::start(&[("NOTIFY_SOCKET", "/nowhere/notify")]).await;
    let message = "failed to notify the service manager (NOTIFY_SOCKET); it may stop this process";
    let line = service.line(message).await;
    assert_eq!(line["socket"], "/nowhere/notify");
    assert_eq!(service.get("/readyz").await.status(), 200);
}
