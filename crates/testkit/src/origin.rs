//! Owns where the streams come from: the demo's video backend, inside the test or as a process that can be killed.

use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};
use video_backend::Media;

use crate::port::ReservedPort;
use crate::process::{Process, command};
use crate::tools::{repository, streamgate_program};
use crate::watch::{SLOWLY, eventually_within};

/// The backend, served by the test itself until it is dropped.
#[derive(Debug)]
pub struct Origin {
    /// Where it listens.
    pub address: SocketAddr,
    _serving: JoinSet<()>,
    _stop: DropGuard,
}

impl Origin {
    /// Starts it with the demo's videos.
    pub async fn start() -> Self {
        Self::of(media()).await
    }

    /// The same with the files of another folder.
    pub async fn of(media: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let mut serving = JoinSet::new();
        let media = Media::load(&media).unwrap();
        serving.spawn(async move {
            video_backend::serve(listener, media, stopped)
                .await
                .unwrap();
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
pub struct OriginProcess {
    /// Where it listens.
    pub address: SocketAddr,
    process: Process,
    _port: ReservedPort,
}

impl OriginProcess {
    /// Starts it, and returns when it listens.
    pub async fn start() -> Self {
        let port = ReservedPort::reserve();
        let address = port.address();
        let mut serve = command(demo_binary());
        serve.args(["backend", "--listen", &address.to_string(), "--media"]);
        serve.arg(media());
        let process = Process::start("backend", serve);
        eventually_within(SLOWLY, "the backend listens", async || {
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
    pub async fn kill(mut self) {
        self.process.kill().await;
    }
}

/// The demo's program, which `make test` builds first.
pub fn demo_binary() -> PathBuf {
    let program = streamgate_program();
    let built = program.ancestors().nth(2).unwrap();
    let demo = built.join("demo/demo");
    assert!(demo.is_file(), "no {demo:?}: `make build` builds it");
    demo
}

/// The folder with the demo's videos.
pub fn media() -> PathBuf {
    repository("deploy/demo/media")
}
