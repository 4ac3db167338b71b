//! A relay between streamgate and a server. It can delay, stall and cut connections while the
//! server itself stays healthy.

use std::future::pending;
use std::io;
use std::net::Ipv4Addr;
use std::pin::pin;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep};
use tokio_util::task::AbortOnDropHandle;

/// How the wire is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Bytes pass.
    Open,
    /// What the server says comes so much later.
    Slow(Duration),
    /// No byte passes, and no connection ends.
    Stalled,
    /// Connections are reset, new ones too.
    Cut,
    /// The next thing that the server says is lost, and its connection with it.
    Losing,
}

/// A wire to a server on this machine. It is gone when this is dropped, with all its connections.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens.
    port: u16,
    /// How it is.
    mode: watch::Sender<Mode>,
    /// Which address it reaches the server from, if it has been given one.
    source: watch::Sender<Option<Ipv4Addr>>,
    /// How many connections it has accepted, including those it reset immediately.
    accepted: watch::Receiver<usize>,
    /// The task that accepts; it owns the connections.
    _task: AbortOnDropHandle<()>,
}

impl Proxy {
    /// A relay to the process that listens on that port, now or later.
    #[expect(
        clippy::disallowed_methods,
        reason = "the task is aborted with the proxy"
    )]
    pub async fn before(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mode = watch::Sender::new(Mode::Open);
        let state = mode.clone();
        let (source, from) = watch::channel(None);
        let (count, accepted) = watch::channel(0);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                connections.spawn(serve(client, server, state.clone(), from.clone()));
                while connections.try_join_next().is_some() {}
                count.send_modify(|count| *count += 1);
            }
        });
        Self {
            port,
            mode,
            source,
            accepted,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where a Redis seems to be.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Lets no byte pass, and keeps all connections open. New ones are accepted, and are silent
    /// too.
    pub fn stall(&self) {
        self.mode.send_replace(Mode::Stalled);
    }

    /// Resets all connections, and each new one immediately.
    pub fn cut(&self) {
        self.mode.send_replace(Mode::Cut);
    }

    /// Loses the next thing that the server says, on whichever connection, and resets that; then all
    /// passes again.
    pub fn lose_an_answer(&self) {
        self.mode.send_replace(Mode::Losing);
    }

    /// Waits until it has lost what it was to lose.
    pub async fn has_lost_it(&self) {
        let mut mode = self.mode.subscribe();
        mode.wait_for(|mode| *mode != Mode::Losing).await.unwrap();
    }

    /// Resets all connections; new ones reach the server from that address.
    pub fn moves_to(&self, address: Ipv4Addr) {
        self.source.send_replace(Some(address));
    }

    /// Has what the server says come so much later, in the same order.
    pub fn slow(&self, delay: Duration) {
        self.mode.send_replace(Mode::Slow(delay));
    }

    /// Lets everything pass again.
    pub fn restore(&self) {
        self.mode.send_replace(Mode::Open);
    }

    /// How many connections it has accepted so far.
    pub fn accepted(&self) -> usize {
        *self.accepted.borrow()
    }

    /// Waits until it has accepted so many since it began.
    pub async fn has_accepted(&self, connections: usize) {
        let mut accepted = self.accepted.clone();
        accepted
            .wait_for(|accepted| *accepted >= connections)
            .await
            .unwrap();
    }
}

/// One connection, until either side ends it, the wire is cut, or its client has moved.
async fn serve(
    mut client: TcpStream,
    server: u16,
    mode: watch::Sender<Mode>,
    mut source: watch::Receiver<Option<Ipv4Addr>>,
) {
    let from = *source.borrow_and_update();
    let mut seen = mode.subscribe();
    let cut = async {
        let _ = seen.wait_for(|mode| *mode == Mode::Cut).await;
    };
    let moved = async {
        let _ = source.changed().await;
    };
    let joined = async {
        let Ok(mut server) = connect(server, from).await else {
            return;
        };
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        tokio::select! {
            () = pass(from_client, to_server, &mode, false) => {}
            () = pass(from_server, to_client, &mode, true) => {}
        }
    };
    tokio::select! {
        biased;
        () = cut => {}
        () = moved => {}
        () = joined => return,
    }
    let _ = client.set_zero_linger();
}

/// Reaches the server, from that address if there is one.
async fn connect(server: u16, from: Option<Ipv4Addr>) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if let Some(from) = from {
        socket.bind((from, 0).into())?;
    }
    socket.connect((Ipv4Addr::LOCALHOST, server).into()).await
}

/// Passes bytes on until one end is closed and everything sent before has arrived.
async fn pass(
    from: impl AsyncRead + Unpin,
    to: impl AsyncWrite + Unpin,
    mode: &watch::Sender<Mode>,
    replies: bool,
) {
    // Bytes in flight, each with the time until it may arrive. Reading and writing are separate, so
    // that a delay doesn't add up.
    let (sender, receiver) = mpsc::unbounded_channel();
    let taking = async {
        take(from, sender, mode, replies).await;
        pending::<()>().await;
    };
    tokio::select! {
        () = give(to, receiver, mode.subscribe()) => {}
        () = taking => {}
    }
}

