//! A relay of HTTP/2 frames between Envoy and streamgate that delays them, and cuts a connection in
//! the middle of a call.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

const PREFACE: usize = 24;
const FRAME_HEAD: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;

/// Where the next call is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Cut {
    /// Nowhere.
    Nowhere = 0,
    /// When its request has been passed on.
    AfterRequest = 1,
    /// When its answer was about to be passed on.
    BeforeAnswer = 2,
}

/// A relay to one streamgate.
#[derive(Debug)]
pub struct Wire {
    /// Where it listens for Envoy.
    pub address: SocketAddr,
    faults: Arc<Faults>,
    _relays: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Faults {
    cut: AtomicU8,
    cuts: AtomicUsize,
    delay_micros: AtomicU64,
}

impl Wire {
    /// A relay that doesn't interfere yet.
    pub async fn to(streamgate: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let faults = Arc::<Faults>::default();
        let mut relays = JoinSet::new();
        relays.spawn(accept(listener, streamgate, Arc::clone(&faults)));
        Self {
            address,
            faults,
            _relays: relays,
        }
    }

    /// Cuts the next call off.
    pub fn cut_next(&self, at: Cut) {
        self.faults.cut.store(at as u8, Ordering::SeqCst);
    }

    /// How many calls were cut off.
    pub fn cuts(&self) -> usize {
        self.faults.cuts.load(Ordering::SeqCst)
    }

    /// Delays each frame up to that long, at random but without changing their order.
    pub fn delay(&self, longest: Duration) {
        let micros = u64::try_from(longest.as_micros()).unwrap();
        self.faults.delay_micros.store(micros, Ordering::SeqCst);
    }
}

impl Faults {
    /// Whether this is the call to cut off.
    fn cuts_here(&self, at: Cut) -> bool {
        let cut = self.cut.compare_exchange(
            at as u8,
            Cut::Nowhere as u8,
            Ordering::SeqCst,
            Ordering::SeqCst,
        );
        if cut.is_ok() {
            self.cuts.fetch_add(1, Ordering::SeqCst);
        }
        cut.is_ok()
    }

    fn delay(&self) -> Duration {
        let longest = self.delay_micros.load(Ordering::SeqCst);
        Duration::from_micros(rand::random_range(0..=longest))
    }
}

async fn accept(listener: TcpListener, streamgate: SocketAddr, faults: Arc<Faults>) {
    let mut relays = JoinSet::new();
    while let Ok((envoy, _)) = listener.accept().await {
        let faults = Arc::clone(&faults);
        relays.spawn(async move {
            if let Ok(streamgate) = TcpStream::connect(streamgate).await {
                relay(envoy, streamgate, &faults).await;
            }
        });
    }
}

/// Relays until either side ends or a call is cut off; then both connections are closed.
async fn relay(envoy: TcpStream, streamgate: TcpStream, faults: &Faults) {
    for socket in [&envoy, &streamgate] {
        // A connection that has been closed already is found out on reading.
        let _ = socket.set_nodelay(true);
    }
    let (mut from_envoy, to_envoy) = envoy.into_split();
    let (from_streamgate, mut to_streamgate) = streamgate.into_split();
    let mut preface = [0; PREFACE];
    if from_envoy.read_exact(&mut preface).await.is_err()
        || to_streamgate.write_all(&preface).await.is_err()
    {
        return;
    }
    tokio::select! {
        () = pump(from_envoy, to_streamgate, faults, Cut::AfterRequest) => {}
        () = pump(from_streamgate, to_envoy, faults, Cut::BeforeAnswer) => {}
    }
}

/// Passes frames on, delayed but in their order, until one is the place to cut.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    faults: &Faults,
    side: Cut,
) {
    let (queue, mut waiting) = mpsc::unbounded_channel();
    let read = async {
        while let Some(frame) = frame(&mut from).await {
            if side == Cut::BeforeAnswer && frame[3] == HEADERS && faults.cuts_here(side) {
                return;
            }
            let last = side == Cut::AfterRequest && frame[3] == DATA && faults.cuts_here(side);
            let due = tokio::time::sleep(faults.delay());
            if queue.send((Box::pin(due), frame, last)).is_err() {
                return;
            }
        }
    };
    let write = async {
        while let Some((due, frame, last)) = waiting.recv().await {
            due.await;
            if to.write_all(&frame).await.is_err() || last {
                return;
            }
        }
    };
    tokio::select! {
        () = read => {}
        () = write => {}
    }
}

/// The next whole frame; none at the end of the connection.
async fn frame(from: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let mut frame = vec![0; FRAME_HEAD];
    from.read_exact(&mut frame).await.ok()?;
    let length = usize::from(frame[0]) << 16 | usize::from(frame[1]) << 8 | usize::from(frame[2]);
    frame.resize(FRAME_HEAD + length, 0);
    from.read_exact(&mut frame[FRAME_HEAD..]).await.ok()?;
    Some(frame)
}
