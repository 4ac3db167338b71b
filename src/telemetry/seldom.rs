//! Warnings about something that may go on for long: one now and then.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Stopwatch;

/// How often the same trouble is logged.
const EVERY: Duration = Duration::from_secs(10);

/// Says whether it is time to log something again.
#[derive(Debug, Default)]
pub struct Seldom(Mutex<Option<Stopwatch>>);

impl Seldom {
    /// Whether it is time. If so, it is not for the next ten seconds.
    pub fn is_due(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| last.elapsed() >= EVERY);
        if due {
            *last = Some(Stopwatch::start());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_same_trouble_is_logged_now_and_then() {
        let trouble = Seldom::default();
        assert!(trouble.is_due());
        assert!(!trouble.is_due());
        tokio::time::advance(EVERY).await;
        assert!(trouble.is_due());
    }
}
