//! The environment overrides the file: each key has a variable.
//!
//! The variable of a key is `STREAMGATE_` and the key in upper case, its parts joined by `__`.
//! Lists have commas. Maps are written as `name=number` with commas, which replaces the whole map
//! of the file. Each entry of a map has a variable too, such as
//! `STREAMGATE_LIMITS__PLANS__premium=4`. It keeps the case of the name, and the other entries
//! stay.
//!
//! A variable that looks like one of ours, but is none, is an error. Others are ignored: Kubernetes
//! sets `STREAMGATE_PORT`, `STREAMGATE_GRPC_SERVICE_HOST` and similar ones for services of these
//! names.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashSet};

use super::error::{ConfigProblem, Report};
use super::origin::Origin;
use super::raw::Raw;
use super::redact::Hides;
use super::renamed::RenamedKey;
use super::section::KnownKey;
use super::value::{RawValue, Shape};

/// The entries of a map that are set by variables of their own.
struct MapEntries {
    /// The map's key.
    map: &'static str,
    /// Which names may hold a secret.
    hides: Hides,
    /// The entries, by their names.
    entries: Vec<(String, RawValue)>,
}

/// The prefix of all our variables.
pub(crate) const PREFIX: &str = "STREAMGATE_";

/// The command line's own variables: the file that `serve` reads, and the address and token that
/// `sessions`, `release` and `doctor` use.
const OF_COMMAND_LINE: [&str; 4] = [
    "STREAMGATE_CONFIG",
    "STREAMGATE_URL",
    "STREAMGATE_TOKEN",
    "STREAMGATE_TOKEN_FILE",
];

/// Sets the keys of the variables.
pub(in crate::config) fn overlay(
    raw: &mut Raw,
    variables: impl IntoIterator<Item = (String, String)>,
    report: &mut Report,
) {
    // Sorted, so that the variable of a whole map comes before those of its entries.
    let ours: BTreeMap<String, String> = variables
        .into_iter()
        .filter(|(name, _)| name.starts_with(PREFIX) && !is_for_others(name))
        .collect();
    let mut maps: Vec<_> = raw.known().iter().filter_map(MapEntries::of).collect();
    for (name, written) in by_new_names(ours, raw, report) {
        let mut known = raw.known().iter().map(|known| known.key.name);
        if let Some(key) = known.find(|key| variable(key) == name) {
            raw.set(key, written);
        } else if let Some((map, entry)) = map_entry(&name, &mut maps) {
            map.entries.push((entry, written));
        } else if let Some(problem) = unknown(raw, &name) {
            report.add(problem);
        }
    }
    for map in maps {
        map.overlay(raw);
    }
}

/// The variables by the names that their keys have now.
fn by_new_names(
    mut ours: BTreeMap<String, String>,
    raw: &mut Raw,
    report: &mut Report,
) -> BTreeMap<String, RawValue> {
    let mut renamed = Vec::new();
    for key in raw.renamed() {
        let (old, new) = (variable(key.old), variable(key.new));
        let set: Vec<_> = ours
            .extract_if(.., |name, _| is_of_key(name, &old))
            .collect();
        if !set.is_empty() {
            raw.warn(key.warning(&old, &new));
        }
        renamed.extend(set.into_iter().map(|it| (it, old.clone(), new.clone())));
    }
    let value = |name: &str, text| {
        let origin = Origin::Variable(shown(name));
        RawValue::new(Shape::Text(text), origin)
    };
    let ours = ours.into_iter().map(|(name, text)| {
        let value = value(&name, text);
        (name, value)
    });
    let mut ours: BTreeMap<_, _> = ours.collect();
    for ((name, text), old, new) in renamed {
        let value = value(&name, text);
        match ours.entry(name.replacen(&old, &new, 1)) {
            Entry::Vacant(place) => {
                place.insert(value);
            }
            Entry::Occupied(_) => report.add(RenamedKey::set_twice(value.origin, &old, &new)),
        }
    }
    ours
}

/// Whether a variable is that of a key, or of an entry of its map.
fn is_of_key(name: &str, variable: &str) -> bool {
    let rest = name.strip_prefix(variable);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("__"))
}

impl MapEntries {
    /// An empty list of entries, if the key takes a map.
    fn of(known: &KnownKey) -> Option<Self> {
        Some(Self {
            map: known.key.name,
            hides: known.entries?,
            entries: Vec::new(),
        })
    }

    /// Sets the entries, all in one pass: the file and the environment may have very many.
    fn overlay(self, raw: &mut Raw) {
        let Some((_, first)) = self.entries.first() else {
            return;
        };
        let (origin, mut entries) = match raw.take(self.map) {
            None => (first.origin.clone(), Vec::new()),
            Some(whole) => match whole.entries(self.hides) {
                Some(entries) => (whole.origin, entries),
                // This is no map. The form of its key reports that.
                None => return raw.set(self.map, whole),
            },
        };
        let names: HashSet<_> = self.entries.iter().map(|(name, _)| name.as_str()).collect();
        entries.retain(|(name, _)| !names.contains(name.as_str()));
        entries.extend(self.entries);
        raw.set(self.map, RawValue::new(Shape::Map(entries), origin));
    }
}

/// Whether a variable with our prefix is no setting: the command line and the tests
/// (`STREAMGATE_TEST_…`) have some of their own.
fn is_for_others(name: &str) -> bool {
    OF_COMMAND_LINE.contains(&name) || name.starts_with("STREAMGATE_TEST_")
}

/// The variable as an error shows it. It may contain a user's mail address. But an address with a
/// scheme or a password is a misplaced value, and is cut off.
fn shown(name: &str) -> String {
    let sign = name
        .find("://")
        .or_else(|| name.find(':').filter(|_| name.contains('@')));
    match sign {
        // The key ends before the last `__`.
        Some(sign) => {
            let before = name.get(..sign).unwrap_or_default();
            let key = before.rsplit_once("__").map_or(PREFIX, |(key, _)| key);
            format!("{key}…")
        }
        None => name.to_owned(),
    }
}

/// The name of a key's variable.
fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_ascii_uppercase())
}

/// The map that a variable sets an entry of, and the name of the entry.
fn map_entry<'a>(name: &str, maps: &'a mut [MapEntries]) -> Option<(&'a mut MapEntries, String)> {
    maps.iter_mut().find_map(|map| {
        let entry = name.strip_prefix(&variable(map.map))?.strip_prefix("__")?;
        (!entry.is_empty()).then(|| (map, entry.to_owned()))
    })
}

/// The problem with a variable that belongs to no key, if it is meant for us.
fn unknown(raw: &Raw, name: &str) -> Option<ConfigProblem> {
    let keys: Vec<&str> = raw.known().iter().map(|known| known.key.name).collect();
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
    // One underscore instead of two, or the wrong case, still shows which key is meant.
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
    Some(ConfigProblem {
        origin: Origin::Variable(shown(name)),
        key: String::new(),
        message,
    })
}
