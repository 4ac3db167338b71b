//! Whether Envoy's access log reaches the installation. Without it a `request` stream counts for one lease and no longer, and the limit
//! quietly doesn't hold.
//!
//! Entries that come to this instance settle it. Where none come, they may go to another instance, so the store is asked about a sample of the
//! `request` sessions that started here: by the time that two reports of each should have come, somebody has renewed or ended it. If nobody has,
//! of [`PROOF`] in a row, no access log arrives. What this instance renews itself proves nothing, and neither does what the store has forgotten.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tracing::{info, warn};

use crate::clock::Stopwatch;
use crate::session::{Session, SessionKey, Ticket, UserId};
use crate::telemetry::Metrics;
use crate::util::lock;

/// How many sessions wait for the store to be asked about them.
const SAMPLE: usize = 16;

/// How many sessions in a row prove that the access log arrives, or that it doesn't. One may be chance.
const PROOF: usize = 2;

/// What to do where no access log arrives: a sentence that can stand alone.
pub const UNWIRED: &str = "Envoy's access log does not arrive: nobody renewed or ended the request streams that started here, so each stops \
    counting after leases.request and the limit does not hold; give every HTTP connection manager that asks streamgate the two access_log entries \
    of envoy/envoy.yaml and an access_log_flush_interval of at most a third of leases.request";

/// Whether Envoy's access log reaches the installation, as far as this instance can tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AccessLog {
    /// Nothing is known yet.
    #[default]
    Unknown,
    /// It does.
    Arrives,
    /// It doesn't.
    Missing,
}

/// What is known of the access log.
#[derive(Debug)]
pub(super) struct Wiring {
    /// How old a session is when two reports of it should have come: three are due in a lease.
    due: Duration,
    /// How old a session is when the store may not count it any more.
    too_late: Duration,
    /// What was seen.
    seen: Mutex<Seen>,
    /// Whether the sample has no room, so that most starts need no lock.
    full: AtomicBool,
    /// Tells that a session is in the sample.
    sampled: Notify,
}

/// What was seen of the access log.
#[derive(Debug, Default)]
struct Seen {
    /// What follows from it.
    state: AccessLog,
    /// When an entry last came to this instance.
    heard: Option<Stopwatch>,
    /// How many sessions in a row nobody has renewed or ended.
    silent: usize,
    /// How many sessions in a row somebody has.
    reported: usize,
    /// The sessions that are yet to be judged, oldest first.
    sample: VecDeque<Begun>,
}

/// A `request` session that started here.
#[derive(Debug, Clone)]
pub(super) struct Begun {
    /// Whose it is.
    pub(super) user: UserId,
    /// Which it is.
    pub(super) key: SessionKey,
    /// What marks it until somebody renews it.
    pub(super) ticket: Ticket,
    /// When it started.
    pub(super) since: Stopwatch,
}

impl Wiring {
    /// Nothing is known yet. `lease` is that of a `request`.
    pub(super) fn new(lease: Duration) -> Self {
        Self {
            due: lease * 2 / 3,
            too_late: lease * 5 / 6,
            seen: Mutex::default(),
            full: AtomicBool::default(),
            sampled: Notify::new(),
        }
    }

    /// Whether the access log arrives.
    pub(super) fn state(&self) -> AccessLog {
        self.seen().state
    }

    /// A `request` session has started here. Where the sample is full it is left out.
    pub(super) fn begun(&self, user: &UserId, key: &SessionKey, ticket: Ticket) {
        if self.full.load(Ordering::Relaxed) {
            return;
        }
        let mut seen = self.seen();
        if seen.sample.len() >= SAMPLE {
            return;
        }
        seen.sample.push_back(Begun {
            user: user.clone(),
            key: key.clone(),
            ticket,
            since: Stopwatch::start(),
        });
        self.full
            .store(seen.sample.len() >= SAMPLE, Ordering::Relaxed);
        drop(seen);
        self.sampled.notify_one();
    }

    /// The call that started the session undid it, or this instance renews it itself, so it proves nothing about the access log.
    pub(super) fn exclude(&self, user: &UserId, key: &SessionKey) {
        self.keep(&mut self.seen(), |begun| {
            begun.key != *key || begun.user != *user
        });
    }

    /// The store may have forgotten the sessions so far: that it doesn't count one proves nothing.
    pub(super) fn forget(&self) {
        let mut seen = self.seen();
        seen.reported = 0;
        self.keep(&mut seen, |_| false);
    }

