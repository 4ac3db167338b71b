//! What must hold for any text that is written as a configuration. See [`crate::fuzzing`].

use std::fmt;

use super::load::environment;
use super::load::error::Report;
use super::load::raw::Raw;
use super::sections::renamed::RENAMED;
use super::{Config, ConfigError, known_keys};
use crate::fuzzing::{cut, text};
use crate::identity::Source;

/// A password. No error may repeat it.
const SECRET: &str = "hunter2";

/// Keys where somebody may write a password, rightly or not.
const PLACES: [&str; 7] = [
    "store.redis.urls",
    "store.redis.master_url",
    "store.backend",
    "http.listen",
    "limits.users",
    "identity.user",
    "grpc",
];

/// Loads a text like that of a file, overlaid by an environment.
fn load(
    file: &str,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Config, ConfigError> {
    let mut report = Report::default();
    let mut raw = Raw::read(known_keys(), RENAMED, Ok(file.as_bytes()), &mut report);
    environment::overlay(&mut raw, environment, &mut report);
    let config = Config::check(&raw, &mut report);
    report.into_error(None).map_or(Ok(config), Err)
}

/// Loads a file and, after a line `#env`, an environment. The result is always the same; sources
/// are written as they are read; and no error repeats a password in an address.
pub(crate) fn config(data: &[u8]) {
    let written = text(data);
    let (file, variables) = written
        .split_once("\n#env\n")
        .unwrap_or((written.as_str(), ""));
    let variables = || {
        let lines = variables.lines().filter_map(|line| line.split_once('='));
        lines.map(|(name, value)| (name.to_owned(), value.to_owned()))
    };
    let loaded = load(file, variables());
    assert_eq!(loaded, load(file, variables()));
    match &loaded {
        Ok(config) => {
            let identity = &config.identity;
            for list in [&identity.user, &identity.session, &identity.plan] {
                list.iter().for_each(assert_is_written_as_read);
            }
            assert!(!identity.user.is_empty() && !identity.session.is_empty());
            assert!(!config.leases.request.is_zero() && !config.leases.playback.is_zero());
            assert!(!format!("{config:?}").contains("hunter2@"), "{config:?}");
        }
        Err(error) => assert!(error.lines().next().is_some()),
    }
    assert_no_secret_is_told(&written);
}

/// Writes a password in one line with this text around it, in the file and in the environment.
fn assert_no_secret_is_told(written: &str) {
    let around: String = written
        .chars()
        .filter(|it| !matches!(it, '\n' | '\r'))
        .collect();
    if around.contains("hunter") || around.len() > 400 {
        return;
    }
    let (before, behind) = cut(around.as_bytes(), b'|');
    let address = format!("{}redis://:{SECRET}{}", text(before), text(behind));
    // One place for each text: reading YAML is slow.
    if let Some(place) = PLACES.get(written.len() % PLACES.len()) {
        let mut file = String::new();
        for (depth, part) in place.split('.').enumerate() {
            file.push_str(&format!("{}{part}:\n", "  ".repeat(depth)));
        }
        let file = format!("{} {address}\n", file.trim_end());
        let name = format!("STREAMGATE_{}", place.replace('.', "__").to_uppercase());
        assert_is_not_told(load(&file, []), &file);
        assert_is_not_told(load("", [(name.clone(), address.clone())]), &name);
    }
}

/// No error and no warning has the password in it.
fn assert_is_not_told(loaded: Result<Config, ConfigError>, what: &impl fmt::Debug) {
    let told = match loaded {
        Ok(config) => format!("{:?}{:?}", config.store, config.warnings()),
        Err(error) => error.to_string(),
    };
    assert!(!told.contains(SECRET), "{what:?} gave {told}");
}

/// A source is written exactly as it was read.
fn assert_is_written_as_read(source: &Source) {
    let written = source.to_string();
    assert_eq!(written.parse().as_ref(), Ok(source), "{written:?}");
}

/// Parses a route's list of sources: each is written as it was read, and none is lost.
pub(crate) fn source(data: &[u8]) {
    let written = text(data);
    match Source::parse_list(&written) {
        Ok(list) => {
            assert!(!list.is_empty());
            list.iter().for_each(assert_is_written_as_read);
            let shown: Vec<_> = list.iter().map(ToString::to_string).collect();
            assert_eq!(
                Source::parse_list(&shown.join(",")),
                Ok(list),
                "{written:?}"
            );
        }
        Err(error) => assert!(error.to_string().len() <= written.len() * 10 + 1000),
    }
}
