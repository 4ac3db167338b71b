//! How the log looks.

use serde::Deserialize;

use super::error::Report;
use super::raw::Slot;
use super::words::Words;
use super::written::Written;

/// `telemetry`, as written.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawTelemetry {
    log_format: Option<Written>,
    log_level: Option<Written>,
    otlp_endpoint: Option<Written>,
}

/// What is told of what happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Telemetry {
    /// `telemetry.log_format`
    pub log_format: LogFormat,
    /// `telemetry.log_level`: `error`, `warn`, `info`, `debug` or `trace`.
    pub log_level: tracing::Level,
}

/// The form of a line in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines: one JSON object a line.
    Json,
}

/// The words of `telemetry.log_format`.
pub(super) const LOG_FORMATS: Words<LogFormat> = Words {
    known: &[("text", LogFormat::Text), ("json", LogFormat::Json)],
    later: &[],
};

/// The words of `telemetry.log_level`.
pub(super) const LOG_LEVELS: Words<tracing::Level> = Words {
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
    pub(super) fn slots(&mut self) -> Vec<Slot<'_>> {
        vec![
            ("telemetry.log_format", &mut self.log_format),
            ("telemetry.log_level", &mut self.log_level),
            ("telemetry.otlp_endpoint", &mut self.otlp_endpoint),
        ]
    }

    pub(super) fn check(&self, report: &mut Report) -> Telemetry {
        let default = Telemetry::default();
        report.nothing("telemetry.otlp_endpoint", self.otlp_endpoint.as_ref());
        let (format, level) = (self.log_format.as_ref(), self.log_level.as_ref());
        Telemetry {
            log_format: report.read("telemetry.log_format", format, default.log_format, |w| {
                LOG_FORMATS.read(w)
            }),
            log_level: report.read("telemetry.log_level", level, default.log_level, |w| {
                LOG_LEVELS.read(w)
            }),
        }
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            log_format: LogFormat::Text,
            log_level: tracing::Level::INFO,
        }
    }
}