    /// Keeps those of the sample; whether others were in it.
    fn keep(&self, seen: &mut Seen, keep: impl Fn(&Begun) -> bool) -> bool {
        let before = seen.sample.len();
        seen.sample.retain(keep);
        self.full
            .store(seen.sample.len() >= SAMPLE, Ordering::Relaxed);
        seen.sample.len() != before
    }

    /// An entry with our mark has come to this instance.
    pub(super) fn heard(&self, metrics: &Metrics) {
        let mut seen = self.seen();
        seen.heard = Some(Stopwatch::start());
        seen.arrives(metrics);
    }

    /// The next session that the store has to be asked about, once it is time. It stays in the sample until it is judged.
    pub(super) async fn next(&self) -> Begun {
        loop {
            let Some(begun) = self.oldest() else {
                self.sampled.notified().await;
                continue;
            };
            let wait = self.due.saturating_sub(begun.since.elapsed());
            if wait.is_zero() {
                return begun;
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// The oldest session that the store can still be asked about. An entry that has come since a session began has answered the question, and
    /// one that is too old may have expired.
    fn oldest(&self) -> Option<Begun> {
        let mut seen = self.seen();
        let heard = seen.heard;
        self.keep(&mut seen, |begun| {
            !begun.is_before(heard) && begun.since.elapsed() < self.too_late
        });
        seen.sample.front().cloned()
    }

    /// Takes note of the user's sessions that the store counts, one of which may be that one.
    pub(super) fn judge(&self, begun: &Begun, live: &[Session], metrics: &Metrics) {
        let mut seen = self.seen();
        let is_of_use = self.keep(&mut seen, |other| other.ticket != begun.ticket)
            && begun.since.elapsed() < self.too_late
            && !begun.is_before(seen.heard);
        if !is_of_use {
            return;
        }
        let is_silent = live
            .iter()
            .any(|session| session.key == begun.key && session.ticket == Some(begun.ticket));
        if is_silent {
            seen.is_silent(metrics);
        } else {
            seen.is_reported(metrics);
        }
    }

    /// What was seen; held for a moment only.
    fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.seen)
    }
}

impl Begun {
    /// Whether it began before that.
    fn is_before(&self, then: Option<Stopwatch>) -> bool {
        then.is_some_and(|then| then.elapsed() <= self.since.elapsed())
    }
}

impl Seen {
    /// Somebody has reported of one more stream.
    fn is_reported(&mut self, metrics: &Metrics) {
        (self.silent, self.reported) = (0, self.reported + 1);
        if self.reported >= PROOF {
            self.arrives(metrics);
        }
    }

    /// Somebody reports of streams.
    fn arrives(&mut self, metrics: &Metrics) {
        self.silent = 0;
        if std::mem::replace(&mut self.state, AccessLog::Arrives) == AccessLog::Missing {
            info!("Envoy's access log arrives");
            metrics.access_log_missing(false);
        }
    }

