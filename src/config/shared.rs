//! The settings that instances which count together should have alike, for whoever compares them.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::changes::{is_within, values};
use super::{Config, Limits};
use crate::policy::Policy;

/// Those settings: each with all that is below it. Single users' limits are compared by a digest.
const SHARED: [&str; 10] = [
    "store.backend",
    "store.redis.key_prefix",
    "identity",
    "leases",
    "limits.enforce",
    "limits.default",
    "limits.plans",
    "limits.when_full",
    "limits.displacements",
    "limits.quiet",
];

/// The key by which single users' limits are told, whether they are written in `limits.users` or in a file.
const USERS: &str = "limits.users";

impl Config {
    /// The settings that instances which count together should have alike, by their keys, as `check-config` shows them. Limits may have changed
    /// since the start: `limits` are those in force.
    #[must_use]
    pub fn shared(&self, limits: &Limits) -> BTreeMap<String, String> {
        let policy = Policy {
            plans: limits.policy.plans.clone(),
            ..Policy::new(limits.policy.default)
        };
        let summary = Self {
            limits: Limits {
                policy,
                users_file: None,
                enforce: limits.enforce,
                when_full: limits.when_full,
                displacements: limits.displacements,
                grace: limits.grace,
                quiet: limits.quiet,
            },
            ..self.clone()
        }
        .to_string();
        let is_shared = |key: &str| SHARED.iter().any(|all| is_within(key, all));
        let shown = values(&summary).into_iter();
        let mut shared: BTreeMap<_, _> = shown
            .filter(|(key, _)| is_shared(key))
            .map(|(key, value)| (key, value.to_owned()))
            .collect();
        shared.insert(USERS.to_owned(), users(&limits.policy));
        shared
    }
}

/// How many users have limits of their own, and a digest of these that doesn't depend on their order or on where they are written.
fn users(policy: &Policy) -> String {
    let own = policy.users.iter();
    let own = own.map(|(user, limit)| (user.as_str().as_bytes(), *limit));
    let (mut count, mut sum) = (0_usize, [0; 32]);
    for (user, limit) in own.chain(policy.listed.iter()) {
        let digest = Sha256::new()
            .chain_update(limit.to_be_bytes())
            .chain_update(user);
        for (sum, byte) in sum.iter_mut().zip(digest.finalize()) {
            *sum ^= byte;
        }
        count += 1;
    }
    match count {
        0 => "none".to_owned(),
        _ => format!("{count} users, sha256 {}", hex(&sum)),
    }
}

/// A digest of settings, for whoever compares nothing else.
#[must_use]
pub fn digest(settings: &BTreeMap<String, String>) -> String {
    let mut digest = Sha256::new();
    for (key, value) in settings {
        digest.update(format!("{key}\0{value}\0"));
    }
    hex(&digest.finalize())
}

/// Bytes as hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::config::user_limits;

    fn load(variables: &[(&str, &str)]) -> Config {
        let variables = variables.iter();
        let variables =
            variables.map(|(name, value)| (format!("STREAMGATE_{name}"), (*value).to_owned()));
        Config::load(None::<&Path>, variables).unwrap()
    }

    fn shared(config: &Config) -> BTreeMap<String, String> {
        config.shared(&config.limits)
    }

    #[test]
    fn what_must_be_equal_is_told_and_no_password() {
        let config = load(&[
            ("STORE__BACKEND", "redis"),
            ("STORE__REDIS__URLS", "redis://gate:hunter2@tv/2"),
            ("LIMITS__PLANS", "basic=1"),
            ("LIMITS__USERS", "anna=7"),
            ("LIMITS__GRACE", "1s"),
        ]);
        let shared = shared(&config);
        let told = format!("{shared:?}");
        assert!(
            !told.contains("hunter2") && !told.contains("anna"),
            "{told}"
        );
        for (key, value) in [
            ("store.backend", "redis"),
            ("store.redis.key_prefix", "streamgate"),
            ("identity.user", "[\"header:x-user-id\"]"),
            ("leases.request", "15s"),
            ("limits.default", "3"),
            ("limits.plans.basic", "1"),
            ("limits.enforce", "true"),
            ("limits.quiet", "20s"),
        ] {
            assert_eq!(shared.get(key).map(String::as_str), Some(value), "{told}");
        }
        // They change only an instance's own answers.
        for key in [
            "limits.grace",
            "store.timeout",
            "store.outage",
            "refusal.show",
        ] {
            assert!(!shared.contains_key(key), "{key}");
        }
    }

    #[test]
    fn each_setting_that_matters_changes_the_digest() {
        let usual = digest(&shared(&load(&[])));
        for (variable, value, differs) in [
            ("STORE__REDIS__KEY_PREFIX", "tv", true),
            ("STORE__BACKEND", "redis", true),
            ("IDENTITY__USER", "header:x-account", true),
            ("IDENTITY__FRESH", "", true),
            ("LEASES__PLAYBACK", "31s", true),
            ("LIMITS__DEFAULT", "4", true),
            ("LIMITS__USERS", "anna=7", true),
            ("LIMITS__ENFORCE", "false", true),
            ("LIMITS__QUIET", "21s", true),
            ("STORE__TIMEOUT", "60ms", false),
            ("TELEMETRY__LOG_LEVEL", "debug", false),
        ] {
            let other = digest(&shared(&load(&[(variable, value)])));
            assert_eq!(other != usual, differs, "{variable}");
        }
    }

    #[test]
    fn it_is_no_matter_where_users_limits_are_written() {
        let written = load(&[("LIMITS__USERS", "anna=7,ben=1")]);
        let mut listed = load(&[]);
        let list = user_limits(&Bytes::from_static(b"ben 1\nanna 7\n")).unwrap();
        listed.limits.policy.listed = Arc::new(list);
        assert_eq!(shared(&written), shared(&listed));
        let other = load(&[("LIMITS__USERS", "anna=1,ben=7")]);
        assert_ne!(shared(&written), shared(&other));
    }
}
