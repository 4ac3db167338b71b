//! Whether Envoy's access log reaches the installation. Without it a `request` stream counts for one lease and no longer, and the limit
//! quietly doesn't hold.
//!
//! Entries that come to this instance settle it. Where none come, they may go to another instance, so the store is asked about a sample of the
//! `request` sessions that started here: by the time that two reports of each should have come, somebody has renewed or ended it. If nobody has,
//! of several in a row, no access log arrives.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tracing::{info, warn};

use super::suspicion::{PROOF, SAMPLE};
use crate::clock::Stopwatch;
use crate::session::{Session, SessionKey, Ticket, UserId};
use crate::telemetry::Metrics;

/// What to do where no access log arrives: a sentence that can stand alone.
pub const UNWIRED: &str = "Envoy's access log does not arrive: nobody renewed or ended the request streams that started here, so each stops \
    counting after leases.request and the limit does not hold; give every HTTP connection manager that asks streamgate the two access_log entries \
    and the access_log_flush_interval of envoy/envoy.yaml";

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
    /// How long a `request` session counts; three reports of it are due in that time.
    lease: Duration,
    /// What was seen.
    seen: Mutex<Seen>,
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
    /// The sessions that the store is yet to be asked about, oldest first.
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
            lease,
            seen: Mutex::default(),
            sampled: Notify::new(),
        }
    }

    /// Whether the access log arrives.
    pub(super) fn state(&self) -> AccessLog {
        self.seen().state
    }

    /// A `request` session has started here. Where the sample is full it is left out.
    pub(super) fn begun(&self, user: &UserId, key: &SessionKey, ticket: Ticket) {
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
        drop(seen);
        self.sampled.notify_one();
    }

    /// That session's own call has taken it back: it says nothing about the access log.
    pub(super) fn undone(&self, user: &UserId, key: &SessionKey) {
        let mut seen = self.seen();
        seen.sample
            .retain(|begun| begun.key != *key || begun.user != *user);
    }

    /// An entry with our mark has come to this instance.
    pub(super) fn heard(&self, metrics: &Metrics) {
        let mut seen = self.seen();
        seen.heard = Some(Stopwatch::start());
        seen.arrives(metrics);
    }

    /// The next session that the store has to be asked about, once it is time.
    pub(super) async fn next(&self) -> Begun {
        loop {
            let first = self
                .seen()
                .sample
                .front()
                .map(|begun| begun.since.elapsed());
            let Some(age) = first else {
                self.sampled.notified().await;
                continue;
            };
            let wait = self.due().saturating_sub(age);
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
                continue;
            }
            let mut seen = self.seen();
            let heard = seen.heard;
            let begun = seen.sample.pop_front();
            // An entry that has come since has answered the question.
            if let Some(begun) = begun.filter(|begun| !begun.is_before(heard)) {
                return begun;
            }
        }
    }

    /// Takes note of the user's sessions that the store counts, one of which may be that one.
    pub(super) fn judge(&self, begun: &Begun, live: &[Session], metrics: &Metrics) {
        // So late, it may have expired.
        if begun.since.elapsed() >= self.too_late() {
            return;
        }
        let is_silent = live
            .iter()
            .any(|session| session.key == begun.key && session.ticket == Some(begun.ticket));
        let mut seen = self.seen();
        if !is_silent {
            seen.arrives(metrics);
        } else if !begun.is_before(seen.heard) {
            seen.is_silent(metrics);
        }
    }

    /// How old a session is when two reports of it should have come.
    fn due(&self) -> Duration {
        self.lease * 2 / 3
    }

    /// How old a session is when the store may not count it any more.
    fn too_late(&self) -> Duration {
        self.lease * 5 / 6
    }

    /// What was seen; held for a moment only.
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Begun {
    /// Whether it began before that.
    fn is_before(&self, then: Option<Stopwatch>) -> bool {
        then.is_some_and(|then| then.elapsed() <= self.since.elapsed())
    }
}

impl Seen {
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
        self.silent += 1;
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
    async fn two_silent_sessions_in_a_row_show_that_no_log_arrives() {
        let (wiring, metrics) = (Wiring::new(LEASE), Metrics::new().unwrap());
        let silent = |id| [session(id, false)];
        for (id, live, expected) in [
            (1, &silent(1)[..], AccessLog::Unknown),
            // It has ended.
            (2, &[], AccessLog::Arrives),
            (3, &silent(3), AccessLog::Arrives),
            (4, &[session(4, true)], AccessLog::Arrives),
            (5, &silent(5), AccessLog::Arrives),
            (6, &silent(6), AccessLog::Missing),
            (7, &silent(7), AccessLog::Missing),
            (8, &[session(8, true)], AccessLog::Arrives),
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
    async fn a_late_answer_and_a_start_taken_back_say_nothing() {
        let (wiring, metrics) = (Wiring::new(LEASE), Metrics::new().unwrap());
        wiring.begun(&user(), &key(1), ticket(1));
        wiring.begun(&user(), &key(2), ticket(2));
        wiring.undone(&user(), &key(1));
        let begun = wiring.next().await;
        assert_eq!(begun.key, key(2));
        tokio::time::advance(LEASE / 6).await;
        wiring.judge(&begun, &[], &metrics);
        assert_eq!(wiring.state(), AccessLog::Unknown);
    }

    #[tokio::test(start_paused = true)]
    async fn the_sample_is_bounded() {
        let wiring = Wiring::new(LEASE);
        for id in 1..=1000 {
            wiring.begun(&user(), &key(id), ticket(id));
        }
        assert_eq!(wiring.seen().sample.len(), SAMPLE);
    }
}
