//! Where rosters are kept, and how long to wait for an answer.

use std::time::Duration;

use super::redis::Redis;
use crate::config::load::form::{Words, duration};
use crate::config::load::section::{Key, Keys};

/// The store and its deadline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSettings {
    /// `store.backend`
    pub backend: Backend,
    /// `store.outage`: what happens to new streams while the store doesn't answer.
    pub outage: OutageRule,
    /// `store.timeout`: the deadline of each call.
    pub timeout: Duration,
    /// `store.redis`: has no effect with another backend.
    pub redis: Redis,
}

/// What keeps the rosters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// This process alone.
    Memory,
    /// A Redis, shared by all instances.
    Redis,
}

/// What happens to new streams while the store doesn't answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutageRule {
    /// They are let in.
    Allow,
    /// They are denied with 503.
    Deny,
    /// Each instance counts by itself, starting from its cached sessions.
    Local,
}

/// The words of `store.backend`.
pub(in crate::config) const BACKENDS: Words<Backend> = Words {
    known: &[("memory", Backend::Memory), ("redis", Backend::Redis)],
};

/// The words of `store.outage`.
pub(in crate::config) const OUTAGES: Words<OutageRule> = Words {
    known: &[
        ("allow", OutageRule::Allow),
        ("deny", OutageRule::Deny),
        ("local", OutageRule::Local),
    ],
};

impl StoreSettings {
    /// Declares the keys of `store`.
    pub(in crate::config) fn keys(&mut self, keys: &mut impl Keys) {
        keys.key(
            Key::new(
                "store.backend",
                "`memory` counts in this process alone, with room for a million users; what is set in \
                 `store.redis` then has no effect (a warning says so). `redis` is shared by all instances.",
            )
            .shared(),
            BACKENDS.form(),
            &mut self.backend,
        );
        keys.key(
            Key::new(
                "store.outage",
                "What happens to new streams while the store can't answer, see \
                 [When Redis is in trouble][redis-trouble].",
            ),
            OUTAGES.form(),
            &mut self.outage,
        );
        keys.key(
            Key::new(
                "store.timeout",
                "The deadline of every call to the store; keep it well under Envoy's.",
            ),
            // No network is faster, and Envoy would give up before a longer one.
            duration(Duration::from_millis(1)..=Duration::from_secs(10)),
            &mut self.timeout,
        );
        self.redis.keys(keys);
    }
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            backend: Backend::Memory,
            outage: OutageRule::Allow,
            timeout: Duration::from_millis(50),
            redis: Redis::default(),
        }
    }
}