    /// Nobody has reported of one more stream.
    fn is_silent(&mut self, metrics: &Metrics) {
        (self.silent, self.reported) = (self.silent + 1, 0);
        if self.silent >= PROOF && self.state != AccessLog::Missing {
            self.state = AccessLog::Missing;
            warn!("{UNWIRED}");
            metrics.access_log_missing(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{Facts, Flags, Kind, SessionId, Timestamp};

    const LEASE: Duration = Duration::from_secs(15);

    fn user() -> UserId {
        UserId::parse("anna").unwrap()
    }

    fn ticket(id: u32) -> Ticket {
        Ticket::new(id).unwrap()
    }

    fn key(id: u32) -> SessionKey {
        SessionKey {
            kind: Kind::Request,
            id: SessionId::parse(&id.to_string()).unwrap(),
        }
    }

    /// The session as the store counts it, with its ticket if nobody has renewed it.
    fn session(id: u32, is_renewed: bool) -> Session {
        Session {
            key: key(id),
            facts: Facts::default(),
            started_at: Timestamp::default(),
            renewed_at: Timestamp::default(),
            expires_at: Timestamp::default(),
            ticket: (!is_renewed).then(|| ticket(id)),
            flags: Flags::default(),
        }
    }

    /// Starts that session, and has the store count these when it is asked.
    async fn start(wiring: &Wiring, id: u32, live: &[Session], metrics: &Metrics) -> AccessLog {
        wiring.begun(&user(), &key(id), ticket(id));
        let begun = wiring.next().await;
        assert_eq!(begun.key, key(id));
        wiring.judge(&begun, live, metrics);
        wiring.state()
    }

    #[tokio::test(start_paused = true)]
    async fn two_sessions_in_a_row_show_whether_the_log_arrives() {
        let (wiring, metrics) = (Wiring::new(LEASE), Metrics::new().unwrap());
        let silent = |id| [session(id, false)];
        for (id, live, expected) in [
            (1, &silent(1)[..], AccessLog::Unknown),
            // It has ended.
            (2, &[], AccessLog::Unknown),
            (3, &silent(3), AccessLog::Unknown),
            (4, &[session(4, true)], AccessLog::Unknown),
            (5, &[], AccessLog::Arrives),
            (6, &silent(6), AccessLog::Arrives),
            (7, &silent(7), AccessLog::Missing),
            (8, &[session(8, true)], AccessLog::Missing),
            (9, &silent(9), AccessLog::Missing),
            (10, &[session(10, true)], AccessLog::Missing),
            (11, &[], AccessLog::Arrives),
        ] {
            assert_eq!(start(&wiring, id, live, &metrics).await, expected, "{id}");
            let missing = i32::from(expected == AccessLog::Missing);
            let line = format!("streamgate_access_log_missing {missing}\n");
            assert!(metrics.render().contains(&line), "{id}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_to_this_instance_needs_no_question() {
        let (wiring, metrics) = (Wiring::new(LEASE), Metrics::new().unwrap());
        for id in [1, 2] {
            start(&wiring, id, &[session(id, false)], &metrics).await;
        }
        assert_eq!(wiring.state(), AccessLog::Missing);
        wiring.begun(&user(), &key(3), ticket(3));
        wiring.heard(&metrics);
        assert_eq!(wiring.state(), AccessLog::Arrives);
        tokio::time::advance(Duration::from_millis(1)).await;
        wiring.begun(&user(), &key(4), ticket(4));
        // The third was answered by the entry.
        let begun = wiring.next().await;
        assert_eq!(begun.key, key(4));
        // An entry has come while the store was asked.
        wiring.heard(&metrics);
        for _ in 0..PROOF {
            wiring.judge(&begun, &[session(4, false)], &metrics);
        }
        assert_eq!(wiring.state(), AccessLog::Arrives);
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_answer_and_what_was_excluded_meanwhile_say_nothing() {
        let (wiring, metrics) = (Wiring::new(LEASE), Metrics::new().unwrap());
        for round in 0..=PROOF {
            wiring.begun(&user(), &key(1), ticket(1));
            wiring.begun(&user(), &key(2), ticket(2));
            wiring.exclude(&user(), &key(1));
            let begun = wiring.next().await;
            assert_eq!(begun.key, key(2));
            match round {
                0 => tokio::time::advance(LEASE / 6).await,
                1 => wiring.exclude(&user(), &key(2)),
                _ => wiring.forget(),
            }
            wiring.judge(&begun, &[], &metrics);
            assert_eq!(wiring.seen().reported, 0, "{round}");
            assert!(wiring.seen().sample.is_empty(), "{round}");
        }
        assert_eq!(wiring.state(), AccessLog::Unknown);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_too_old_is_not_asked_about() {
        let wiring = Wiring::new(LEASE);
        wiring.begun(&user(), &key(1), ticket(1));
        tokio::time::advance(LEASE * 5 / 6).await;
        wiring.begun(&user(), &key(2), ticket(2));
        assert_eq!(wiring.next().await.key, key(2));
    }

    #[tokio::test(start_paused = true)]
    async fn an_absence_before_a_loss_was_found_is_no_proof_after_it() {
        let (wiring, metrics) = (Wiring::new(LEASE), Metrics::new().unwrap());
        for id in 1..=3 {
            start(&wiring, id, &[], &metrics).await;
            wiring.forget();
        }
        assert_eq!(wiring.state(), AccessLog::Unknown);
    }

    #[tokio::test(start_paused = true)]
    async fn the_sample_is_bounded() {
        let wiring = Wiring::new(LEASE);
        for round in 0..3 {
            for id in 1..=1000 {
                wiring.begun(&user(), &key(id), ticket(id));
            }
            assert_eq!(wiring.seen().sample.len(), SAMPLE, "{round}");
            // There is room again for one, and then for all.
            wiring.exclude(&user(), &key(1));
            wiring.begun(&user(), &key(1001), ticket(1001));
            assert_eq!(wiring.seen().sample.len(), SAMPLE, "{round}");
            wiring.forget();
        }
    }
}
