//! The peers of one port, that is, the clients of its connections. For each peer it tracks whether
//! it has made a request, how long it has been silent, and how much memory its requests take, so
//! that the port can choose which connection to close to protect the others.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::task::AbortHandle;
use tracing::warn;

use super::TROUBLE_PERIOD;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::{ClosedFor, LabelValue, Port};
use crate::util::{Throttle, lock};

/// How many bytes of memory the requests of one peer may take: as much as three of the largest
/// access log messages.
const MOST_OF_ONE: usize = 48 * 1024 * 1024;

/// The granularity of the total, so that most checks don't touch the counter that all connections
/// share. A peer whose requests take less than this adds nothing to it, because a connection itself
/// takes as much.
const UNIT: usize = 16 * 1024;

/// The peers of one port.
#[derive(Debug)]
pub(super) struct Peers {
    /// The port.
    port: Port,
    /// Counts connections.
    metrics: Arc<Metrics>,
    /// The memory of all peers' requests, in units.
    units: AtomicI64,
    /// Throttles the warning about heavy peers.
    heavy: Throttle,
    /// The peers.
    lists: Mutex<Lists>,
}

/// The current peers.
#[derive(Debug, Default)]
struct Lists {
    /// The last number assigned. Peers and turns share the numbers.
    last: u64,
    /// All peers, by their number.
    all: BTreeMap<u64, Weak<Peer>>,
    /// Peers that have made no request, by their turn: the longest silent first.
    newcomers: BTreeMap<u64, Weak<Peer>>,
}

/// The client of one connection.
#[derive(Debug)]
pub(super) struct Peer {
    /// The peers of its port.
    peers: Arc<Peers>,
    /// Its key in [`Lists::all`].
    number: u64,
    /// Its key in [`Lists::newcomers`]. Changed only under the lock of the lists.
    turn: AtomicU64,
    /// How many requests it has made. Only the task of its connection changes it.
    requests: AtomicUsize,
    /// How many bytes its requests take.
    bytes: AtomicUsize,
    /// How many of those bytes are answers that it hasn't read yet.
    unread: AtomicUsize,
    /// The means to close it.
    exit: Mutex<Exit>,
}

/// The means to close a connection.
#[derive(Debug, Default)]
struct Exit {
    /// Whether it has been closed.
    is_closed: bool,
    /// The task that serves it.
    task: Option<AbortHandle>,
}

/// The memory of a peer's request, counted until dropped.
#[must_use]
#[derive(Debug)]
pub(super) struct MemoryShare {
    /// The peer.
    peer: Arc<Peer>,
    /// The number of bytes.
    bytes: usize,
    /// Whether they belong to an answer.
    is_unread: bool,
}

/// How many bytes of memory the requests of all peers of a port may take: half (gRPC) and a quarter
/// (HTTP) of the container's memory in `compose.yaml`.
const fn most_of_all(port: Port) -> usize {
    match port {
        Port::Grpc => 128 * 1024 * 1024,
        Port::Http => 64 * 1024 * 1024,
    }
}

/// The number of whole units in that many bytes.
fn units(bytes: usize) -> i64 {
    i64::try_from(bytes / UNIT).unwrap_or(i64::MAX)
}

impl Lists {
    /// An unused number.
    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

// === impl Peers ===

impl Peers {
    /// Starts without peers.
    pub(super) fn new(port: Port, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            port,
            metrics,
            units: AtomicI64::new(0),
            heavy: Throttle::every(TROUBLE_PERIOD),
            lists: Mutex::default(),
        })
    }

    /// Adds a peer.
    pub(super) fn join(self: &Arc<Self>) -> Arc<Peer> {
        let mut lists = lock(&self.lists);
        let (number, turn) = (lists.number(), lists.number());
        let peer = Arc::new(Peer {
            peers: Arc::clone(self),
            number,
            turn: AtomicU64::new(turn),
            requests: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            unread: AtomicUsize::new(0),
            exit: Mutex::default(),
        });
        lists.all.insert(number, Arc::downgrade(&peer));
        lists.newcomers.insert(turn, Arc::downgrade(&peer));
        peer
    }

    /// Closes the connection that has been silent for longest among those that never made a
    /// request. Returns whether there was one.
    pub(super) fn close_most_silent(&self) -> bool {
        loop {
            let most_silent = lock(&self.lists).newcomers.pop_first();
            let Some((_, peer)) = most_silent else {
                return false;
            };
            // A peer that is already leaving may have freed its place for another client, so try
            // the next.
            if let Some(peer) = peer.upgrade() {
                peer.close(ClosedFor::Crowded);
                return true;
            }
        }
    }

    /// Closes the connections whose requests take the most memory, until the rest is within the
    /// bound.
    fn relieve(&self) {
        // Outside the lock, because dropping the last handle of a leaving peer takes the lock.
        let upgraded = |lists: &Lists| lists.all.values().filter_map(Weak::upgrade).collect();
        let mut peers: Vec<Arc<Peer>> = upgraded(&lock(&self.lists));
        peers.retain(|peer| !lock(&peer.exit).is_closed);
        let bytes = |peer: &Arc<Peer>| peer.bytes.load(Ordering::Relaxed);
        let mut all: usize = peers.iter().map(bytes).sum();
        peers.sort_by_cached_key(bytes);
        while let Some(heaviest) = peers.pop()
            && all > most_of_all(self.port)
        {
            all = all.saturating_sub(bytes(&heaviest));
            heaviest.close(ClosedFor::Memory);
        }
    }
}

