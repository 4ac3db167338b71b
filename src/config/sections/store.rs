//! Where rosters are kept, and how long to wait for an answer.

use std::time::Duration;

use serde::Deserialize;

use super::redis_url::{NotARedisUrl, RedisUrl};
use crate::config::load::error::Report;
use crate::config::load::redact::NOT_SHOWN;
use crate::config::load::value::{Written, Wrong};
use crate::config::load::words::Words;
use crate::config::load::yaml::{Slot, section};

/// `store`, as written.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct RawStore {
    backend: Option<Written>,
    outage: Option<Written>,
    pub(in crate::config) timeout: Option<Written>,
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
    master_url: Option<Written>,
    key_prefix: Option<Written>,
}

/// The store and its deadline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// `store.backend`
    pub backend: Backend,
    /// `store.outage`: what decides while the store does not answer.
    pub outage: OutageRule,
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
pub enum OutageRule {
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
    /// A master and its replicas, watched by sentinels, which say who is the master.
    Sentinel,
}

/// The Redis to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redis {
    /// `store.redis.topology`
    pub topology: Topology,
    /// `store.redis.urls`: exactly one with [`Topology::Standalone`]; the sentinels with [`Topology::Sentinel`].
    pub urls: Vec<RedisUrl>,
    /// `store.redis.sentinel_service`: what the sentinels call what they watch; of no effect with [`Topology::Standalone`].
    pub sentinel_service: String,
    /// `store.redis.master_url`: how the master is spoken to, with the service in the place of its host; never there with
    /// [`Topology::Standalone`].
    pub master_url: Option<RedisUrl>,
    /// `store.redis.key_prefix`: what all our keys start with.
    pub key_prefix: String,
}

/// The words of `store.backend`.
pub(in crate::config) const BACKENDS: Words<Backend> = Words {
    known: &[("memory", Backend::Memory), ("redis", Backend::Redis)],
    later: &[],
};

/// The words of `store.outage`.
pub(in crate::config) const OUTAGES: Words<OutageRule> = Words {
    known: &[
        ("allow", OutageRule::Allow),
        ("deny", OutageRule::Deny),
        ("local", OutageRule::Local),
    ],
    later: &[],
};

/// The words of `store.redis.topology`.
pub(in crate::config) const TOPOLOGIES: Words<Topology> = Words {
    known: &[
        ("standalone", Topology::Standalone),
        ("sentinel", Topology::Sentinel),
    ],
    later: &["cluster"],
};

/// Below, no network keeps up; above, Envoy has given up long before.
const TIMEOUT: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(10);

/// The longest `store.redis.key_prefix`.
const MAX_KEY_PREFIX: usize = 64;

/// The longest `store.redis.sentinel_service`.
const MAX_SERVICE: usize = 128;

/// The default of `store.redis.sentinel_service`, which is Redis's own.
const SERVICE: &str = "mymaster";

// === impl RawStore ===

impl RawStore {
    pub(in crate::config) fn slots(&mut self) -> Vec<Slot<'_>> {
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
            ("store.redis.master_url", &mut self.redis.master_url),
            ("store.redis.key_prefix", &mut self.redis.key_prefix),
        ]
    }

    pub(in crate::config) fn check(&self, report: &mut Report) -> Store {
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
        let key_prefix = report.read(
            "store.redis.key_prefix",
            self.key_prefix.as_ref(),
            default.key_prefix.clone(),
            key_prefix,
        );
        let topology = match self.topology.as_ref() {
            None => Some(default.topology),
            written => report.read("store.redis.topology", written, None, |w| {
                TOPOLOGIES.read(w).map(Some)
            }),
        };
        match topology {
            Some(topology) => Redis {
                key_prefix,
                ..self.check_as(topology, default, report)
            },
            // What else is written can't be told right from wrong.
            None => default,
        }
    }

    /// What depends on the topology.
    fn check_as(&self, topology: Topology, default: Redis, report: &mut Report) -> Redis {
        let read_urls = |w: &Written| match topology {
            Topology::Standalone => one_url(w),
            Topology::Sentinel => sentinels(w),
        };
        let urls = self.urls.as_ref();
        if let (Topology::Sentinel, Some(written), None) = (topology, &self.topology, urls) {
            let missing = written.refuse("sentinel needs the sentinels' URLs in store.redis.urls");
            report.add(missing.into_problem("store.redis.topology"));
        }
        Redis {
            topology,
            urls: report.read("store.redis.urls", urls, default.urls, read_urls),
            sentinel_service: self.service(topology, report),
            master_url: self.master_url(topology, report),
            key_prefix: default.key_prefix,
        }
    }

    /// What the sentinels call what they watch. With another topology only what has no effect may stand there.
    fn service(&self, topology: Topology, report: &mut Report) -> String {
        let (key, written) = (
            "store.redis.sentinel_service",
            self.sentinel_service.as_ref(),
        );
        report.read(key, written, SERVICE.to_owned(), |written| {
            match service(written)? {
                service if topology == Topology::Standalone && service != SERVICE => Err(written
                    .wrong(format_args!(
                        "{SERVICE}, unless store.redis.topology is sentinel"
                    ))),
                service => Ok(service),
            }
        })
    }

    /// How the master is spoken to, if that is written.
    fn master_url(&self, topology: Topology, report: &mut Report) -> Option<RedisUrl> {
        let service = self.sentinel_service.as_ref();
        let service = service.and_then(Written::scalar).unwrap_or(SERVICE);
        let (key, written) = ("store.redis.master_url", self.master_url.as_ref());
        report.read(key, written, None, |written| match written.optional() {
            None => Ok(None),
            Some(_) if topology == Topology::Standalone => Err(written.wrong_secret(
                "nothing, unless store.redis.topology is sentinel; a single server's URL goes into store.redis.urls",
            )),
            Some(text) => {
                let url = text.parse().ok();
                let url = url.filter(|url: &RedisUrl| url.host() == service && url.port().is_none());
                url.map(Some).ok_or_else(|| wrong_master(written, service))
            }
        })
    }
}