/// Reads, and begins to wait for each chunk's time.
async fn take(
    mut from: impl AsyncRead + Unpin,
    sender: mpsc::UnboundedSender<(Sleep, Vec<u8>)>,
    mode: &watch::Sender<Mode>,
    replies: bool,
) {
    let mut buffer = vec![0; 16 * 1024];
    let mut seen = mode.subscribe();
    // What isn't read piles up where it would on a real wire.
    while seen.wait_for(|mode| *mode != Mode::Stalled).await.is_ok() {
        let read = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(read) => read,
        };
        let is_to_lose = |mode: &mut Mode| {
            let is_losing = *mode == Mode::Losing;
            if is_losing {
                *mode = Mode::Open;
            }
            is_losing
        };
        if replies && mode.send_if_modified(is_to_lose) {
            return;
        }
        let delay = match *mode.borrow() {
            Mode::Slow(delay) if replies => delay,
            _ => Duration::ZERO,
        };
        let _ = sender.send((sleep(delay), buffer[..read].to_vec()));
    }
}

/// Writes each chunk when its time has come.
async fn give(
    mut to: impl AsyncWrite + Unpin,
    mut receiver: mpsc::UnboundedReceiver<(Sleep, Vec<u8>)>,
    mut mode: watch::Receiver<Mode>,
) {
    while let Some((due, chunk)) = receiver.recv().await {
        pin!(due).await;
        if mode.wait_for(|mode| *mode != Mode::Stalled).await.is_err() {
            return;
        }
        if to.write_all(&chunk).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use streamgate::clock::Stopwatch;

    use super::*;

    /// A server that says everything back.
    async fn echo() -> (u16, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                connections.spawn(async move {
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        (port, tasks)
    }

    async fn hears(stream: &mut TcpStream, expected: &str) {
        let mut heard = vec![0; expected.len()];
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, expected.as_bytes());
    }

    /// Nothing arrives for as long as it could reasonably take.
    async fn hears_nothing(stream: &mut TcpStream) {
        let heard = tokio::time::timeout(Duration::from_millis(50), stream.read_u8()).await;
        assert!(heard.is_err(), "heard {heard:?}");
    }

    #[tokio::test]
    async fn a_wire_passes_stalls_is_slow_and_is_cut() {
        let (port, _server) = echo().await;
        let proxy = Proxy::before(port).await;
        let dial = || async {
            TcpStream::connect(("127.0.0.1", proxy.port()))
                .await
                .unwrap()
        };
        let mut stream = dial().await;
        stream.write_all(b"one").await.unwrap();
        hears(&mut stream, "one").await;

        proxy.stall();
        stream.write_all(b"two").await.unwrap();
        hears_nothing(&mut stream).await;
        let mut other = dial().await;
        proxy.has_accepted(2).await;
        other.write_all(b"hello").await.unwrap();
        hears_nothing(&mut other).await;
        proxy.restore();
        hears(&mut stream, "two").await;
        hears(&mut other, "hello").await;

        let (delay, waiting) = (Duration::from_millis(100), Stopwatch::start());
        proxy.slow(delay);
        stream.write_all(b"three").await.unwrap();
        stream.write_all(b"four").await.unwrap();
        hears(&mut stream, "threefour").await;
        assert!(waiting.elapsed() >= delay);

        proxy.cut();
        assert!(stream.read_u8().await.is_err());
        assert!(other.read_u8().await.is_err());
        assert!(dial().await.read_u8().await.is_err());
        assert_eq!(proxy.accepted(), 3);
        proxy.restore();
        let mut again = dial().await;
        again.write_all(b"five").await.unwrap();
        hears(&mut again, "five").await;

        let mut other = dial().await;
        proxy.lose_an_answer();
        other.write_all(b"six").await.unwrap();
        assert!(other.read_u8().await.is_err());
        proxy.has_lost_it().await;
        again.write_all(b"seven").await.unwrap();
        hears(&mut again, "seven").await;

        drop(proxy);
        assert!(again.read_u8().await.is_err());
    }

    #[tokio::test]
    async fn who_moves_is_cut_off_and_comes_back_from_another_address() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy::before(listener.local_addr().unwrap().port()).await;
        let mut client = TcpStream::connect(("127.0.0.1", proxy.port()))
            .await
            .unwrap();
        let (_server, peer) = listener.accept().await.unwrap();
        assert_eq!(peer.ip(), Ipv4Addr::LOCALHOST);
        let elsewhere = Ipv4Addr::new(127, 0, 0, 2);
        proxy.moves_to(elsewhere);
        assert!(client.read_u8().await.is_err());
        let _client = TcpStream::connect(("127.0.0.1", proxy.port()))
            .await
            .unwrap();
        let (_server, peer) = listener.accept().await.unwrap();
        assert_eq!(peer.ip(), elsewhere);
    }
}
