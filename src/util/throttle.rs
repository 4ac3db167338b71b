//! Bounds how often something is said that may go on for long.

use std::sync::Mutex;
use std::time::Duration;

use super::lock;
use crate::clock::Stopwatch;

/// Lets something through at most once in a period.
#[derive(Debug)]
pub(crate) struct Throttle {
    /// The period.
    every: Duration,
    /// When something was last let through.
    last: Mutex<Option<Stopwatch>>,
}

impl Throttle {
    /// One with that period.
    #[must_use]
    pub(crate) fn every(every: Duration) -> Self {
        Self {
            every,
            last: Mutex::default(),
        }
    }

    /// Returns true at most once in a period, and the first time.
    pub(crate) fn is_due(&self) -> bool {
        let mut last = lock(&self.last);
        let due = last.is_none_or(|last| last.elapsed() >= self.every);
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
    async fn it_is_due_at_first_and_once_a_period() {
        let every = Duration::from_secs(60);
        let throttle = Throttle::every(every);
        for _ in 0..3 {
            assert!(throttle.is_due());
            assert!(!throttle.is_due());
            tokio::time::advance(every - Duration::from_millis(1)).await;
            assert!(!throttle.is_due());
            tokio::time::advance(Duration::from_millis(1)).await;
        }
    }
}
