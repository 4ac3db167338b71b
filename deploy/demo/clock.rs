//! Time. Only this module of the demo reads a clock.

use std::time::{Duration, Instant};

/// A moment from which to measure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment(Instant);

impl Moment {
    #[expect(
        clippy::disallowed_methods,
        reason = "the demo measures real time and has no other clock"
    )]
    pub(crate) fn now() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        Self::now().0.duration_since(self.0)
    }
}
