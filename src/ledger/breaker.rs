//! Tracks whether the store answers, from the results of its calls, and derives a circuit breaker
//! from it.
//!
//! The breaker opens after [`FAILURES`] failed calls in a row, or when the store reports that it
//! cannot connect: further calls would cost each check its deadline, and a struggling store more
//! load. While it is open only probes are made, one at a time, and when they succeed the breaker
//! closes. A store that keeps failing right after a probe must answer more probes each time, so
//! that nothing above flaps faster than that. Each change is one log line.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tracing::{info, warn};

use crate::clock::Stopwatch;
use crate::config::OutageRule;
use crate::store::StoreError;
use crate::telemetry::Metrics;
use crate::util::lock;

/// How many calls must fail in a row before the store counts as down: a lost packet or two is no
/// outage.
const FAILURES: u32 = 5;

/// How long the store must have answered for its next failure to count as a new outage, not a
/// continuation of the last.
const PROVEN: Duration = Duration::from_secs(10);

/// The most probes in a row that a store that keeps failing has to answer. They are some 100 ms
/// apart.
const MOST_PROBES: u32 = 16;

/// How long no call may have found the store full before it counts as having room again: most calls
/// need none.
const ROOM_AGAIN: Duration = Duration::from_secs(10);

/// The store's health.
#[derive(Debug)]
pub(super) struct Breaker {
    /// What its calls have shown.
    known: Mutex<Known>,
    /// What decides while it is down.
    rule: OutageRule,
    /// Whether calls are made: a copy of the state that is cheap to read.
    open: AtomicBool,
    /// The same, for tasks that wait for a change.
    up: watch::Sender<bool>,
    /// Notified when a probe has failed and the store still counts as up.
    probe_failed: Notify,
}

/// The store according to its last calls.
#[derive(Debug, Default)]
struct Known {
    /// Whether it answers.
    state: State,
    /// How many probes in a row it must answer after its next failure.
    probes: u32,
    /// When it last reported that it is full, and the message.
    full: Option<(Stopwatch, String)>,
    /// When a lost connection last counted as a failure.
    cut: Option<Stopwatch>,
}

/// Whether the store answers.
#[derive(Debug, Default)]
enum State {
    /// Not known yet.
    #[default]
    Unknown,
    /// It answers.
    Up {
        /// Since when.
        since: Stopwatch,
        /// How many of the last calls have failed.
        failures: u32,
    },
    /// It doesn't answer.
    Down {
        /// Why.
        reason: String,
        /// How many probes it must still answer.
        probes: u32,
    },
}

/// A call to the store.
#[derive(Debug, Clone, Copy)]
pub(super) struct StoreCall {
    /// When it began.
    pub(super) asked: Stopwatch,
    /// Whether its purpose is to check the store.
    pub(super) is_probe: bool,
}

/// The store's health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreHealth {
    /// Whether it answers.
    pub up: bool,
    /// What is wrong: why it doesn't answer, or that it is full.
    pub trouble: Option<String>,
    /// What decides about new streams while it doesn't answer or is full.
    pub rule: Option<OutageRule>,
}

impl Breaker {
    /// A breaker in the unknown state. `rule` decides while the store is down.
    pub(super) fn new(rule: OutageRule) -> Self {
        Self {
            known: Mutex::default(),
            rule,
            open: AtomicBool::new(true),
            up: watch::Sender::new(false),
            probe_failed: Notify::new(),
        }
    }

    /// Whether a call may be made.
    ///
    /// # Errors
    /// The breaker is open.
    pub(super) fn may_ask(&self) -> Result<(), StoreError> {
        if self.open.load(Ordering::Acquire) {
            return Ok(());
        }
        match &self.known().state {
            State::Down { reason, .. } => Err(StoreError::NotAsked(reason.clone())),
            State::Unknown | State::Up { .. } => Ok(()),
        }
    }

    /// Reports from now on whether the store answers.
    pub(super) fn watch(&self) -> watch::Receiver<bool> {
        self.up.subscribe()
    }

    /// Waits until a probe has failed; returns immediately if one has since the last wait.
    pub(super) async fn probe_failed(&self) {
        self.probe_failed.notified().await;
    }

    /// Records a call's result. While the breaker is open only a probe's counts; after it has
    /// closed, calls that began before don't count.
    pub(super) fn note(&self, error: Option<&StoreError>, call: StoreCall, metrics: &Metrics) {
        let mut known = self.known();
        match error {
            None => known.note_room(),
            Some(full @ StoreError::Full(_)) => known.note_full(full, self.rule),
            Some(_) => {}
        }
        match error {
            // A full store does answer; it only has no room for another session.
            None | Some(StoreError::Full(_)) => known.note_answer(call.is_probe),
            // Only one user's key may hold undecodable data. If every answer is like that, the
            // probes reveal it.
            Some(StoreError::Protocol(_)) if !call.is_probe => {}
            Some(error) if known.is_news(error, call) => {
                known.note_failure(error, self.rule);
                if call.is_probe && matches!(known.state, State::Up { .. }) {
                    self.probe_failed.notify_one();
                }
            }
            Some(_) => {}
        }
        self.tell(&known, metrics);
    }

