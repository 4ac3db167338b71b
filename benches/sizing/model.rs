//! The sums of `docs/sizing.md`: its constants, and what they predict.

use std::time::Duration;

/// The pause between two requests of a viewer.
pub(crate) const PAUSE: Duration = Duration::from_secs(2);

/// What was measured by `make bench`, `make bench-redis` and `make bench-memory`, in microseconds
/// of processor time where nothing else is said.
pub(crate) struct Constants {
    /// streamgate: a check that it answers from memory.
    held: f64,
    /// streamgate: a start.
    start: f64,
    /// streamgate: a refusal.
    refusal: f64,
    /// streamgate: one entry of the access log. Envoy sends two about each request.
    entry: f64,
    /// Redis: a start.
    redis_start: f64,
    /// Redis: a refused try.
    redis_refusal: f64,
    /// Redis: the report that a playback plays.
    redis_played: f64,
    /// Redis: a renewal in the background.
    redis_renewal: f64,
    /// How often a playback is renewed, in seconds.
    renewed_every: f64,
    /// How many tries a refusal takes.
    tries: f64,
    /// Redis: bytes of a user with one stream.
    redis_bytes: f64,
    /// streamgate: bytes of a playback that it remembers.
    bytes: f64,
}

/// The constants of `docs/sizing.md`.
pub(crate) const CONSTANTS: Constants = Constants {
    held: 17.0,
    start: 42.0,
    refusal: 54.0,
    entry: 14.0,
    redis_start: 27.0,
    redis_refusal: 27.0,
    redis_played: 27.0,
    redis_renewal: 10.5,
    renewed_every: 12.0,
    tries: 5.0,
    redis_bytes: 245.0,
    bytes: 0.8 * 1024.0,
};

/// What happens in a span of time.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Happens {
    /// Checks that a held lease answers.
    pub(crate) held: f64,
    /// Starts that are admitted.
    pub(crate) starts: f64,
    /// Starts that are refused.
    pub(crate) refusals: f64,
    /// Renewals in Redis.
    pub(crate) renewals: f64,
}

/// What that takes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Takes {
    /// Checks.
    pub(crate) checks: f64,
    /// Refusals.
    pub(crate) refusals: f64,
    /// Seconds of streamgate's processor.
    pub(crate) streamgate: f64,
    /// Operations of the store.
    pub(crate) operations: f64,
    /// Seconds of Redis's processor.
    pub(crate) redis: f64,
}

impl Happens {
    /// Viewers who start at an even pace within `ramp` seconds, and one in `one_in` of whom tries a
    /// stream too many at once.
    pub(crate) fn kick_off(viewers: usize, ramp: f64, one_in: usize) -> Self {
        let mut happens = Self {
            starts: viewers as f64,
            refusals: viewers.div_ceil(one_in) as f64,
            ..Self::default()
        };
        for viewer in 0..viewers {
            let watched = ramp - ramp * viewer as f64 / viewers as f64;
            happens.held += (watched / PAUSE.as_secs_f64()).ceil() - 1.0;
            happens.renewals += (watched / CONSTANTS.renewed_every).floor();
        }
        happens
    }

    /// Viewers who watch for so many seconds.
    pub(crate) fn watching(viewers: usize, seconds: f64) -> Self {
        let viewers = viewers as f64;
        Self {
            held: viewers * seconds / PAUSE.as_secs_f64(),
            renewals: viewers * seconds / CONSTANTS.renewed_every,
            ..Self::default()
        }
    }

    /// What it takes.
    pub(crate) fn takes(&self) -> Takes {
        let it = CONSTANTS;
        let checks = self.held + self.starts + self.refusals;
        let entries = 2.0 * (self.held + self.starts);
        let streamgate = self.held * it.held
            + self.starts * it.start
            + self.refusals * it.refusal
            + entries * it.entry;
        let tries = self.refusals * it.tries;
        let redis = self.starts * (it.redis_start + it.redis_played)
            + tries * it.redis_refusal
            + self.renewals * it.redis_renewal;
        Takes {
            checks,
            refusals: self.refusals,
            streamgate: streamgate / 1e6,
            operations: 2.0 * self.starts + tries + self.renewals,
            redis: redis / 1e6,
        }
    }
}

/// The memory of so many viewers with a stream each, in bytes: streamgate's and Redis's.
pub(crate) fn memory(viewers: usize) -> [f64; 2] {
    let viewers = viewers as f64;
    [viewers * CONSTANTS.bytes, viewers * CONSTANTS.redis_bytes]
}
