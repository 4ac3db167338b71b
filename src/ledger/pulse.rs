//! Whether the store answers: kept from what its calls say, told in one log line at each change.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tracing::{info, warn};

use crate::clock::Stopwatch;
use crate::store::StoreError;
use crate::telemetry::Metrics;

/// So many calls must fail in a row before the store counts as down: one lost packet is no outage.
const FAILURES: u32 = 3;

/// How long no call must have found the store full before it counts as having room again: most calls take none.
const ROOM_AGAIN: Duration = Duration::from_secs(10);

/// What is known of the store's health.
#[derive(Debug, Default)]
pub(super) struct Pulse(Mutex<Known>);

/// The store as its last calls showed it.
#[derive(Debug, Default)]
struct Known {
    /// Whether it answers.
    state: State,
    /// When it last said that it is full, and what it said.
    full: Option<(Stopwatch, String)>,
}

/// Whether the store answers.
#[derive(Debug, Default)]
enum State {
    /// Nothing is known yet.
    #[default]
    Unknown,
    /// It answers, but for the last so many calls.
    Up(u32),
    /// It doesn't, for that reason.
    Down(String),
}

/// How the store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreHealth {
    /// Whether it answers.
    pub up: bool,
    /// What is wrong with it: why it doesn't answer, or that it is full.
    pub trouble: Option<String>,
}

impl Pulse {
    /// Takes note of a call's end.
    pub(super) fn note(&self, error: Option<&StoreError>, metrics: &Metrics) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match error {
            Some(full @ StoreError::Full(_)) => known.note_full(full),
            _ => known.note_room(),
        }
        // A full store answers: it has no room for one more, and that is all.
        let unanswered = error.filter(|error| !matches!(error, StoreError::Full(_)));
        known.state.note(unanswered, metrics);
    }

    /// How the store is.
    pub(super) fn health(&self) -> StoreHealth {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let full = || known.full.as_ref().map(|(_, said)| said.clone());
        match &known.state {
            State::Unknown => StoreHealth {
                up: false,
                trouble: Some("it has not answered yet".to_owned()),
            },
            State::Up(_) => StoreHealth {
                up: true,
                trouble: full(),
            },
            State::Down(reason) => StoreHealth {
                up: false,
                trouble: Some(reason.clone()),
            },
        }
    }
}

impl Known {
    /// It has said that it is full.
    fn note_full(&mut self, error: &StoreError) {
        if self.full.is_none() {
            warn!(%error, "the store has no room: new streams get 503, running ones are renewed and released");
        }
        self.full = Some((Stopwatch::start(), error.to_string()));
    }

    /// A call has ended otherwise.
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
}

impl State {
    /// Takes note of a call that was answered, or not.
    fn note(&mut self, error: Option<&StoreError>, metrics: &Metrics) {
        match (error, &mut *self) {
            (None, Self::Up(failures)) => *failures = 0,
            (None, Self::Unknown | Self::Down(_)) => {
                info!("the store answers");
                metrics.store_up(true);
                *self = Self::Up(0);
            }
            (Some(_), Self::Up(failures)) if *failures + 1 < FAILURES => *failures += 1,
            (Some(error), Self::Up(_) | Self::Unknown) => {
                warn!(%error, "the store doesn't answer: starts get 503, running streams go on");
                metrics.store_up(false);
                *self = Self::Down(error.to_string());
            }
            (Some(error), Self::Down(reason)) => *reason = error.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_lost_call_is_no_outage_and_one_answer_ends_one() {
        let (pulse, metrics) = (Pulse::default(), Metrics::new().unwrap());
        let timeout = StoreError::Timeout(Duration::from_millis(50));
        let full = StoreError::Full("no room".to_owned());
        for (error, down) in [
            (None, false),
            (Some(&timeout), false),
            (Some(&timeout), false),
            (None, false),
            (Some(&timeout), false),
            (Some(&timeout), false),
            // Who says that it is full has answered.
            (Some(&full), false),
            (Some(&timeout), false),
            (Some(&timeout), false),
            (Some(&timeout), true),
            (Some(&timeout), true),
            (None, false),
        ] {
            pulse.note(error, &metrics);
            assert_eq!(pulse.health().up, !down);
            let gauge = format!("streamgate_store_up {}", i32::from(!down));
            assert!(metrics.render().contains(&gauge), "no {gauge}");
        }
    }

    #[test]
    fn a_store_that_never_answered_is_not_up() {
        let (pulse, metrics) = (Pulse::default(), Metrics::new().unwrap());
        let unasked = pulse.health();
        assert_eq!((unasked.up, unasked.trouble.is_some()), (false, true));
        pulse.note(
            Some(&StoreError::Disconnected("refused".to_owned())),
            &metrics,
        );
        let refused = StoreHealth {
            up: false,
            trouble: Some("no connection: refused".to_owned()),
        };
        assert_eq!(pulse.health(), refused);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_store_says_so_until_it_has_had_room_for_a_while() {
        let (pulse, metrics) = (Pulse::default(), Metrics::new().unwrap());
        let full = StoreError::Full("no room".to_owned());
        pulse.note(None, &metrics);
        for _ in 0..2 {
            pulse.note(Some(&full), &metrics);
            tokio::time::advance(ROOM_AGAIN / 2).await;
            pulse.note(None, &metrics);
            let health = pulse.health();
            assert_eq!((health.up, health.trouble), (true, Some(full.to_string())));
        }
        tokio::time::advance(ROOM_AGAIN / 2).await;
        pulse.note(None, &metrics);
        let health = pulse.health();
        assert_eq!((health.up, health.trouble), (true, None));
    }
}