    /// Records that the store has reported its own outage.
    pub(super) fn note_loss(&self, error: &StoreError, metrics: &Metrics) {
        let mut known = self.known();
        known.note_outage(error, self.rule);
        self.tell(&known, metrics);
    }

    /// Publishes the state.
    fn tell(&self, known: &Known, metrics: &Metrics) {
        let up = matches!(known.state, State::Up { .. });
        let open = !matches!(known.state, State::Down { .. });
        self.open.store(open, Ordering::Release);
        metrics.store_up(up);
        metrics.outage_rule((!open || known.full.is_some()).then_some(self.rule));
        self.up
            .send_if_modified(|told| std::mem::replace(told, up) != up);
    }

    /// The store's health.
    pub(super) fn health(&self) -> StoreHealth {
        let known = self.known();
        let full = known.full.as_ref().map(|(_, said)| said.clone());
        let (up, trouble) = match &known.state {
            State::Unknown => (false, Some("it has not answered yet".to_owned())),
            State::Up { .. } => (true, full.clone()),
            State::Down { reason, .. } => (false, Some(reason.clone())),
        };
        let out = full.is_some() || matches!(known.state, State::Down { .. });
        StoreHealth {
            up,
            trouble,
            rule: out.then_some(self.rule),
        }
    }

    /// The lock on the state, held only briefly.
    fn known(&self) -> MutexGuard<'_, Known> {
        lock(&self.known)
    }
}

impl Known {
    /// Whether a failed call says something new about the store. All calls in progress on a
    /// connection, or waiting for the next one, fail with it and count as one failure, because
    /// servers also close healthy connections.
    fn is_news(&self, error: &StoreError, call: StoreCall) -> bool {
        let began_before = |moment: Stopwatch| call.asked.elapsed() > moment.elapsed();
        let is_told = wants_connection(error) && self.cut.is_some_and(began_before);
        let is_old = match self.state {
            State::Up { since, .. } => began_before(since),
            State::Down { .. } => !call.is_probe,
            State::Unknown => false,
        };
        !is_told && !is_old
    }

    /// Records that the store is full.
    fn note_full(&mut self, error: &StoreError, rule: OutageRule) {
        if self.full.is_none() {
            warn!(%error, "the store has no room: new streams are {}, running ones are renewed and released", said(rule));
        }
        self.full = Some((Stopwatch::start(), error.to_string()));
    }

    /// Records that a call didn't find it full.
    fn note_room(&mut self) {
        if self
            .full
            .as_ref()
            .is_some_and(|(since, _)| since.elapsed() >= ROOM_AGAIN)
        {
            info!("the store has room again");
            self.full = None;
        }
    }

    /// Records an answer.
    fn note_answer(&mut self, is_probe: bool) {
        match &mut self.state {
            State::Up { failures, .. } => *failures = 0,
            State::Down { .. } if !is_probe => {}
            State::Down { probes, .. } if *probes > 1 => *probes -= 1,
            State::Unknown | State::Down { .. } => {
                info!("the store answers");
                self.state = State::Up {
                    since: Stopwatch::start(),
                    failures: 0,
                };
            }
        }
    }

    /// Records a failure.
    fn note_failure(&mut self, error: &StoreError, rule: OutageRule) {
        if wants_connection(error) {
            self.cut = Some(Stopwatch::start());
        }
        match &mut self.state {
            State::Up { failures, .. } if *failures + 1 < FAILURES => *failures += 1,
            _ => self.note_outage(error, rule),
        }
    }

    /// Records an outage.
    fn note_outage(&mut self, error: &StoreError, rule: OutageRule) {
        let text = match error {
            StoreError::NotAsked(reason) => reason.clone(),
            _ => error.to_string(),
        };
        self.probes = match &mut self.state {
            State::Down { reason, probes } => {
                // The answers must come in a row.
                (*reason, *probes) = (text, self.probes);
                return;
            }
            State::Up { since, .. } if since.elapsed() < PROVEN => {
                (self.probes * 2).clamp(1, MOST_PROBES)
            }
            State::Up { .. } | State::Unknown => 1,
        };
        warn!(
            reason = text,
            "the store doesn't answer: new streams are {}, running ones continue",
            said(rule)
        );
        self.state = State::Down {
            reason: text,
            probes: self.probes,
        };
    }
}

