//! VLC, told what to do over its remote control.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::stage::{Named, Stage};
use testkit::port::ReservedPort;
use testkit::process::{Process, command};
use testkit::tools::tool;
use testkit::watch::{SLOWLY, eventually_within};

/// A VLC without a screen. Gone when this is dropped.
pub(super) struct Vlc {
    remote: SocketAddr,
    process: Process,
    _port: ReservedPort,
}

impl Vlc {
    /// Starts it, to play that.
    pub(super) async fn start(url: &str) -> Self {
        Self::start_with(&[], url).await
    }

    /// The same with these options. It won't run as root, so root starts it as nobody.
    async fn start_with(options: &[&str], url: &str) -> Self {
        let port = ReservedPort::reserve();
        let remote = port.address();
        let program = tool("vlc", "vlc-bin");
        let root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
        let mut vlc = if root {
            let mut as_nobody = command("setpriv");
            as_nobody.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
            as_nobody.arg(program);
            as_nobody
        } else {
            command(program)
        };
        vlc.env("HOME", "/nonexistent");
        // It takes no commands from anywhere unless it believes in a terminal.
        vlc.args(["-I", "oldrc", "--rc-fake-tty"]);
        vlc.args(["--rc-host", &remote.to_string()]);
        vlc.args(["--vout", "dummy", "--aout", "dummy", "--no-media-library"]);
        vlc.args(options).arg(url);
        Self {
            remote,
            process: Process::start("vlc", vlc),
            _port: port,
        }
    }

    /// Tells it something.
    async fn told(&self, what: &str) {
        let connecting = async || TcpStream::connect(self.remote).await.ok();
        let mut remote =
            eventually_within(SLOWLY, "VLC's remote control listens", connecting).await;
        remote
            .write_all(format!("{what}\nlogout\n").as_bytes())
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn vlc_keeps_our_cookie_until_it_ends() {
    let stage = &Stage::set(Named::OrIssued).await;
    let url = stage.site.list("alice", "index.m3u8");
    let player = Vlc::start(&url).await;
    let (id, ()) = tokio::join!(stage.plays("alice"), is_refused(stage));
    let before = stage.asked("alice").len();
    player.told("seek 300").await;
    assert_eq!(stage.goes_on_since("alice", before).await, id);
    player.told("pause").await;
    stage.becomes("alice", &[]).await;
    let before = stage.asked("alice").len();
    player.told("pause").await;
    assert_eq!(stage.goes_on_since("alice", before).await, id);
    stage.becomes("alice", &[&id]).await;
    stage.moves();
    assert_eq!(stage.goes_on_elsewhere("alice").await, id);
    drop(player);

    let before = stage.asked("alice").len();
    let _again = Vlc::start(&url).await;
    let new = stage.begins_anew_since("alice", before).await;
    assert_ne!(new, id);
    stage.becomes("alice", &[&new]).await;
}

async fn is_refused(stage: &Stage) {
    let _watching = stage.bob_watches().await;
    // It shows the list when it has stopped, unless it is to leave then.
    let list = stage.site.list("bob", "index.m3u8");
    let mut refused = Vlc::start_with(&["--play-and-exit"], &list).await;
    stage.refuses("bob", 429).await;
    refused.process.ended().await;
}
