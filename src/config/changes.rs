//! The differences between two configurations, key by key.

use std::collections::BTreeSet;

use super::shared::USERS;
use super::summary::{Setting, SettingName};
use super::{Config, KnownKey, known_keys};

/// Shown instead of a value that may hold a secret.
const HIDDEN: &str = "(not shown)";

/// Shown where a key, such as a user's limit, isn't set.
const ABSENT: &str = "(none)";

/// A key whose value has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The full name of the key; for a plan's limit, with the name of the plan.
    pub key: String,
    /// Whose limit has changed, for `limits.users`.
    pub user: Option<String>,
    /// The old value, as `check-config` shows it.
    pub from: String,
    /// The new value.
    pub to: String,
    /// When the new value applies.
    pub effect: Effect,
}

/// When a new value applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Immediately.
    InForce,
    /// After a restart.
    AfterRestart,
}

impl Config {
    /// The keys whose values differ in the newer configuration, in the order of their names.
    #[must_use]
    pub fn changes(&self, newer: &Self) -> Vec<Change> {
        let (before, after) = (self.summary().settings(), newer.summary().settings());
        let names: BTreeSet<_> = before.keys().chain(after.keys()).collect();
        let changes = names.into_iter().filter_map(|name| {
            let (from, to) = (before.get(name), after.get(name));
            Change::of(name, from, to)
        });
        changes.collect()
    }

    /// What a newer configuration changes only after a restart: the names of sections; or of keys,
    /// in sections that have live keys too.
    #[must_use]
    pub fn sections_unlike(&self, newer: &Self) -> Vec<String> {
        let known = known_keys();
        let section = |key: &str| key.split('.').next().unwrap_or_default().to_owned();
        let live = known.iter().filter(|known| known.key.is_live);
        let mixed: BTreeSet<_> = live.map(|known| section(known.key.name)).collect();
        let changes = self.changes(newer).into_iter();
        let changes = changes.filter(|change| change.effect == Effect::AfterRestart);
        let mut unlike: Vec<_> = changes
            .map(|change| match section(&change.key) {
                section if mixed.contains(&section) => change.key,
                section => section,
            })
            .collect();
        // In the order in which the keys are declared, as `check-config` shows them.
        unlike.sort_by_key(|name| {
            let declared = |known: &KnownKey| known.key.name.starts_with(name.as_str());
            known.iter().position(declared)
        });
        unlike.dedup();
        unlike
    }
}

impl Change {
    /// The change of a key, if its value has changed. Secrets are compared, but not shown.
    fn of(
        (key, entry): &SettingName,
        from: Option<&Setting>,
        to: Option<&Setting>,
    ) -> Option<Self> {
        let compared = |setting: Option<&Setting>| {
            let value = setting.map(|it| it.exposed.clone().unwrap_or_else(|| it.shown.clone()));
            value.unwrap_or_default()
        };
        let either = from.or(to)?;
        let shown = |setting: Option<&Setting>| match (&either.exposed, setting) {
            (Some(_), _) => HIDDEN.to_owned(),
            (None, Some(setting)) => setting.shown.clone(),
            (None, None) => ABSENT.to_owned(),
        };
        let (key, user) = match entry {
            None => (key.to_string(), None),
            Some(user) if *key == USERS => (key.to_string(), Some(user.clone())),
            Some(name) => (format!("{key}.{name}"), None),
        };
        (compared(from) != compared(to)).then(|| Self {
            key,
            user,
            from: shown(from),
            to: shown(to),
            effect: match either.key.is_live {
                true => Effect::InForce,
                false => Effect::AfterRestart,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Config {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("streamgate.yaml");
        std::fs::write(&file, text).unwrap();
        Config::load(Some(&file), []).unwrap()
    }

    fn changes(before: &str, after: &str) -> Vec<String> {
        let changes = load(before).changes(&load(after));
        let shown = changes.iter().map(|change| {
            let effect = match change.effect {
                Effect::InForce => "",
                Effect::AfterRestart => " after a restart",
            };
            let Change {
                key,
                user,
                from,
                to,
                ..
            } = change;
            let of_user = user.iter().map(|user| format!(" of {user}"));
            let of_user: String = of_user.collect();
            format!("{key}{of_user}: {from} -> {to}{effect}")
        });
        shown.collect()
    }

    #[test]
    fn each_changed_key_is_listed_with_both_values() {
        let before = "limits: {enforce: false, default: 2, users: {anna: 1, 'b: \"x': 2, ben: 3}, plans: {gold: 5}}\n\
                      refusal: {show: [device]}\n\
                      leases: {request: 20s}\n";
        assert_eq!(changes(before, before), [""; 0]);
        assert_eq!(
            changes(
                before,
                "limits: {users: {ben: 4, carl: 5}, users_file: /users}\ntelemetry: {log_level: debug}\n"
            ),
            [
                "leases.request: 20s -> 15s after a restart",
                "limits.default: 2 -> 3",
                "limits.enforce: false -> true",
                "limits.plans.gold: 5 -> (none)",
                "limits.users of anna: 1 -> (none)",
                "limits.users of b: \"x: 2 -> (none)",
                "limits.users of ben: 3 -> 4",
                "limits.users of carl: (none) -> 5",
                "limits.users_file: null -> \"/users\" after a restart",
                "refusal.show: [device] -> [session, device, content, started_at]",
                "telemetry.log_level: info -> debug",
            ]
        );
    }

    #[test]
    fn a_changed_password_is_a_change_that_does_not_show() {
        let file = |password: &str| {
            format!("store: {{backend: redis, redis: {{urls: 'redis://:{password}@cache'}}}}")
        };
        assert_eq!(
            changes(&file("hunter2"), &file("hunter3")),
            ["store.redis.urls: (not shown) -> (not shown) after a restart"]
        );
    }
}