/// Whether a call failed because its connection was lost or not ready yet.
const fn wants_connection(error: &StoreError) -> bool {
    matches!(error, StoreError::Disconnected(_) | StoreError::NotAsked(_))
}

/// The effect of a rule on new streams, in words.
const fn said(rule: OutageRule) -> &'static str {
    match rule {
        OutageRule::Allow => "let in (store.outage: allow)",
        OutageRule::Deny => "denied with 503 (store.outage: deny)",
        OutageRule::Local => "counted only by this instance (store.outage: local)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::LabelValue;

    /// A call that begins now.
    fn call() -> StoreCall {
        StoreCall {
            asked: Stopwatch::start(),
            is_probe: false,
        }
    }

    fn probe() -> StoreCall {
        StoreCall {
            is_probe: true,
            ..call()
        }
    }

    fn timeout() -> StoreError {
        StoreError::Timeout(Duration::from_millis(50))
    }

    /// A breaker whose store has answered once.
    fn beating(metrics: &Metrics) -> Breaker {
        let breaker = Breaker::new(OutageRule::Deny);
        breaker.note(None, call(), metrics);
        breaker
    }

    /// Records that many failed calls.
    fn fail(breaker: &Breaker, times: u32, metrics: &Metrics) {
        for _ in 0..times {
            breaker.note(Some(&timeout()), call(), metrics);
        }
    }

    #[test]
    fn some_lost_calls_are_no_outage_and_a_probe_ends_one() {
        let metrics = Metrics::new();
        let breaker = beating(&metrics);
        let full = StoreError::Full("no room".to_owned());
        for _ in 0..3 {
            fail(&breaker, FAILURES - 1, &metrics);
            assert!(breaker.health().up && breaker.may_ask().is_ok());
            // A store that reports that it is full has answered.
            breaker.note(Some(&full), call(), &metrics);
        }
        fail(&breaker, FAILURES, &metrics);
        assert!(metrics.render().contains("streamgate_store_up 0"));
        let refused = StoreError::NotAsked(timeout().to_string());
        assert_eq!(breaker.may_ask(), Err(refused));
        // A call that was in progress is no probe.
        breaker.note(None, call(), &metrics);
        assert!(breaker.may_ask().is_err());
        breaker.note(None, probe(), &metrics);
        assert!(breaker.may_ask().is_ok() && *breaker.watch().borrow());
        assert!(metrics.render().contains("streamgate_store_up 1"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_keeps_failing_must_answer_more_probes() {
        let metrics = Metrics::new();
        let breaker = beating(&metrics);
        tokio::time::advance(PROVEN).await;
        for probes in [1, 2, 4, 8, 16, 16] {
            fail(&breaker, FAILURES, &metrics);
            for _ in 0..probes - 1 {
                breaker.note(None, probe(), &metrics);
                assert!(breaker.may_ask().is_err(), "{probes} probes are needed");
            }
            // The answers must come in a row.
            breaker.note(Some(&timeout()), probe(), &metrics);
            for _ in 0..probes {
                assert!(breaker.may_ask().is_err(), "{probes} probes are needed");
                breaker.note(None, probe(), &metrics);
            }
            assert!(breaker.may_ask().is_ok());
        }
        tokio::time::advance(PROVEN).await;
        fail(&breaker, FAILURES, &metrics);
        breaker.note(None, probe(), &metrics);
        assert!(breaker.may_ask().is_ok());
    }

    #[test]
    fn a_store_that_never_answered_is_not_up_and_is_asked() {
        let metrics = Metrics::new();
        for rule in [OutageRule::Allow, OutageRule::Deny, OutageRule::Local] {
            let breaker = Breaker::new(rule);
            let unasked = breaker.health();
            assert_eq!((unasked.up, unasked.trouble.is_some()), (false, true));
            assert_eq!((unasked.rule, breaker.may_ask()), (None, Ok(())));
            let error = StoreError::Disconnected("refused".to_owned());
            breaker.note(Some(&error), call(), &metrics);
            let refused = StoreHealth {
                up: false,
                trouble: Some("no connection: refused".to_owned()),
                rule: Some(rule),
            };
            assert_eq!(breaker.health(), refused);
            for other in OutageRule::ALL {
                let series = format!("streamgate_outage_rule{{rule=\"{}\"}}", other.as_str());
                let line = format!("{series} {}\n", i32::from(*other == rule));
                assert!(metrics.render().contains(&line), "no {line}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_older_than_the_recovery_does_not_count() {
        let metrics = Metrics::new();
        let breaker = beating(&metrics);
        let late = call();
        tokio::time::advance(Duration::from_millis(10)).await;
        fail(&breaker, FAILURES, &metrics);
        breaker.note(None, probe(), &metrics);
        for _ in 0..FAILURES {
            breaker.note(Some(&timeout()), late, &metrics);
        }
        assert!(breaker.health().up);
        fail(&breaker, FAILURES, &metrics);
        assert!(!breaker.health().up);
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_want_the_same_connection_are_one_failure() {
        let metrics = Metrics::new();
        let cut = StoreError::Disconnected("closed".to_owned());
        let unopened = StoreError::NotAsked("still connecting".to_owned());
        for (first, others) in [(&cut, &cut), (&unopened, &unopened), (&cut, &unopened)] {
            let breaker = beating(&metrics);
            let times = |times: u32| (0..times).map(|_| call()).collect::<Vec<_>>();
            let calls = times(FAILURES * 2);
            tokio::time::advance(Duration::from_millis(1)).await;
            breaker.note(Some(first), calls[0], &metrics);
            for call in &calls[1..] {
                tokio::time::advance(Duration::from_millis(1)).await;
                breaker.note(Some(others), *call, &metrics);
            }
            assert!(breaker.health().up, "{first}, {others}");
            // Each of these began after the previous connection was lost.
            for _ in 1..FAILURES {
                assert!(breaker.health().up, "{first}, {others}");
                tokio::time::advance(Duration::from_millis(1)).await;
                breaker.note(Some(others), call(), &metrics);
            }
            assert!(!breaker.health().up, "{first}, {others}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_failure_in_an_outage_hides_neither_probes_nor_reason() {
        let metrics = Metrics::new();
        let breaker = beating(&metrics);
        // The second outage in a row takes two probes.
        fail(&breaker, FAILURES, &metrics);
        breaker.note(None, probe(), &metrics);
        fail(&breaker, FAILURES, &metrics);
        breaker.note(None, probe(), &metrics);
        let late = StoreError::Rejected("LOADING".to_owned());
        breaker.note(Some(&late), call(), &metrics);
        assert_eq!(breaker.health().trouble, Some(timeout().to_string()));
        breaker.note(None, probe(), &metrics);
        assert!(breaker.health().up);
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_store_that_counts_as_up_is_probed_again_at_once() {
        let metrics = Metrics::new();
        let breaker = beating(&metrics);
        let is_told = async || {
            tokio::time::timeout(Duration::from_secs(1), breaker.probe_failed())
                .await
                .is_ok()
        };
        breaker.note(Some(&timeout()), probe(), &metrics);
        assert!(is_told().await);
        fail(&breaker, FAILURES, &metrics);
        breaker.note(Some(&timeout()), probe(), &metrics);
        assert!(!is_told().await);
    }

    #[test]
    fn a_store_without_a_connection_is_down_at_once() {
        let metrics = Metrics::new();
        let breaker = beating(&metrics);
        let refused = StoreError::NotAsked("no connection: refused".to_owned());
        breaker.note_loss(&refused, &metrics);
        let health = breaker.health();
        assert_eq!((health.up, health.rule), (false, Some(OutageRule::Deny)));
        assert_eq!(health.trouble.unwrap(), "no connection: refused");
        assert!(metrics.render().contains("streamgate_store_up 0"));
        assert!(!*breaker.watch().borrow() && breaker.may_ask().is_err());
        breaker.note(None, probe(), &metrics);
        assert!(breaker.health().up);
    }

    #[tokio::test(start_paused = true)]
    async fn a_timeout_does_not_prove_room() {
        let metrics = Metrics::new();
        let breaker = beating(&metrics);
        let full = StoreError::Full("no room".to_owned());
        breaker.note(Some(&full), call(), &metrics);
        tokio::time::advance(ROOM_AGAIN).await;
        breaker.note(Some(&timeout()), call(), &metrics);
        assert_eq!(breaker.health().trouble, Some(full.to_string()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_store_stays_full_until_it_has_had_room_for_a_while() {
        let metrics = Metrics::new();
        let breaker = beating(&metrics);
        let full = StoreError::Full("no room".to_owned());
        for _ in 0..2 {
            breaker.note(Some(&full), call(), &metrics);
            tokio::time::advance(ROOM_AGAIN / 2).await;
            breaker.note(None, call(), &metrics);
            let health = breaker.health();
            assert_eq!((health.up, health.trouble), (true, Some(full.to_string())));
            assert_eq!(health.rule, Some(OutageRule::Deny));
        }
        tokio::time::advance(ROOM_AGAIN / 2).await;
        breaker.note(None, call(), &metrics);
        let health = breaker.health();
        assert_eq!((health.up, health.trouble, health.rule), (true, None, None));
    }
}
