//! Time. Only this module reads a clock; everything else gets the time passed in.
#![expect(
    clippy::disallowed_methods,
    reason = "this is the place that the ban points to"
)]

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// Milliseconds since 1970-01-01T00:00:00Z, by the store's clock: Redis's own, or this process's
/// monotonic one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The timestamp `millis` milliseconds after 1970.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The timestamp `span` later, or the latest one there is.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
        )
    }

    /// The timestamp `span` earlier, or the earliest one there is.
    #[must_use]
    pub fn before(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
        )
    }

    /// The time from `earlier` to this timestamp; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// A source of the current time.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The current time. It never goes backwards.
    fn now(&self) -> Timestamp;
}

/// The wall clock as read when this clock was made, advanced by the monotonic clock. A step of the
/// system clock therefore neither ends a lease early nor prolongs it. It uses the runtime's clock,
/// so it stands still while a test pauses time.
#[derive(Debug, Clone)]
pub struct SystemClock {
    /// The wall-clock time at `origin`.
    epoch: Timestamp,
    /// When this clock was made.
    origin: Instant,
}

impl SystemClock {
    /// A clock that agrees with the system clock at this moment.
    #[must_use]
    pub fn start() -> Self {
        let since_epoch = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            epoch: Timestamp::default().after(since_epoch),
            origin: Instant::now(),
        }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        self.epoch.after(self.origin.elapsed())
    }
}

/// A clock that moves only when a test moves it.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// A clock set to `now`.
    #[must_use]
    pub fn at(now: Timestamp) -> Self {
        Self(AtomicU64::new(now.as_millis()))
    }

    /// Moves the clock forward.
    pub fn advance(&self, span: Duration) {
        self.set(self.now().after(span));
    }

    /// Sets the clock, possibly backwards, as when a machine's clock is stepped.
    pub fn set(&self, now: Timestamp) {
        self.0.store(now.as_millis(), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// Measures elapsed time by the runtime's clock, so it stands still while a test pauses time.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts measuring.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// The time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clock_follows_the_wall_clock_and_advances() {
        let clock = SystemClock::start();
        let wall = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap();
        let (first, second) = (clock.now(), clock.now());
        assert!(
            first.since(Timestamp::default()).abs_diff(wall) < Duration::from_secs(5),
            "{first:?} is not {wall:?}"
        );
        assert!(second >= first);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stopwatch_goes_by_the_runtime_and_works_without_one() {
        let watch = Stopwatch::start();
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(watch.elapsed(), Duration::from_secs(7));
        let outside = std::thread::spawn(|| Stopwatch::start().elapsed());
        assert!(outside.join().unwrap() < Duration::from_secs(5));
    }

    #[test]
    fn a_manual_clock_moves_only_on_request() {
        let clock = ManualClock::at(Timestamp::from_millis(5));
        clock.advance(Duration::from_millis(7));
        assert_eq!(clock.now(), Timestamp::from_millis(12));
        clock.set(Timestamp::from_millis(1));
        assert_eq!(clock.now(), Timestamp::from_millis(1));
    }

    #[test]
    fn time_is_counted_in_whole_milliseconds() {
        let time = Timestamp::from_millis(1_000);
        assert_eq!(time.as_millis(), 1_000);
        for (span, expected) in [
            (Duration::ZERO, 1_000),
            (Duration::from_micros(1_999), 1_001),
            (Duration::from_secs(2), 3_000),
            (Duration::MAX, u64::MAX),
        ] {
            assert_eq!(time.after(span).as_millis(), expected, "{span:?}");
        }
    }

    #[test]
    fn a_negative_span_is_zero() {
        let (earlier, later) = (Timestamp::from_millis(3), Timestamp::from_millis(10));
        assert_eq!(later.since(earlier), Duration::from_millis(7));
        assert_eq!(earlier.since(later), Duration::ZERO);
    }
}
