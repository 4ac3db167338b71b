//! Whether the store answers: kept from what its calls say, told in one log line at each change.

use std::sync::{Mutex, PoisonError};

use tracing::{info, warn};

use crate::store::StoreError;
use crate::telemetry::Metrics;

/// So many calls must fail in a row before the store counts as down: one lost packet is no outage.
const FAILURES: u32 = 3;

/// What is known of the store's health.
#[derive(Debug, Default)]
pub(super) struct Pulse(Mutex<State>);

/// The store as its last calls showed it.
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

impl Pulse {
    /// Takes note of a call's end.
    pub(super) fn note(&self, error: Option<&StoreError>, metrics: &Metrics) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (error, &mut *state) {
            (None, State::Up(failures)) => *failures = 0,
            (None, State::Unknown | State::Down(_)) => {
                info!("the store answers");
                metrics.store_up(true);
                *state = State::Up(0);
            }
            // A full memory store answers: it has no room for one more user, and that is all.
            (Some(StoreError::Full(_)), State::Up(_)) => {}
            (Some(_), State::Up(failures)) if *failures + 1 < FAILURES => *failures += 1,
            (Some(error), State::Up(_) | State::Unknown) => {
                warn!(%error, "the store doesn't answer: starts get 503, running streams go on");
                metrics.store_up(false);
                *state = State::Down(error.to_string());
            }
            (Some(error), State::Down(reason)) => *reason = error.to_string(),
        }
    }

    /// Why the store doesn't answer; `None` while it does, or while nobody has asked it.
    pub(super) fn trouble(&self) -> Option<String> {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Unknown | State::Up(_) => None,
            State::Down(reason) => Some(reason.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
            (Some(&full), false),
            (Some(&timeout), false),
            (Some(&timeout), true),
            (Some(&timeout), true),
            (None, false),
        ] {
            pulse.note(error, &metrics);
            assert_eq!(pulse.trouble().is_some(), down);
            let gauge = format!("streamgate_store_up {}", i32::from(!down));
            assert!(metrics.render().contains(&gauge), "no {gauge}");
        }
    }

    #[test]
    fn a_store_that_never_answered_is_down_at_once() {
        let pulse = Pulse::default();
        pulse.note(
            Some(&StoreError::Disconnected("refused".to_owned())),
            &Metrics::new().unwrap(),
        );
        assert_eq!(pulse.trouble().as_deref(), Some("no connection: refused"));
    }
}
