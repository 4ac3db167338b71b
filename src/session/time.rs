//! Points in time as the store sees them.

use std::time::Duration;

/// Milliseconds since 1970-01-01T00:00:00Z by the clock of whoever keeps the roster: Redis's own, or this process's monotonic one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(u64);

impl Timestamp {
    /// That many milliseconds since 1970.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The point in time that lies `span` later; the end of time if there is none.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
        )
    }

    /// The point in time that lies `span` earlier; the beginning of time if there is none.
    #[must_use]
    pub fn before(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
        )
    }

    /// How long it is from `earlier` until this; zero if that is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn from_a_later_moment_until_an_earlier_one_is_no_time() {
        let (earlier, later) = (Timestamp::from_millis(3), Timestamp::from_millis(10));
        assert_eq!(later.since(earlier), Duration::from_millis(7));
        assert_eq!(earlier.since(later), Duration::ZERO);
    }
}
