//! Detects whether Envoy's access log reaches the installation. Without it a `request` stream
//! counts for only one lease, and the limit silently fails.
//!
//! Entries that arrive at this instance prove it. If none arrive, they may go to another instance,
//! so the ledger asks the store about a sample of the `request` sessions that started here: by the
//! time two reports of each should have come, something has renewed or ended it. If that isn't so
//! for [`PROOF`] in a row, no access log arrives. Sessions that this instance renews itself prove
//! nothing, and neither do those that the store has lost.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tracing::{info, warn};

use crate::clock::Stopwatch;
use crate::identity::{SessionKey, UserId};
use crate::session::{Session, Ticket};
use crate::telemetry::Metrics;
use crate::util::lock;

/// How many sessions wait for the store to be asked about them.
const SAMPLE: usize = 16;

/// How many sessions in a row prove that the access log arrives, or that it doesn't. One may be
/// chance.
const PROOF: usize = 2;

/// What to do if no access log arrives: a self-contained sentence.
pub const UNWIRED: &str = "Envoy's access log does not arrive: the request streams that started here were neither renewed nor ended, so each stops counting after leases.request and the limit does not hold; add the two access_log entries of envoy/envoy.yaml, and an access_log_flush_interval of at most a third of leases.request, to every HTTP connection manager that asks streamgate";

/// Whether Envoy's access log reaches the installation, as far as this instance can tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AccessLog {
    /// Not known yet.
    #[default]
    Unknown,
    /// It arrives.
    Arrives,
    /// It doesn't arrive.
    Missing,
}

/// What is known about the access log.
#[derive(Debug)]
pub(super) struct Wiring {
    /// The age of a session when two reports about it should have arrived; three are due in the
    /// lease of a `request` session.
    due: Duration,
    /// The age of a session when the store may no longer count it.
    too_late: Duration,
    /// The observations.
    seen: Mutex<WiringState>,
    /// Whether the sample is full, so that most starts need no lock.
    full: AtomicBool,
    /// Notified when a session is in the sample.
    sampled: Notify,
}

/// The observations about the access log.
#[derive(Debug, Default)]
struct WiringState {
    /// The conclusion.
    state: AccessLog,
    /// When an entry last arrived at this instance.
    heard: Option<Stopwatch>,
    /// How many sessions in a row were neither renewed nor ended.
    silent: usize,
    /// How many sessions in a row were.
    reported: usize,
    /// The sessions to judge, oldest first.
    sample: VecDeque<Begun>,
}

/// A `request` session that started here.
#[derive(Debug, Clone)]
pub(super) struct Begun {
    /// Its user.
    pub(super) user: UserId,
    /// Its key.
    pub(super) key: SessionKey,
    /// Its ticket, which stays until it is renewed.
    pub(super) ticket: Ticket,
    /// When it started.
    pub(super) since: Stopwatch,
}

impl Wiring {
    /// Starts in the unknown state. `lease` is that of a `request`.
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

    /// Records that a `request` session has started here. If the sample is full it is left out.
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

    /// Records that the call that started the session undid it, or that this instance renews it
    /// itself, so that it proves nothing about the access log.
    pub(super) fn exclude(&self, user: &UserId, key: &SessionKey) {
        self.keep(&mut self.seen(), |begun| {
            begun.key != *key || begun.user != *user
        });
    }

    /// Drops the sessions so far, because the store may have lost them: if it doesn't count one,
    /// that proves nothing.
    pub(super) fn forget(&self) {
        let mut seen = self.seen();
        seen.reported = 0;
        self.keep(&mut seen, |_| false);
    }

    /// Keeps those of the sample; returns whether others were in it.
    fn keep(&self, seen: &mut WiringState, keep: impl Fn(&Begun) -> bool) -> bool {
        let before = seen.sample.len();
        seen.sample.retain(keep);
        self.full
            .store(seen.sample.len() >= SAMPLE, Ordering::Relaxed);
        seen.sample.len() != before
    }

    /// Records that an entry with our mark has arrived at this instance.
    pub(super) fn heard(&self, metrics: &Metrics) {
        let mut seen = self.seen();
        seen.heard = Some(Stopwatch::start());
        seen.arrives(metrics);
    }