/// What is said where the master's URL is none, or names another host than the service.
fn wrong_master(written: &Written, service: &str) -> Wrong {
    let wanted = Some(service).filter(|service| service_is_good(service));
    let wanted = wanted.unwrap_or(SERVICE);
    written.wrong_secret(format_args!(
        "redis://[user:password@]{wanted}[/database], or rediss:// for TLS; # in a password is %23; in the place of host and port, which the sentinels tell, stands store.redis.sentinel_service"
    ))
}

/// The URLs that are written.
fn urls(written: &Written) -> Vec<Written> {
    match written.scalar() {
        Some(text) => written.parts(split_urls(text).into_iter()),
        None => written.items().unwrap_or_default(),
    }
}

/// The URLs in a text with commas. A comma without a scheme behind it belongs to a password.
fn split_urls(text: &str) -> Vec<String> {
    let mut urls: Vec<String> = Vec::new();
    for part in text.split(',') {
        match urls.last_mut() {
            Some(last) if !part.contains("://") => {
                last.push(',');
                last.push_str(part);
            }
            _ => urls.push(part.to_owned()),
        }
    }
    urls
}

fn one_url(written: &Written) -> Result<Vec<RedisUrl>, Wrong> {
    let items = urls(written);
    let [item] = items.as_slice() else {
        return Err(written.wrong_secret(format_args!(
            "one URL, as {NotARedisUrl}; several are sentinels, with store.redis.topology: sentinel"
        )));
    };
    let url = item.scalar().unwrap_or_default().parse();
    url.map(|url| vec![url])
        .map_err(|error: NotARedisUrl| item.wrong_secret(format_args!("one URL, as {error}")))
}

fn sentinels(written: &Written) -> Result<Vec<RedisUrl>, Wrong> {
    let items = urls(written);
    let allowed = "the URLs of the sentinels, each as redis://[user:password@]host[:26379], or rediss:// for TLS, \
                   with one host, by its name or address; # in a password is %23; a database belongs into store.redis.master_url";
    let wrong = |item: &Written, which: &str| {
        item.refuse(format_args!("got {NOT_SHOWN}{which}; allowed: {allowed}"))
    };
    if items.is_empty() {
        return Err(written.wrong_secret(allowed));
    }
    let read = |(place, item): (usize, &Written)| {
        let url: Option<RedisUrl> = item.scalar().unwrap_or_default().parse().ok();
        url.filter(|url| !url.has_database())
            .ok_or_else(|| match items.len() {
                1 => wrong(item, ""),
                all => wrong(item, &format!(" as URL {} of {all}", place + 1)),
            })
    };
    items.iter().enumerate().map(read).collect()
}

fn service(written: &Written) -> Result<String, Wrong> {
    let text = written.scalar().unwrap_or_default();
    if !service_is_good(text) {
        return Err(written.wrong(format_args!(
            "1 to {MAX_SERVICE} letters, digits, `.`, `_` or `-`, as Sentinel has it"
        )));
    }
    Ok(text.to_owned())
}

/// Whether Sentinel takes that for a name.
fn service_is_good(text: &str) -> bool {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=MAX_SERVICE).contains(&text.len()) && text.bytes().all(is_good)
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

impl Redis {
    /// How the master is spoken to: as it is written, or else without a password, and with TLS if a sentinel is.
    #[must_use]
    pub fn master(&self) -> RedisUrl {
        self.master_url.clone().unwrap_or_else(|| {
            let with_tls = self.urls.iter().any(RedisUrl::is_with_tls);
            RedisUrl::of_host(with_tls, &self.sentinel_service)
        })
    }
}

impl Default for Store {
    fn default() -> Self {
        Self {
            backend: Backend::Memory,
            outage: OutageRule::Allow,
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
            sentinel_service: SERVICE.to_owned(),
            master_url: None,
            key_prefix: "streamgate".to_owned(),
        }
    }
}
