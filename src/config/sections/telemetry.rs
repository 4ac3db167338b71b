//! How the log looks.

use std::fmt;

use crate::config::load::form::{Form, Words};
use crate::config::load::section::{Key, Keys};
use crate::config::load::value::{RawValue, Wrong};

/// What a [`Share`] is counted in.
const MILLION: u32 = 1_000_000;

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

impl Telemetry {
    /// Declares the keys of `telemetry`.
    pub(in crate::config) fn keys(&mut self, keys: &mut impl Keys) {
        keys.key(
            Key::new(
                "telemetry.log_format",
                "The form of the log's lines: for people, or JSON.",
            ),
            LOG_FORMATS.form(),
            &mut self.log_format,
        );
        keys.key(
            Key::new(
                "telemetry.log_level",
                "The least severe level that is logged.",
            )
            .live(),
            LOG_LEVELS.form(),
            &mut self.log_level,
        );
        keys.key(
            Key::new(
                "telemetry.log_starts",
                "For which share of all users each start is a line in the log (`info`): `0` for nobody, \
                 `1` for everybody, `0.01` for one user in a hundred, the same ones at every instance.",
            )
            .live(),
            Form::new("0 to 1, at most six decimals", share, Share::to_string),
            &mut self.log_starts,
        );
        let nothing = |written: &RawValue| match written.scalar() {
            Some("") => Ok(()),
            _ => Err(written.unavailable("null")),
        };
        keys.key(
            Key::new("telemetry.otlp_endpoint", "Reserved for a later version.").shown_if(false),
            Form::new("`null`", nothing, |()| "null".to_owned()),
            &mut (),
        );
    }
}

fn share(written: &RawValue) -> Result<Share, Wrong> {
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