// === impl Peer ===

impl Peer {
    /// Sets the task that serves it.
    pub(super) fn served_by(&self, task: AbortHandle) {
        let mut exit = lock(&self.exit);
        if exit.is_closed {
            task.abort();
        }
        exit.task = Some(task);
    }

    /// Closes its connection immediately.
    pub(super) fn close(&self, cause: ClosedFor) {
        self.leaves(cause);
        if let Some(task) = lock(&self.exit).task.take() {
            task.abort();
        }
    }

    /// Counts that its connection is being closed, the first time this is called.
    pub(super) fn leaves(&self, cause: ClosedFor) {
        if std::mem::replace(&mut lock(&self.exit).is_closed, true) {
            return;
        }
        let Peers {
            port,
            metrics,
            heavy,
            ..
        } = &*self.peers;
        metrics.connection_closed_for(*port, cause);
        if cause == ClosedFor::Memory && heavy.is_due() {
            let (port, bytes) = (port.as_str(), self.bytes.load(Ordering::Relaxed));
            warn!(
                port,
                bytes, "closed a connection whose requests took too much memory"
            );
        }
    }

    /// Records that bytes were read from it.
    pub(super) fn heard(self: &Arc<Self>) {
        if self.has_asked() {
            return;
        }
        let mut lists = lock(&self.peers.lists);
        // It may have been chosen to leave meanwhile.
        let turn = self.turn.load(Ordering::Relaxed);
        if let Some(peer) = lists.newcomers.remove(&turn) {
            let turn = lists.number();
            self.turn.store(turn, Ordering::Relaxed);
            lists.newcomers.insert(turn, peer);
        }
    }

    /// Whether it has ever made a request.
    pub(super) fn has_asked(&self) -> bool {
        self.requests.load(Ordering::Relaxed) > 0
    }

    /// Records a request that takes that many bytes. Only the task of its connection calls this.
    pub(super) fn asks(self: &Arc<Self>, bytes: usize) -> MemoryShare {
        let requests = self.requests.load(Ordering::Relaxed);
        self.requests
            .store(requests.wrapping_add(1).max(1), Ordering::Relaxed);
        if requests == 0 {
            let turn = self.turn.load(Ordering::Relaxed);
            lock(&self.peers.lists).newcomers.remove(&turn);
        }
        let mut share = self.share();
        share.grow_to(bytes);
        share
    }

