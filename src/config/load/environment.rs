//! The environment laid over the file: each key is a variable, and the variable wins.
//!
//! A variable is `STREAMGATE_` and the key in upper case, its parts joined by `__`. Values are texts: lists with commas,
//! maps as `name=number` with commas, which replaces the map of the file; one entry of a map has a variable of its own,
//! `STREAMGATE_LIMITS__PLANS__premium=4`, which keeps the case of the name and the rest of the map.
//!
//! A variable that looks like one of ours and isn't is an error. One that doesn't is left alone: Kubernetes sets
//! `STREAMGATE_PORT`, `STREAMGATE_GRPC_SERVICE_HOST` and the like for services of these names.

use std::collections::{BTreeMap, HashSet};

use super::error::{Origin, Problem, Report};
use super::value::{Value, Written};
use super::yaml::Raw;

/// An entry of a map, by its name.
type Entry = (String, Written);

/// What all our variables start with.
pub(crate) const PREFIX: &str = "STREAMGATE_";

/// The keys whose entries have variables of their own.
const MAPS: [&str; 2] = ["limits.plans", "limits.users"];

/// The command line's own variables: the file that `serve` reads, and where and as whom `sessions` and `release` ask.
const OF_COMMAND_LINE: [&str; 4] = [
    "STREAMGATE_CONFIG",
    "STREAMGATE_URL",
    "STREAMGATE_TOKEN",
    "STREAMGATE_TOKEN_FILE",
];

/// Puts the variables into their places.
pub(in crate::config) fn overlay(
    raw: &mut Raw,
    variables: impl IntoIterator<Item = (String, String)>,
    report: &mut Report,
) {
    // Sorted, so that a variable for a whole map comes before those for its entries.
    let ours: BTreeMap<String, String> = variables
        .into_iter()
        .filter(|(name, _)| name.starts_with(PREFIX) && !is_for_others(name))
        .collect();
    let mut entries = MAPS.map(|map| (map, Vec::new()));
    for (name, text) in ours {
        let written = Written::new(Value::Text(text), Origin::Variable(shown(&name)));
        if let Some((_, place)) = raw.slots().find(|(key, _)| variable(key) == name) {
            *place = Some(written);
        } else if let Some((of_map, entry)) = map_entry(&name, &mut entries) {
            of_map.push((entry, written));
        } else if let Some(problem) = unknown(raw, &name) {
            report.add(problem);
        }
    }
    for (map, entries) in entries {
        set_entries(raw, map, entries);
    }
}

/// Whether a variable that begins as ours do is no setting: the command line has some of its own, `STREAMGATE_TEST_…` are the tests'.
fn is_for_others(name: &str) -> bool {
    OF_COMMAND_LINE.contains(&name) || name.starts_with("STREAMGATE_TEST_")
}

/// The variable as an error names it. A user's name may be a mail address; an address with a scheme or a password in it is
/// a value in the wrong place.
fn shown(name: &str) -> String {
    let sign = name
        .find("://")
        .or_else(|| name.find(':').filter(|_| name.contains('@')));
    match sign {
        // What comes before the last `__` is the key.
        Some(sign) => {
            let before = name.get(..sign).unwrap_or_default();
            let key = before.rsplit_once("__").map_or(PREFIX, |(key, _)| key);
            format!("{key}…")
        }
        None => name.to_owned(),
    }
}

/// The name of the variable for a key.
fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_ascii_uppercase())
}

/// The entries collected for a map, and the name of the entry that a variable is for.
fn map_entry<'a>(
    name: &str,
    maps: &'a mut [(&'static str, Vec<Entry>)],
) -> Option<(&'a mut Vec<Entry>, String)> {
    maps.iter_mut().find_map(|(map, entries)| {
        let entry = name.strip_prefix(&variable(map))?.strip_prefix("__")?;
        (!entry.is_empty()).then(|| (entries, entry.to_owned()))
    })
}

/// Sets entries of a map, all in one pass: a file may have very many, and so may the environment.
fn set_entries(raw: &mut Raw, map: &str, new: Vec<Entry>) {
    let Some(origin) = new.first().map(|(_, written)| written.origin.clone()) else {
        return;
    };
    let Some((_, place)) = raw.slots().find(|(key, _)| *key == map) else {
        return;
    };
    let (origin, mut entries) = match place.take() {
        None => (origin, Vec::new()),
        Some(whole) => match whole.entries(map) {
            Some(entries) => (whole.origin, entries),
            // The whole is no map. Its section says so, once it is back in its place.
            None => {
                *place = Some(whole);
                return;
            }
        },
    };
    let names: HashSet<_> = new.iter().map(|(name, _)| name.as_str()).collect();
    entries.retain(|(name, _)| !names.contains(name.as_str()));
    entries.extend(new);
    *place = Some(Written::new(Value::Map(entries), origin));
}

/// The problem with a variable that no key has, if it is meant for us.
fn unknown(raw: &mut Raw, name: &str) -> Option<Problem> {
    let keys: Vec<&str> = raw.slots().map(|(key, _)| key).collect();
    let rest = name.strip_prefix(PREFIX)?;
    let section = rest
        .split("__")
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase();
    let of_section: Vec<_> = keys
        .iter()
        .filter(|key| key.split('.').next() == Some(&section))
        .map(|key| variable(key))
        .collect();
    // One underscore where two are due, or the wrong case: close enough to a key to know what was meant.
    let flat = |text: &str| text.replace(['.', '_'], "").to_ascii_lowercase();
    let meant = keys.iter().find(|key| flat(key) == flat(rest));
    let message = match meant {
        Some(key) => format!("no key has this variable; allowed: {}", variable(key)),
        None if rest.contains("__") && of_section.is_empty() => {
            let mut sections: Vec<_> = keys
                .iter()
                .filter_map(|key| key.split('.').next())
                .collect();
            sections.dedup();
            format!(
                "no key has this variable; allowed: {PREFIX}SECTION__KEY with a section of {}",
                sections.join(", ")
            )
        }
        None if rest.contains("__")
            || (rest.to_ascii_lowercase() == section && !of_section.is_empty()) =>
        {
            format!(
                "no key has this variable; allowed: {}",
                of_section.join(", ")
            )
        }
        None => return None,
    };
    Some(Problem {
        origin: Origin::Variable(shown(name)),
        key: String::new(),
        message,
    })
}
