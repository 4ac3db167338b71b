//! Where rosters are kept, and how long to wait for an answer.

use std::time::Duration;

use serde::Deserialize;

use super::error::Report;
use super::raw::{Slot, section};
use super::redis_url::{NotARedisUrl, RedisUrl};
use super::words::Words;
use super::written::{Written, Wrong};

/// `store`, as written.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawStore {
    backend: Option<Written>,
    outage: Option<Written>,
    pub(super) timeout: Option<Written>,
    #[serde(deserialize_with = "section")]
    redis: RawRedis,
}

/// `store.redis`, as written.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawRedis {
    topology: Option<Written>,
    urls: Option<Written>,
    sentinel_service: Option<Written>,
    key_prefix: Option<Written>,
}

/// The store and its deadline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// `store.backend`
    pub backend: Backend,
    /// `store.outage`: what decides while the store does not answer.
    pub outage: Outage,
    /// `store.timeout`: the deadline of every call.
    pub timeout: Duration,
    /// `store.redis`; of no effect with another backend.
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

/// What decides about new streams while the store is out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outage {
    /// They are let in.
    Allow,
    /// They are denied with 503.
    Deny,
    /// Each instance counts for itself, starting from what it knows.
    Local,
}

/// How Redis is arranged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topology {
    /// One server.
    Standalone,
}

/// The Redis to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redis {
    /// `store.redis.topology`
    pub topology: Topology,
    /// `store.redis.urls`: exactly one with [`Topology::Standalone`].
    pub urls: Vec<RedisUrl>,
    /// `store.redis.key_prefix`: what all our keys start with.
    pub key_prefix: String,
}

/// The words of `store.backend`.
pub(super) const BACKENDS: Words<Backend> = Words {
    known: &[("memory", Backend::Memory), ("redis", Backend::Redis)],
    later: &[],
};

/// The words of `store.outage`.
pub(super) const OUTAGES: Words<Outage> = Words {
    known: &[
        ("allow", Outage::Allow),
        ("deny", Outage::Deny),
        ("local", Outage::Local),
    ],
    later: &[],
};

/// The words of `store.redis.topology`.
pub(super) const TOPOLOGIES: Words<Topology> = Words {
    known: &[("standalone", Topology::Standalone)],
    later: &["sentinel", "cluster"],
};

/// Below, no network keeps up; above, Envoy has given up long before.
const TIMEOUT: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(10);

/// The longest `store.redis.key_prefix`.
const MAX_KEY_PREFIX: usize = 64;

// === impl RawStore ===

impl RawStore {
    pub(super) fn slots(&mut self) -> Vec<Slot<'_>> {
        vec![
            ("store.backend", &mut self.backend),
            ("store.outage", &mut self.outage),
            ("store.timeout", &mut self.timeout),
            ("store.redis.topology", &mut self.redis.topology),
            ("store.redis.urls", &mut self.redis.urls),
            (
                "store.redis.sentinel_service",
                &mut self.redis.sentinel_service,
            ),
            ("store.redis.key_prefix", &mut self.redis.key_prefix),
        ]
    }

    pub(super) fn check(&self, report: &mut Report) -> Store {
        let default = Store::default();
        Store {
            backend: report.read(
                "store.backend",
                self.backend.as_ref(),
                default.backend,
                |w| BACKENDS.read(w),
            ),
            outage: report.read("store.outage", self.outage.as_ref(), default.outage, |w| {
                OUTAGES.read(w)
            }),
            timeout: report.read(
                "store.timeout",
                self.timeout.as_ref(),
                default.timeout,
                |w| w.duration(TIMEOUT),
            ),
            redis: self.redis.check(report),
        }
    }
}

impl RawRedis {
    fn check(&self, report: &mut Report) -> Redis {
        let default = Redis::default();
        report.only(
            "store.redis.sentinel_service",
            self.sentinel_service.as_ref(),
            "mymaster",
        );
        let topology = self.topology.as_ref();
        Redis {
            topology: report.read("store.redis.topology", topology, default.topology, |w| {
                TOPOLOGIES.read(w)
            }),
            urls: report.read("store.redis.urls", self.urls.as_ref(), default.urls, urls),
            key_prefix: report.read(
                "store.redis.key_prefix",
                self.key_prefix.as_ref(),
                default.key_prefix,
                key_prefix,
            ),
        }
    }
}

fn urls(written: &Written) -> Result<Vec<RedisUrl>, Wrong> {
    // A comma without a scheme behind it belongs to a password.
    let items = match written.scalar() {
        Some(text) if text.matches("://").count() < 2 => vec![written.part(text)],
        _ => written.items().unwrap_or_default(),
    };
    let [item] = items.as_slice() else {
        return Err(written.wrong_secret(format_args!("one URL, as {NotARedisUrl}")));
    };
    let url = item.scalar().unwrap_or_default().parse();
    url.map(|url| vec![url])
        .map_err(|error: NotARedisUrl| item.wrong_secret(format_args!("one URL, as {error}")))
}

fn key_prefix(written: &Written) -> Result<String, Wrong> {
    let text = written.scalar().unwrap_or_default();
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    if text.is_empty() || text.len() > MAX_KEY_PREFIX || !text.bytes().all(is_good) {
        return Err(written.wrong(format_args!(
            "1 to {MAX_KEY_PREFIX} letters, digits, `.`, `_`, `:` or `-`"
        )));
    }
    Ok(text.to_owned())
}

// === impl Store, Redis ===

impl Default for Store {
    fn default() -> Self {
        Self {
            backend: Backend::Memory,
            outage: Outage::Allow,
            timeout: Duration::from_millis(50),
            redis: Redis::default(),
        }
    }
}

impl Default for Redis {
    fn default() -> Self {
        Self {
            topology: Topology::Standalone,
            urls: "redis://127.0.0.1:6379".parse().into_iter().collect(),
            key_prefix: "streamgate".to_owned(),
        }
    }
}