    /// How many bytes its requests take.
    #[cfg(test)]
    pub(super) fn taken(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// A share that takes nothing yet.
    pub(super) fn share(self: &Arc<Self>) -> MemoryShare {
        MemoryShare {
            peer: Arc::clone(self),
            bytes: 0,
            is_unread: false,
        }
    }

    /// Returns when it has made no request for that long and none is in progress. An answer that
    /// the client doesn't read doesn't count as in progress.
    pub(super) async fn quiet(&self, span: Duration) {
        loop {
            let before = self.requests.load(Ordering::Relaxed);
            tokio::time::sleep(span).await;
            let has_asked = self.requests.load(Ordering::Relaxed) != before;
            let unread = self.unread.load(Ordering::Relaxed);
            if !has_asked && self.bytes.load(Ordering::Relaxed) <= unread {
                return;
            }
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let mut lists = lock(&self.peers.lists);
        lists.all.remove(&self.number);
        lists.newcomers.remove(self.turn.get_mut());
    }
}

// === impl MemoryShare ===

impl MemoryShare {
    /// Another share of the same peer, for that many bytes of an answer that it hasn't read yet.
    pub(super) fn of_unread(&self, bytes: usize) -> Self {
        self.peer.unread.fetch_add(bytes, Ordering::Relaxed);
        let mut share = self.peer.share();
        share.is_unread = true;
        share.grow_to(bytes);
        share
    }

    /// Adds that many bytes.
    pub(super) fn grow_by(&mut self, bytes: usize) {
        self.grow_to(self.bytes + bytes);
    }

    /// Raises the share to that many bytes, if it is smaller. Closes connections if one of them, or
    /// all together, take too much.
    pub(super) fn grow_to(&mut self, bytes: usize) {
        if bytes <= self.bytes {
            return;
        }
        let (peer, peers) = (&self.peer, &self.peer.peers);
        let more = bytes - self.bytes;
        let before = peer.bytes.fetch_add(more, Ordering::Relaxed);
        self.bytes = bytes;
        let more_units = units(before + more) - units(before);
        if more_units == 0 {
            return;
        }
        let all = peers.units.fetch_add(more_units, Ordering::Relaxed) + more_units;
        if before + more > MOST_OF_ONE {
            peer.close(ClosedFor::Memory);
        } else if all > units(most_of_all(peers.port)) {
            peers.relieve();
        }
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        let before = self.peer.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        let fewer_units = units(before) - units(before - self.bytes);
        if fewer_units > 0 {
            let all = &self.peer.peers.units;
            all.fetch_sub(fewer_units, Ordering::Relaxed);
        }
        if self.is_unread {
            self.peer.unread.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers() -> Arc<Peers> {
        Peers::new(Port::Grpc, Arc::new(Metrics::new()))
    }

    fn is_closed(peer: &Peer) -> bool {
        lock(&peer.exit).is_closed
    }

    #[test]
    fn the_longest_silent_without_a_request_goes_first() {
        let peers = peers();
        let [asks, speaks, silent, later] = [(); 4].map(|()| peers.join());
        drop(asks.asks(1));
        speaks.heard();
        drop(peers.join());
        for expected in [&silent, &later, &speaks] {
            assert!(!is_closed(expected));
            assert!(peers.close_most_silent());
            assert!(is_closed(expected));
            // Further data from it doesn't bring it back.
            expected.heard();
        }
        assert!(!peers.close_most_silent());
        assert!(!is_closed(&asks));
        let told = peers.metrics.render();
        let count = "streamgate_connections_closed_total{port=\"grpc\",cause=\"crowded\"} 3\n";
        assert!(told.contains(count), "{told}");
    }

    #[test]
    fn one_peer_that_takes_too_much_is_closed() {
        let peers = peers();
        let [one, other] = [(); 2].map(|()| peers.join());
        let mut share = one.asks(MOST_OF_ONE);
        let others = other.asks(MOST_OF_ONE);
        assert!(!is_closed(&one));
        share.grow_to(MOST_OF_ONE + UNIT);
        assert!(is_closed(&one) && !is_closed(&other));
        drop((share, others));
        assert_eq!(peers.units.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn when_all_take_too_much_the_heaviest_goes() {
        let peers = peers();
        let [light, heavy, other] = [(); 3].map(|()| peers.join());
        let mut shares = [
            light.asks(MOST_OF_ONE - 9 * UNIT),
            heavy.asks(MOST_OF_ONE),
            other.asks(most_of_all(Port::Grpc) - 2 * MOST_OF_ONE + 9 * UNIT),
        ];
        assert!(
            ![&light, &heavy, &other]
                .into_iter()
                .any(|peer| is_closed(peer))
        );
        shares[0].grow_to(MOST_OF_ONE - 8 * UNIT);
        assert!(is_closed(&heavy));
        assert!(!is_closed(&light) && !is_closed(&other));
        // Memory that a closed peer still holds doesn't cause others to be closed.
        shares[2].grow_to(most_of_all(Port::Grpc) - 2 * MOST_OF_ONE + 10 * UNIT);
        assert!(!is_closed(&light) && !is_closed(&other));
        drop(shares);
        assert_eq!(peers.units.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_peer_that_was_closed_before_its_task_was_known_is_left() {
        let peer = peers().join();
        peer.close(ClosedFor::Memory);
        let mut tasks = tokio::task::JoinSet::new();
        peer.served_by(tasks.spawn(std::future::pending::<()>()));
        let ended = tasks.join_next().await.unwrap();
        assert!(ended.unwrap_err().is_cancelled());
    }
}
