//! How long a session counts after its last sign of life.

use std::time::Duration;

use crate::config::load::error::Report;
use crate::config::load::form::duration;
use crate::config::load::raw::Raw;
use crate::config::load::section::{Key, Keys};
use crate::config::load::value::shown_duration;
use crate::identity::Kind;

/// The lease of each kind of session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leases {
    /// `leases.request`: three times the interval at which Envoy reports running streams.
    pub request: Duration,
    /// `leases.playback`
    pub playback: Duration,
}

/// Below a second a lease is over before it can be renewed; after a day nobody is watching.
const LEASE: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60);

impl Leases {
    /// Declares the keys of `leases`.
    pub(in crate::config) fn keys(&mut self, keys: &mut impl Keys) {
        keys.key(
            Key::new(
                "leases.request",
                "How long a `request` counts without a sign of life: three times Envoy's \
                 `access_log_flush_interval`.",
            )
            .shared(),
            duration(LEASE),
            &mut self.request,
        );
        keys.key(
            Key::new(
                "leases.playback",
                "How long a playback or video counts without a sign of life: longer than the longest \
                 gap between a player's requests.",
            )
            .shared(),
            duration(LEASE),
            &mut self.playback,
        );
    }

    /// Checks that the leases outlast the store's deadline: one that ends during a call can't be
    /// renewed.
    pub(in crate::config) fn check(&self, timeout: Duration, raw: &Raw, report: &mut Report) {
        for (key, lease) in [
            ("leases.request", self.request),
            ("leases.playback", self.playback),
        ] {
            // If the lease is the default, the line to change is that of the timeout.
            let written = raw.get(key).or(raw.get("store.timeout"));
            if let (true, Some(written)) = (lease <= timeout, written) {
                let wrong = written.refuse(format_args!(
                    "got {}; allowed: more than store.timeout, which is {}",
                    shown_duration(lease),
                    shown_duration(timeout)
                ));
                report.add(wrong.into_problem(key));
            }
        }
    }

    /// The lease of a session of that kind.
    #[must_use]
    pub const fn of(&self, kind: Kind) -> Duration {
        match kind {
            Kind::Request => self.request,
            Kind::Playback | Kind::Video => self.playback,
        }
    }

    /// The longest lease of any session. Leases that end further ahead are cut to it.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.request.max(self.playback)
    }
}

impl Default for Leases {
    fn default() -> Self {
        Self {
            request: Duration::from_secs(15),
            playback: Duration::from_secs(30),
        }
    }
}
