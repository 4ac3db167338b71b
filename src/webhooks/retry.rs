//! When a POST that has failed is repeated.

use std::time::{Duration, UNIX_EPOCH};

use crate::clock::{Stopwatch, Timestamp};

/// The wait before the first repetition, and the longest one. Each is twice the one before.
const WAITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The longest wait that a receiver may ask for.
const MAX_ASKED: Duration = Duration::from_secs(5 * 60);

/// For how long a POST is repeated.
const GIVE_UP: Duration = Duration::from_secs(15 * 60);

/// The repetitions of one POST.
#[derive(Debug)]
pub(super) struct RetryPlan {
    /// Since the first attempt.
    since: Stopwatch,
    /// The next wait.
    wait: Duration,
}

impl RetryPlan {
    /// A POST that is about to be sent for the first time.
    pub(super) fn start() -> Self {
        Self {
            since: Stopwatch::start(),
            wait: WAITS.0,
        }
    }

    /// How long to wait before the next attempt; none to give up. `asked` is what the receiver asks
    /// for. The wait is between a half and all of its step, so that instances don't come at once.
    pub(super) fn next(&mut self, asked: Option<Duration>) -> Option<Duration> {
        let wait = self.wait.mul_f64(rand::random_range(0.5..=1.0));
        self.wait = (self.wait * 2).min(WAITS.1);
        let wait = asked.map_or(wait, |asked| asked.min(MAX_ASKED).max(wait));
        (self.since.elapsed() + wait <= GIVE_UP).then_some(wait)
    }
}

/// What `Retry-After` asks for: a number of seconds, or a time.
pub(super) fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(text).ok()?;
    let at = Timestamp::default().after(at.duration_since(UNIX_EPOCH).ok()?);
    Some(at.since(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_grow_up_to_a_minute_and_end() {
        let mut plan = RetryPlan::start();
        let mut waits = Vec::new();
        while let Some(wait) = plan.next(None) {
            tokio::time::advance(wait).await;
            waits.push(wait);
        }
        for (wait, step) in waits.iter().zip([1, 2, 4, 8, 16, 32, 60, 60]) {
            let step = Duration::from_secs(step);
            assert!((step / 2..=step).contains(wait), "{waits:?}");
        }
        assert!((18..=40).contains(&waits.len()), "{waits:?}");
        let all: Duration = waits.iter().sum();
        assert!((GIVE_UP - WAITS.1..=GIVE_UP).contains(&all), "{all:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_receiver_may_ask_for_a_longer_wait_within_bounds() {
        let mut plan = RetryPlan::start();
        let asked = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(plan.next(asked(120)), asked(120));
        assert!(plan.next(asked(0)) >= asked(1), "not sooner than its turn");
        assert_eq!(plan.next(asked(u64::MAX)), Some(MAX_ASKED));
    }

    #[test]
    fn retry_after_is_seconds_or_a_time() {
        let now = Timestamp::from_millis(1_800_000_000_000);
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for (text, expected) in [
            ("0", seconds(0)),
            ("120", seconds(120)),
            ("Fri, 15 Jan 2027 08:01:00 GMT", seconds(60)),
            ("Fri, 15 Jan 2021 08:01:00 GMT", seconds(0)),
            ("soon", None),
            ("-1", None),
        ] {
            assert_eq!(retry_after(text, now), expected, "{text}");
        }
    }
}
