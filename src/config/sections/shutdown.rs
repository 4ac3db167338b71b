//! How the process ends: how long it goes on answering, and when it stops waiting.

use std::time::Duration;

use crate::config::load::error::Report;
use crate::config::load::form::duration;
use crate::config::load::raw::Raw;
use crate::config::load::section::{Key, Keys};
use crate::config::load::value::shown_duration;

/// What follows SIGTERM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shutdown {
    /// `shutdown.grace`: how long everything continues as before, so that gateways notice.
    pub grace: Duration,
    /// `shutdown.deadline`: when the process ends even if work is left, counted from the signal.
    pub deadline: Duration,
}

/// The least time between the grace and the deadline. In it, the process finishes calls, delivers
/// queued releases and writes the last log lines. With less, each stop would lose releases.
const AFTER_GRACE: Duration = Duration::from_secs(1);

/// The most time that is reserved for the log.
const FOR_LOG: Duration = Duration::from_secs(1);

impl Shutdown {
    /// Declares the keys of `shutdown`.
    pub(in crate::config) fn keys(&mut self, keys: &mut impl Keys) {
        keys.key(
            Key::new(
                "shutdown.grace",
                "How long everything goes on as before after SIGTERM, so that gateways notice.",
            ),
            // Orchestrators rarely wait longer.
            duration(Duration::ZERO..=Duration::from_secs(60)),
            &mut self.grace,
        );
        keys.key(
            Key::new(
                "shutdown.deadline",
                "When the process ends whatever is left to do, counted from SIGTERM. At least 1 s more \
                 than `shutdown.grace`.",
            ),
            duration(Duration::from_secs(1)..=Duration::from_secs(10 * 60)),
            &mut self.deadline,
        );
    }

    /// Checks that the deadline leaves time after the grace.
    pub(in crate::config) fn check(&self, raw: &Raw, report: &mut Report) {
        let Self { grace, deadline } = *self;
        let written = raw.get("shutdown.deadline").or(raw.get("shutdown.grace"));
        if let (true, Some(written)) = (deadline < grace + AFTER_GRACE, written) {
            let wrong = written.refuse(format_args!(
                "got {}; allowed: at least {}, which is shutdown.grace ({}) and {} to finish calls and deliver what is queued",
                shown_duration(deadline),
                shown_duration(grace + AFTER_GRACE),
                shown_duration(grace),
                shown_duration(AFTER_GRACE),
            ));
            report.add(wrong.into_problem("shutdown.deadline"));
        }
    }

    /// The part of the deadline that is reserved for the last log lines: standard error may be
    /// blocked.
    #[must_use]
    pub fn for_log(&self) -> Duration {
        (self.deadline.saturating_sub(self.grace) / 4).min(FOR_LOG)
    }

    /// The part of the deadline for everything else.
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
