//! Owns where the streams come from: the demo's video backend, inside the test or as a process that can be killed.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::backend::{self, Media};
use crate::support::port::ReservedPort;
use crate::support::process::{Process, command};
use crate::support::watch::until;

/// The backend, served by the test itself until it is dropped.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    _serving: JoinSet<()>,
    _stop: DropGuard,
}

impl Origin {
    pub(crate) async fn start() -> Self {
        Self::of(media()).await
    }

    /// The same with the files of another folder.
    pub(crate) async fn of(media: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let mut serving = JoinSet::new();
        let media = Media::load(&media).unwrap();
        serving.spawn(async move {
            backend::serve(listener, media, stopped).await.unwrap();
        });
        Self {
            address,
            _serving: serving,
            _stop: stop.drop_guard(),
        }
    }
}

/// The backend as a process.
#[derive(Debug)]
pub(crate) struct OriginProcess {
    pub(crate) address: SocketAddr,
    process: Process,
    _port: ReservedPort,
}

impl OriginProcess {
    pub(crate) async fn start() -> Self {
        let port = ReservedPort::new();
        let address = port.address();
        let mut serve = command(demo_binary());
        serve.args(["backend", "--listen", &address.to_string(), "--media"]);
        serve.arg(media());
        let process = Process::start("backend", serve);
        until(Duration::from_secs(30), "the backend listens", async || {
            TcpStream::connect(address).await.is_ok()
        })
        .await;
        Self {
            address,
            process,
            _port: port,
        }
    }

    /// Kills it where it stands.
    pub(crate) async fn kill(mut self) {
        self.process.kill().await;
    }
}

/// The demo's program, which `make test` builds first.
pub(crate) fn demo_binary() -> PathBuf {
    let built = Path::new(env!("CARGO_BIN_EXE_streamgate")).ancestors();
    let demo = built.skip(2).next().unwrap().join("demo/demo");
    assert!(demo.is_file(), "no {demo:?}: `make build` builds it");
    demo
}

pub(crate) fn media() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/demo/media")
}
