//! What differs between two configurations, key by key.

use std::collections::BTreeMap;

use super::Config;

/// What a change shows in the place of a value that may hold a secret.
const HIDDEN: &str = "(not shown)";

/// What a change shows where a key, such as a user's limit, isn't there.
const ABSENT: &str = "(none)";

/// The keys that follow the file while the process runs: each with all that is below it.
const FOLLOWED: [&str; 4] = [
    "limits",
    "refusal",
    "telemetry.log_level",
    "telemetry.log_starts",
];

/// One key with another value than before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The full name of the key.
    pub key: String,
    /// The value before, as `check-config` shows it.
    pub from: String,
    /// The value now.
    pub to: String,
    /// When the new value applies.
    pub effect: Effect,
}

/// When a new value applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// At once.
    InForce,
    /// When the process is started again.
    AfterRestart,
}

impl Config {
    /// The keys that have another value in the newer configuration, in the order of their names.
    #[must_use]
    pub fn changes(&self, newer: &Self) -> Vec<Change> {
        let (before, after) = (self.to_string(), newer.to_string());
        let (before, after) = (values(&before), values(&after));
        let keys = before
            .keys()
            .chain(after.keys().filter(|key| !before.contains_key(*key)));
        let value = |values: &BTreeMap<String, &str>, key: &str| {
            let value = values.get(key).copied();
            value.unwrap_or(ABSENT).to_owned()
        };
        let shown = keys
            .map(|key| Change::of(key, value(&before, key), value(&after, key)))
            .filter(|change| change.from != change.to);
        let (old, new) = (&self.store.redis, &newer.store.redis);
        let hidden = [
            ("store.redis.urls", old.urls != new.urls),
            ("store.redis.master_url", old.master_url != new.master_url),
        ];
        let mut changes: Vec<_> = shown
            .filter(|change| hidden.iter().all(|(key, _)| *key != change.key))
            .collect();
        for (key, _) in hidden.iter().filter(|(_, has_changed)| *has_changed) {
            changes.push(Change::of(key, HIDDEN.to_owned(), HIDDEN.to_owned()));
        }
        changes.sort_by(|one, other| one.key.cmp(&other.key));
        changes
    }
}

impl Change {
    fn of(key: &str, from: String, to: String) -> Self {
        let is_followed = FOLLOWED.iter().any(|followed| is_within(key, followed));
        let effect = if is_followed && key != "limits.users_file" {
            Effect::InForce
        } else {
            Effect::AfterRestart
        };
        Self {
            key: key.to_owned(),
            from,
            to,
            effect,
        }
    }
}

/// Whether a key is that one or below it.
pub(super) fn is_within(key: &str, all: &str) -> bool {
    let rest = key.strip_prefix(all);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The values in a summary by their full keys. A summary has a key on each line, and its sections are indented.
pub(super) fn values(summary: &str) -> BTreeMap<String, &str> {
    let mut values = BTreeMap::new();
    let mut sections: Vec<&str> = Vec::new();
    for line in summary.lines() {
        let entry = line.trim_start();
        sections.truncate((line.len() - entry.len()) / 2);
        let (name, value) = name_and_value(entry);
        sections.push(name);
        if !matches!(value, "" | "{}") {
            values.insert(sections.join("."), value);
        }
    }
    values
}

/// The name, without its quotes, and the value in a line such as `"a: b": 2`.
fn name_and_value(entry: &str) -> (&str, &str) {
    let (name, rest) = match entry.strip_prefix('"') {
        Some(quoted) => {
            let mut is_escaped = false;
            let end = quoted.find(|character| {
                let is_end = character == '"' && !is_escaped;
                is_escaped = character == '\\' && !is_escaped;
                is_end
            });
            let (name, rest) = quoted
                .split_at_checked(end.unwrap_or_default())
                .unwrap_or_default();
            (name, rest.strip_prefix("\":").unwrap_or(rest))
        }
        None => entry.split_once(':').unwrap_or((entry, "")),
    };
    (name, rest.trim_start())
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
            format!("{}: {} -> {}{effect}", change.key, change.from, change.to)
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
                "limits.users.anna: 1 -> (none)",
                "limits.users.b: \\\"x: 2 -> (none)",
                "limits.users.ben: 3 -> 4",
                "limits.users.carl: (none) -> 5",
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