    /// The next session to ask the store about, once it is time. It stays in the sample until it is
    /// judged.
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

    /// The oldest session that the store can still be asked about. An entry that has arrived since
    /// a session began has answered the question, and a session that is too old may have expired.
    fn oldest(&self) -> Option<Begun> {
        let mut seen = self.seen();
        let heard = seen.heard;
        self.keep(&mut seen, |begun| {
            !begun.is_before(heard) && begun.since.elapsed() < self.too_late
        });
        seen.sample.front().cloned()
    }

    /// Judges a session by the user's sessions that the store counts.
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

    /// The lock on the observations, held only briefly.
    fn seen(&self) -> MutexGuard<'_, WiringState> {
        lock(&self.seen)
    }
}

impl Begun {
    /// Whether it began before that.
    fn is_before(&self, then: Option<Stopwatch>) -> bool {
        then.is_some_and(|then| then.elapsed() <= self.since.elapsed())
    }
}

impl WiringState {
    /// Counts another stream that was reported.
    fn is_reported(&mut self, metrics: &Metrics) {
        (self.silent, self.reported) = (0, self.reported + 1);
        if self.reported >= PROOF {
            self.arrives(metrics);
        }
    }

    /// Concludes that reports arrive.
    fn arrives(&mut self, metrics: &Metrics) {
        self.silent = 0;
        if std::mem::replace(&mut self.state, AccessLog::Arrives) == AccessLog::Missing {
            info!("Envoy's access log arrives");
            metrics.access_log_missing(false);
        }
    }

    /// Counts another stream that was not reported.
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
    use crate::clock::Timestamp;
    use crate::identity::{Facts, Kind, SessionId};
    use crate::session::Flags;

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

    /// The session as the store counts it, with its ticket unless it was renewed.
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

    /// Starts that session, and lets the store count these when it is asked.
    async fn start(wiring: &Wiring, id: u32, live: &[Session], metrics: &Metrics) -> AccessLog {
        wiring.begun(&user(), &key(id), ticket(id));
        let begun = wiring.next().await;
        assert_eq!(begun.key, key(id));
        wiring.judge(&begun, live, metrics);
        wiring.state()
    }

    #[tokio::test(start_paused = true)]
    async fn two_sessions_in_a_row_show_whether_the_log_arrives() {
        let (wiring, metrics) = (Wiring::new(LEASE), Metrics::new());
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
    async fn entries_at_this_instance_need_no_question() {
        let (wiring, metrics) = (Wiring::new(LEASE), Metrics::new());
        for id in [1, 2] {
            start(&wiring, id, &[session(id, false)], &metrics).await;
        }
        assert_eq!(wiring.state(), AccessLog::Missing);
        wiring.begun(&user(), &key(3), ticket(3));
        wiring.heard(&metrics);
        assert_eq!(wiring.state(), AccessLog::Arrives);
        tokio::time::advance(Duration::from_millis(1)).await;
        wiring.begun(&user(), &key(4), ticket(4));
        // The entry answered the question about the third.
        let begun = wiring.next().await;
        assert_eq!(begun.key, key(4));
        // An entry has arrived while the store was asked.
        wiring.heard(&metrics);
        for _ in 0..PROOF {
            wiring.judge(&begun, &[session(4, false)], &metrics);
        }
        assert_eq!(wiring.state(), AccessLog::Arrives);
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_answer_and_what_was_excluded_meanwhile_say_nothing() {
        let (wiring, metrics) = (Wiring::new(LEASE), Metrics::new());
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
    async fn the_store_is_not_asked_about_old_sessions() {
        let wiring = Wiring::new(LEASE);
        wiring.begun(&user(), &key(1), ticket(1));
        tokio::time::advance(LEASE * 5 / 6).await;
        wiring.begun(&user(), &key(2), ticket(2));
        assert_eq!(wiring.next().await.key, key(2));
    }

    #[tokio::test(start_paused = true)]
    async fn an_absence_before_a_detected_loss_proves_nothing() {
        let (wiring, metrics) = (Wiring::new(LEASE), Metrics::new());
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
