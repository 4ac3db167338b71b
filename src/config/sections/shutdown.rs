//! How the process ends: how long it goes on answering, and when it stops waiting.

use std::time::Duration;

use serde::Deserialize;

use crate::config::load::error::{Problem, Report};
use crate::config::load::value::{Written, shown_duration};
use crate::config::load::yaml::Slot;

/// `shutdown`, as written.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct RawShutdown {
    grace: Option<Written>,
    deadline: Option<Written>,
}

/// What follows SIGTERM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shutdown {
    /// `shutdown.grace`: how long checks are still answered, so that Envoy can notice and go elsewhere.
    pub grace: Duration,
    /// `shutdown.deadline`: when the process ends whatever is left to do, counted from the signal.
    pub deadline: Duration,
}

/// An orchestrator that waits longer than this is rare.
const GRACE: std::ops::RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(60);
const DEADLINE: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(10 * 60);

/// The least that is left once the grace is over. Finishing calls, delivering what is queued and writing the last log lines share it: with
/// nothing of it, every stop would be cut short and lose releases.
const AFTER_GRACE: Duration = Duration::from_secs(1);

/// The most that is kept for the log.
const FOR_LOG: Duration = Duration::from_secs(1);

impl RawShutdown {
    pub(in crate::config) fn slots(&mut self) -> Vec<Slot<'_>> {
        vec![
            ("shutdown.grace", &mut self.grace),
            ("shutdown.deadline", &mut self.deadline),
        ]
    }

    pub(in crate::config) fn check(&self, report: &mut Report) -> Shutdown {
        let default = Shutdown::default();
        let grace = report.read("shutdown.grace", self.grace.as_ref(), default.grace, |w| {
            w.duration(GRACE)
        });
        let deadline = report.read(
            "shutdown.deadline",
            self.deadline.as_ref(),
            default.deadline,
            |w| w.duration(DEADLINE),
        );
        if let (true, Some(place)) = (
            deadline < grace + AFTER_GRACE,
            self.deadline.as_ref().or(self.grace.as_ref()),
        ) {
            let message = format!(
                "got {}; allowed: at least {}, which is shutdown.grace ({}) and {} to finish calls and deliver what is queued",
                shown_duration(deadline),
                shown_duration(grace + AFTER_GRACE),
                shown_duration(grace),
                shown_duration(AFTER_GRACE),
            );
            report.add(Problem {
                origin: place.origin.clone(),
                key: "shutdown.deadline".to_owned(),
                message,
            });
        }
        Shutdown { grace, deadline }
    }
}

impl Shutdown {
    /// The part of the deadline that is kept for writing the last log lines: standard error may be
    /// blocked.
    #[must_use]
    pub fn for_log(&self) -> Duration {
        (self.deadline.saturating_sub(self.grace) / 4).min(FOR_LOG)
    }

    /// The part of the deadline in which everything else has to be done.
    #[must_use]
    pub fn for_drain(&self) -> Duration {
        self.deadline.saturating_sub(self.for_log())
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(2),
            deadline: Duration::from_secs(15),
        }
    }
}
