//! The settings that must be equal in instances that count together, for comparison.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};

use sha2::{Digest, Sha256};

use super::summary::Summary;
use super::{Changeable, Config, Limits};
use crate::policy::Policy;
use crate::util::{hex, lock};

/// The key for the limits of single users, whether `limits.users` or a file has them. Instances
/// compare them by a digest.
pub(super) const USERS: &str = "limits.users";

/// Settings by key, as `check-config` shows them, without secrets.
#[derive(Debug, PartialEq, Eq)]
pub struct Shared {
    /// The values by key.
    pub settings: BTreeMap<String, String>,
    /// A digest of all of them, for a quick comparison.
    pub digest: String,
}

/// The settings of one instance that other instances should have too.
#[derive(Debug)]
pub struct SharedSettings {
    /// The settings that change only with a restart.
    fixed: BTreeMap<String, String>,
    /// The last result, and the settings in force that it belongs to.
    last: Mutex<Option<(Weak<Changeable>, Arc<Shared>)>>,
}

impl SharedSettings {
    /// The shared settings of a configuration, without its limits, which may change.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            fixed: shared_in(config.summary(), false),
            last: Mutex::default(),
        }
    }

    /// All shared settings, with the limits in force. To digest the limits of a million users takes
    /// a while, so each change is digested once.
    pub fn now(&self, in_force: &Arc<Changeable>) -> Arc<Shared> {
        let mut last = lock(&self.last);
        let of = Arc::downgrade(in_force);
        if let Some((_, shared)) = last.as_ref().filter(|(before, _)| before.ptr_eq(&of)) {
            return Arc::clone(shared);
        }
        let shared = Arc::new(self.with(&in_force.limits));
        *last = Some((of, Arc::clone(&shared)));
        shared
    }

    /// All shared settings, with these limits.
    fn with(&self, limits: &Limits) -> Shared {
        // There may be a million users: they are compared by a digest, not one by one.
        let policy = Policy {
            plans: limits.policy.plans.clone(),
            ..Policy::new(limits.policy.default)
        };
        let mut limits_without_users = Limits {
            policy,
            users_file: None,
            ..*limits
        };
        let mut summary = Summary::default();
        limits_without_users.keys(&mut summary);
        let mut settings = shared_in(summary, true);
        settings.extend(self.fixed.clone());
        settings.insert(USERS.to_owned(), users(&limits.policy));
        let digest = digest(&settings);
        Shared { settings, digest }
    }
}

/// The shared settings of a summary: those that may change while the process runs, or the others.
fn shared_in(summary: Summary, is_live: bool) -> BTreeMap<String, String> {
    let settings = summary.settings().into_iter();
    settings
        .filter(|(_, setting)| setting.key.is_shared && setting.key.is_live == is_live)
        .map(|((key, entry), setting)| {
            let entry = entry.map(|name| format!(".{name}")).unwrap_or_default();
            (format!("{key}{entry}"), setting.shown)
        })
        .collect()
}

/// How many users have limits of their own, and a digest of these limits. It doesn't depend on
/// their order, or on where they are written.
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

/// A digest of settings.
fn digest(settings: &BTreeMap<String, String>) -> String {
    let mut digest = Sha256::new();
    for (key, value) in settings {
        digest.update(format!("{key}\0{value}\0"));
    }
    hex(&digest.finalize())
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::config::{InForce, known_keys, user_limits};

    fn load(variables: &[(&str, &str)]) -> Config {
        let variables = variables.iter();
        let variables =
            variables.map(|(name, value)| (format!("STREAMGATE_{name}"), (*value).to_owned()));
        Config::load(None::<&Path>, variables).unwrap()
    }

    fn shared(config: &Config) -> Shared {
        SharedSettings::of(config).with(&config.limits)
    }

    #[test]
    fn the_summary_shows_what_must_be_equal_and_no_password() {
        let config = load(&[
            ("STORE__BACKEND", "redis"),
            ("STORE__REDIS__URLS", "redis://gate:hunter2@tv/2"),
            ("LIMITS__PLANS", "basic=1"),
            ("LIMITS__USERS", "anna=7"),
            ("LIMITS__GRACE", "1s"),
        ]);
        let shared = shared(&config).settings;
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
            "identity.content",
        ] {
            assert!(!shared.contains_key(key), "{key}");
        }
    }

    #[test]
    fn each_setting_that_matters_changes_the_digest() {
        let usual = shared(&load(&[])).digest;
        for (variable, value, differs) in [
            ("STORE__REDIS__KEY_PREFIX", "tv", true),
            ("STORE__BACKEND", "redis", true),
            ("IDENTITY__USER", "header:x-account", true),
            ("IDENTITY__FRESH", "", true),
            ("IDENTITY__PLAN", "header:x-plan", true),
            ("IDENTITY__CONTENT", "header:x-content", false),
            ("LEASES__PLAYBACK", "31s", true),
            ("LIMITS__DEFAULT", "4", true),
            ("LIMITS__USERS", "anna=7", true),
            ("LIMITS__ENFORCE", "false", true),
            ("LIMITS__QUIET", "21s", true),
            ("STORE__TIMEOUT", "60ms", false),
            ("TELEMETRY__LOG_LEVEL", "debug", false),
        ] {
            let other = shared(&load(&[(variable, value)]));
            assert_eq!(other.digest != usual, differs, "{variable}");
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

    #[test]
    fn the_page_says_what_follows_where_shared_keys_differ() {
        let table = include_str!("../../docs/instances.md");
        let shared = known_keys().into_iter().filter(|known| known.key.is_shared);
        for known in shared {
            let key = known.key.name;
            // The table has leases as a whole.
            let name = if key.starts_with("leases.") {
                "leases"
            } else {
                key
            };
            assert!(table.contains(&format!("`{name}`")), "{key}");
        }
    }

    #[test]
    fn they_are_found_once_for_each_change() {
        let config = load(&[("LIMITS__USERS", "anna=7")]);
        let settings = SharedSettings::of(&config);
        let in_force = InForce::new(Changeable::of(&config));
        let first = settings.now(&in_force.now());
        assert_eq!(*first, shared(&config));
        assert!(Arc::ptr_eq(&first, &settings.now(&in_force.now())));
        let changed = load(&[("LIMITS__USERS", "anna=8")]);
        in_force.change(Changeable::of(&changed)).unwrap();
        let second = settings.now(&in_force.now());
        assert_eq!(*second, shared(&changed));
        assert_ne!(first, second);
    }
}
