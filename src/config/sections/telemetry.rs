//! How the log looks.

use std::fmt;

use serde::Deserialize;

use crate::config::load::error::Report;
use crate::config::load::value::{Written, Wrong};
use crate::config::load::words::Words;
use crate::config::load::yaml::Slot;

/// What a [`Share`] is counted in.
const MILLION: u32 = 1_000_000;

/// `telemetry`, as written.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct RawTelemetry {
    log_format: Option<Written>,
    log_level: Option<Written>,
    log_starts: Option<Written>,
    otlp_endpoint: Option<Written>,
}

/// What is told of what happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Telemetry {
    /// `telemetry.log_format`
    pub log_format: LogFormat,
    /// `telemetry.log_level`: `error`, `warn`, `info`, `debug` or `trace`.
    pub log_level: tracing::Level,
    /// `telemetry.log_starts`: of which share of all users each start is a line.
    pub log_starts: Share,
}

/// A share of all users, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share(u32);

/// The form of a line in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines: one JSON object a line.
    Json,
}

/// The words of `telemetry.log_format`.
pub(in crate::config) const LOG_FORMATS: Words<LogFormat> = Words {
    known: &[("text", LogFormat::Text), ("json", LogFormat::Json)],
    later: &[],
};

/// The words of `telemetry.log_level`.
pub(in crate::config) const LOG_LEVELS: Words<tracing::Level> = Words {
    known: &[
        ("error", tracing::Level::ERROR),
        ("warn", tracing::Level::WARN),
        ("info", tracing::Level::INFO),
        ("debug", tracing::Level::DEBUG),
        ("trace", tracing::Level::TRACE),
    ],
    later: &[],
};

impl RawTelemetry {
    pub(in crate::config) fn slots(&mut self) -> Vec<Slot<'_>> {
        vec![
            ("telemetry.log_format", &mut self.log_format),
            ("telemetry.log_level", &mut self.log_level),
            ("telemetry.log_starts", &mut self.log_starts),
            ("telemetry.otlp_endpoint", &mut self.otlp_endpoint),
        ]
    }

    pub(in crate::config) fn check(&self, report: &mut Report) -> Telemetry {
        let default = Telemetry::default();
        report.nothing("telemetry.otlp_endpoint", self.otlp_endpoint.as_ref());
        let (format, level) = (self.log_format.as_ref(), self.log_level.as_ref());
        let starts = self.log_starts.as_ref();
        Telemetry {
            log_format: report.read("telemetry.log_format", format, default.log_format, |w| {
                LOG_FORMATS.read(w)
            }),
            log_level: report.read("telemetry.log_level", level, default.log_level, |w| {
                LOG_LEVELS.read(w)
            }),
            log_starts: report.read("telemetry.log_starts", starts, default.log_starts, share),
        }
    }
}

fn share(written: &Written) -> Result<Share, Wrong> {
    let share = written.scalar().and_then(|text| Share::parse(text.trim()));
    share.ok_or_else(|| {
        written.wrong("a number from 0 to 1 with at most six decimals, such as 0.01")
    })
}

impl Share {
    /// Nobody.
    pub const NONE: Self = Self(0);

    /// Everybody.
    pub const ALL: Self = Self(MILLION);

    /// So many of a million, and no more than all.
    #[must_use]
    pub fn of_a_million(parts: u32) -> Self {
        Self(parts.min(MILLION))
    }

    /// A number from 0 to 1, if it has no more than six decimals.
    fn parse(text: &str) -> Option<Self> {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let are_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !are_digits(whole) || !are_digits(decimals) || decimals.len() > 6 {
            return None;
        }
        let millionths: u32 = format!("{decimals:0<6}").parse().ok()?;
        let parts = whole.parse::<u32>().ok()?.checked_mul(MILLION)?;
        let parts = parts.checked_add(millionths)?;
        (parts <= MILLION).then_some(Self(parts))
    }

    /// Whether somebody is in it, by a number that is theirs: any, as long as all are equally likely.
    #[must_use]
    pub fn takes(self, number: u64) -> bool {
        number % u64::from(MILLION) < u64::from(self.0)
    }
}

impl fmt::Display for Share {
    /// As a number from 0 to 1.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", f64::from(self.0) / f64::from(MILLION))
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            log_format: LogFormat::Text,
            log_level: tracing::Level::INFO,
            log_starts: Share::NONE,
        }
    }
}
