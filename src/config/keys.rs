//! Every key, and the words that it takes, for tests that try all of them on the real program.

use super::load::words::Words;
use super::load::yaml::Raw;
use super::sections::limits::{TRUTHS, WHEN_FULL};
use super::sections::refusal::SHOWN;
use super::sections::store::{BACKENDS, OUTAGES, TOPOLOGIES};
use super::sections::telemetry::{LOG_FORMATS, LOG_LEVELS};
use crate::identity::source::{NAMED_KINDS, PLAIN_KINDS, REQUEST_KIND};

/// Every key by its full name, and the words that its value consists of or begins with; none where
/// it takes any text, number or duration.
#[doc(hidden)]
#[must_use]
pub fn keys() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut raw = Raw::default();
    raw.slots().map(|(key, _)| (key, words_of(key))).collect()
}

fn words_of(key: &str) -> Vec<&'static str> {
    fn all<T>(words: &Words<T>) -> Vec<&'static str> {
        words.known.iter().map(|(word, _)| *word).collect()
    }
    match key {
        "store.backend" => all(&BACKENDS),
        "store.outage" => all(&OUTAGES),
        "store.redis.topology" => all(&TOPOLOGIES),
        "limits.enforce" => all(&TRUTHS),
        "limits.when_full" => all(&WHEN_FULL),
        "refusal.show" => all(&SHOWN),
        "telemetry.log_format" => all(&LOG_FORMATS),
        "telemetry.log_level" => all(&LOG_LEVELS),
        "identity.session" => [&NAMED_KINDS[..], &PLAIN_KINDS, &[REQUEST_KIND]].concat(),
        key if key.starts_with("identity.") => [&NAMED_KINDS[..], &PLAIN_KINDS].concat(),
        _ => Vec::new(),
    }
}
