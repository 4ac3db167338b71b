//! Every setting in force, and where it was written: for people who look at a running instance.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::Config;
use super::load::form::Rendered;
use super::load::origin::Origin;
use super::load::raw::Raw;
use super::shared::USERS;
use super::summary::Line;
use crate::util::lock;

/// Where each key that is set was written. A value's meaning doesn't depend on it, so all of these
/// are equal.
#[derive(Debug, Clone, Default)]
pub struct KeyOrigins(BTreeMap<&'static str, Origin>);

/// A setting in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EffectiveSetting {
    /// The full name of its key.
    pub key: &'static str,
    /// Its value as `check-config` shows it, without secrets. Users' own limits are a number of
    /// users.
    pub value: String,
    /// Where it was written.
    pub origin: SettingOrigin,
}

/// Where a setting in force was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettingOrigin {
    /// Nowhere.
    Default,
    /// In the file, in this line, if it is known.
    File(Option<u64>),
    /// In the environment, in this variable.
    Environment(String),
}

/// The settings in force: those that the process started with, and the changes since.
#[derive(Debug)]
pub struct EffectiveSettings(Mutex<Arc<Vec<EffectiveSetting>>>);

// === impl KeyOrigins ===

impl KeyOrigins {
    /// Where the keys of that configuration were written.
    pub(super) fn of(raw: &Raw) -> Self {
        let known = raw.known().iter().map(|known| known.key.name);
        let origins = known.filter_map(|key| Some((key, raw.get(key)?.origin.clone())));
        Self(origins.collect())
    }
}

impl PartialEq for KeyOrigins {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for KeyOrigins {}

// === impl EffectiveSetting ===

impl EffectiveSetting {
    /// The setting of a key.
    fn of(line: &Line, origins: &KeyOrigins) -> Self {
        let value = match &line.value {
            // They may be a million, and tell who the users are.
            Rendered::Map(entries) if line.key.name == USERS => {
                format!("{} users", entries.len())
            }
            value => value.to_string(),
        };
        let origin = match origins.0.get(line.key.name) {
            None => SettingOrigin::Default,
            Some(Origin::Line(line)) => SettingOrigin::File((*line > 0).then_some(*line)),
            Some(Origin::Variable(name)) => SettingOrigin::Environment(name.clone()),
        };
        Self {
            key: line.key.name,
            value,
            origin,
        }
    }
}

// === impl EffectiveSettings ===

impl EffectiveSettings {
    /// The settings of that configuration.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self(Mutex::new(Arc::new(
            all(config).map(|(it, _)| it).collect(),
        )))
    }

    /// The settings in force.
    #[must_use]
    pub fn now(&self) -> Arc<Vec<EffectiveSetting>> {
        Arc::clone(&lock(&self.0))
    }

    /// Takes from a newer configuration what changes while the process runs.
    pub fn change(&self, newer: &Config) {
        let mut newer: BTreeMap<_, _> = all(newer)
            .filter(|(_, is_live)| *is_live)
            .map(|(setting, _)| (setting.key, setting))
            .collect();
        let mut now = lock(&self.0);
        let after = now.iter().map(|setting| {
            let changed = newer.remove(setting.key);
            changed.unwrap_or_else(|| setting.clone())
        });
        *now = Arc::new(after.collect());
    }
}

/// Each setting of a configuration, and whether it may change while the process runs.
fn all(config: &Config) -> impl Iterator<Item = (EffectiveSetting, bool)> {
    let lines = config.summary().lines().into_iter();
    // A section that isn't there has a line without a key of its own.
    let lines = lines.filter(|line| !line.key.about.is_empty());
    lines.map(move |line| {
        let is_live = line.key.is_live;
        (EffectiveSetting::of(&line, &config.origins), is_live)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, variables: &[(&str, &str)]) -> Config {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("streamgate.yaml");
        std::fs::write(&file, text).unwrap();
        let variables = variables.iter();
        let variables =
            variables.map(|(name, value)| (format!("STREAMGATE_{name}"), (*value).to_owned()));
        Config::load(Some(&file), variables).unwrap()
    }

    /// The value of a key, and where it was written.
    fn found(settings: &EffectiveSettings, key: &str) -> (String, SettingOrigin) {
        let now = settings.now();
        let found = now.iter().find(|setting| setting.key == key).unwrap();
        (found.value.clone(), found.origin.clone())
    }

    #[test]
    fn each_setting_has_its_value_and_where_it_was_written() {
        let text = "store:\n  backend: redis\n  redis:\n    urls: ['redis://gate:hunter2@tv/2']\n\
                    limits: {users: {anna: 7, ben: 1}, plans: {basic: 1}}\n";
        let config = load(text, &[("LIMITS__DEFAULT", "4")]);
        let settings = EffectiveSettings::of(&config);
        let told = format!("{:?}", settings.now());
        assert!(
            !told.contains("hunter2") && !told.contains("anna"),
            "{told}"
        );
        let variable = "STREAMGATE_LIMITS__DEFAULT".to_owned();
        for (key, value, origin) in [
            ("store.backend", "redis", SettingOrigin::File(Some(2))),
            (
                "store.redis.urls",
                "[\"redis://***@tv/2\"]",
                SettingOrigin::File(Some(4)),
            ),
            ("limits.default", "4", SettingOrigin::Environment(variable)),
            ("limits.users", "2 users", SettingOrigin::File(Some(5))),
            ("limits.plans", "{basic: 1}", SettingOrigin::File(Some(5))),
            ("limits.enforce", "true", SettingOrigin::Default),
        ] {
            let expected = (value.to_owned(), origin);
            assert_eq!(found(&settings, key), expected, "{key}");
        }
    }

    #[test]
    fn a_change_shows_once_it_is_in_force() {
        let settings = EffectiveSettings::of(&load("leases: {request: 20s}\n", &[]));
        settings.change(&load(
            "# one line more\nlimits: {default: 9}\nleases: {request: 25s}\n",
            &[],
        ));
        let line = |line| SettingOrigin::File(Some(line));
        assert_eq!(found(&settings, "limits.default"), ("9".into(), line(2)));
        // It applies after a restart.
        assert_eq!(found(&settings, "leases.request"), ("20s".into(), line(1)));
    }
}
