//! How the log looks.

use std::fmt;
use std::path::PathBuf;

use crate::config::load::error::Report;
use crate::config::load::form::{Form, NotAPath, Words, file, path};
use crate::config::load::raw::Raw;
use crate::config::load::section::{Key, Keys};
use crate::config::load::value::{RawValue, Wrong};

/// How many parts [`Share::ALL`] has.
const MILLION: u32 = 1_000_000;

/// What the log shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telemetry {
    /// `telemetry.log_format`
    pub log_format: LogFormat,
    /// `telemetry.log_level`: `error`, `warn`, `info`, `debug` or `trace`.
    pub log_level: tracing::Level,
    /// `telemetry.log_starts`: the share of all users whose starts are logged.
    pub log_starts: Share,
    /// `telemetry.log_users`: how lines name users.
    pub log_users: LogUsers,
    /// `telemetry.log_users_key_file`: the secret key of hashes; there if users are hashed.
    pub log_users_key_file: Option<PathBuf>,
}

/// How the log names users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogUsers {
    /// By their ids.
    Plain,
    /// By keyed hashes of their ids.
    Hashed,
}

/// A share of all users, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share(u32);

/// The form of a line in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines: one JSON object on each line.
    Json,
}

/// The words of `telemetry.log_format`.
pub(in crate::config) const LOG_FORMATS: Words<LogFormat> = Words {
    known: &[("text", LogFormat::Text), ("json", LogFormat::Json)],
};

/// The words of `telemetry.log_users`.
const LOG_USERS: Words<LogUsers> = Words {
    known: &[("plain", LogUsers::Plain), ("hashed", LogUsers::Hashed)],
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
        self.for_users(keys);
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

    /// Declares the keys that say how lines name users.
    fn for_users(&mut self, keys: &mut impl Keys) {
        keys.key(
            Key::new(
                "telemetry.log_users",
                "How the log names users: `plain` by their ids, `hashed` by an HMAC of the id, see \
                 [Privacy][log-users].",
            ),
            LOG_USERS.form(),
            &mut self.log_users,
        );
        keys.key(
            Key::new(
                "telemetry.log_users_key_file",
                "A file with the secret key of these hashes, at least 32 random characters. `hashed` needs \
                 it. Give all instances the same key, so that a user has the same hash everywhere.",
            ),
            file(|written| {
                let allowed = "the path of a file with a secret key";
                path(written).map_err(|NotAPath| written.wrong_secret(allowed))
            }),
            &mut self.log_users_key_file,
        );
    }

    /// Checks that there is a key if users are hashed: anybody can guess users by hashes without
    /// one.
    pub(in crate::config) fn check(&self, raw: &Raw, report: &mut Report) {
        const KEY: &str = "telemetry.log_users";
        let needs_key = self.log_users == LogUsers::Hashed && self.log_users_key_file.is_none();
        if let (true, Some(written)) = (needs_key, raw.get(KEY)) {
            let missing = written.refuse(
                "hashed needs a secret key: set telemetry.log_users_key_file to a file with at \
                 least 32 random characters, such as from `openssl rand -hex 32`",
            );
            report.add(missing.into_problem(KEY));
        }
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

    /// This many parts of a million, at most all.
    #[must_use]
    pub fn of_a_million(parts: u32) -> Self {
        Self(parts.min(MILLION))
    }

    /// Reads a number from 0 to 1 with at most six decimals.
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

    /// Whether a user is in the share. `number` is the user's; all numbers must be equally likely.
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
            log_users: LogUsers::Plain,
            log_users_key_file: None,
        }
    }
}
