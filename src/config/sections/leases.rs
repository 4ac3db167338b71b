//! How long a session counts after its last sign of life.

use std::time::Duration;

use serde::Deserialize;

use crate::config::load::error::{Problem, Report};
use crate::config::load::value::{Written, shown_duration};
use crate::config::load::yaml::Slot;
use crate::session::Kind;

/// `leases`, as written.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct RawLeases {
    request: Option<Written>,
    playback: Option<Written>,
}

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

impl RawLeases {
    pub(in crate::config) fn slots(&mut self) -> Vec<Slot<'_>> {
        vec![
            ("leases.request", &mut self.request),
            ("leases.playback", &mut self.playback),
        ]
    }

    pub(in crate::config) fn check(&self, report: &mut Report) -> Leases {
        let default = Leases::default();
        Leases {
            request: report.read(
                "leases.request",
                self.request.as_ref(),
                default.request,
                |w| w.duration(LEASE),
            ),
            playback: report.read(
                "leases.playback",
                self.playback.as_ref(),
                default.playback,
                |w| w.duration(LEASE),
            ),
        }
    }

    /// Checks the leases against the store's deadline: one that ends while a call is still on its way can't be renewed.
    pub(in crate::config) fn check_against(
        &self,
        leases: Leases,
        timeout: (Option<&Written>, Duration),
        report: &mut Report,
    ) {
        let (timeout_written, timeout) = timeout;
        for (key, written, lease) in [
            ("leases.request", self.request.as_ref(), leases.request),
            ("leases.playback", self.playback.as_ref(), leases.playback),
        ] {
            // Where the lease is the default, it is the timeout's line that has to change.
            let place = written.or(timeout_written);
            if let (true, Some(place)) = (lease <= timeout, place) {
                let message = format!(
                    "got {}; allowed: more than store.timeout, which is {}",
                    shown_duration(lease),
                    shown_duration(timeout)
                );
                report.add(Problem {
                    origin: place.origin.clone(),
                    key: key.to_owned(),
                    message,
                });
            }
        }
    }
}

impl Leases {
    /// The lease of a session of that kind.
    #[must_use]
    pub const fn of(&self, kind: Kind) -> Duration {
        match kind {
            Kind::Request => self.request,
            Kind::Playback | Kind::Video => self.playback,
        }
    }

    /// The longest lease that any session is given; what ends further ahead is cut to it.
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
