//! Which Redis, and how to connect to it.

use super::redis_url::{NotARedisUrl, RedisUrl};
use crate::config::load::error::Report;
use crate::config::load::form::{Form, Words, list, quoted};
use crate::config::load::raw::Raw;
use crate::config::load::redact::NOT_SHOWN;
use crate::config::load::section::{Key, Keys};
use crate::config::load::value::{RawValue, Wrong};

/// How Redis is arranged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topology {
    /// One server.
    Standalone,
    /// A master and its replicas, watched by sentinels, which name the master.
    Sentinel,
    /// A Redis Cluster: several masters, each with a part of the users.
    Cluster,
}

/// The Redis to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redis {
    /// `store.redis.topology`
    pub topology: Topology,
    /// `store.redis.urls`: with [`Topology::Standalone`] exactly one; with [`Topology::Sentinel`]
    /// the sentinels; with [`Topology::Cluster`] some nodes, all with the same scheme, user and
    /// password.
    pub urls: Vec<RedisUrl>,
    /// `store.redis.sentinel_service`: the name of the master at the sentinels. It has an effect
    /// only with [`Topology::Sentinel`].
    pub sentinel_service: String,
    /// `store.redis.master_url`: how to connect to the master, with the service in the place of its
    /// host. It is only set with [`Topology::Sentinel`].
    pub master_url: Option<RedisUrl>,
    /// `store.redis.key_prefix`: the prefix of all our keys.
    pub key_prefix: String,
}

/// The words of `store.redis.topology`.
pub(in crate::config) const TOPOLOGIES: Words<Topology> = Words {
    known: &[
        ("standalone", Topology::Standalone),
        ("sentinel", Topology::Sentinel),
        ("cluster", Topology::Cluster),
    ],
};

/// The longest `store.redis.key_prefix`.
const MAX_KEY_PREFIX: usize = 64;

/// The longest `store.redis.sentinel_service`.
const MAX_SERVICE: usize = 128;

/// The default of `store.redis.sentinel_service`, which is Redis's own.
const SERVICE: &str = "mymaster";

impl Redis {
    /// Declares the keys of `store.redis`.
    pub(super) fn keys(&mut self, keys: &mut impl Keys) {
        let is_known = keys.key(
            Key::new(
                "store.redis.topology",
                "One server; `sentinel`: a master that [sentinels][sentinel] name; or `cluster`: a \
                 [Redis Cluster][redis-cluster].",
            ),
            TOPOLOGIES.form(),
            &mut self.topology,
        );
        // With an unknown topology, the keys that depend on it can't be checked.
        if is_known {
            self.keys_by_topology(self.topology, keys);
        }
        keys.key(
            Key::new(
                "store.redis.key_prefix",
                "What all keys in Redis begin with.",
            )
            .shared(),
            Form::new(
                "1 to 64 letters, digits, `.`, `_`, `:` or `-`",
                key_prefix,
                quoted,
            ),
            &mut self.key_prefix,
        );
    }

    /// Declares the keys that depend on the topology.
    fn keys_by_topology(&mut self, topology: Topology, keys: &mut impl Keys) {
        let is_sentinel = topology == Topology::Sentinel;
        let read_urls = |written: &RawValue| match topology {
            Topology::Standalone => one_url(written),
            Topology::Sentinel => sentinels(written),
            Topology::Cluster => nodes(written),
        };
        let exposed = |urls: &Vec<RedisUrl>| list(urls.iter().map(RedisUrl::expose));
        keys.key(
            Key::new(
                "store.redis.urls",
                "The server's URL; with `topology: sentinel` the sentinels'; with `topology: cluster` those \
                 of some nodes. Each is whole and has one host; `rediss://` for TLS, `user:password@` for \
                 ACL. Redis 6.2 to 8 or Valkey, with `maxmemory-policy noeviction`. streamgate speaks \
                 RESP3: a proxy in front of Redis must let `HELLO 3` pass.",
            ),
            Form::new("one URL, or a list of URLs", read_urls, |urls| list(urls)).secret(exposed),
            &mut self.urls,
        );
        keys.key(
            Key::new(
                "store.redis.sentinel_service",
                "What the sentinels call what they watch. Only with `topology: sentinel`.",
            )
            .shown_if(is_sentinel),
            Form::new(
                "1 to 128 letters, digits, `.`, `_` or `-`",
                |written| service(written, topology),
                quoted,
            ),
            &mut self.sentinel_service,
        );
        let default = self.master();
        let service = self.sentinel_service.clone();
        keys.key(
            Key::new(
                "store.redis.master_url",
                "How to connect to the master, with `sentinel_service` in the place of host and port. \
                 Unset: without a password, database 0, and with TLS if a sentinel uses TLS. Only with \
                 `topology: sentinel`.",
            )
            .shown_if(is_sentinel),
            Form::new(
                "`redis://[user:password@]mymaster[/database]` or `rediss://`, or `null`",
                |written| master_url(written, topology, &service),
                |url: &Option<RedisUrl>| match url {
                    None if !is_sentinel => "null".to_owned(),
                    url => quoted(url.as_ref().unwrap_or(&default)),
                },
            )
            .secret(|url| url.as_ref().map_or_else(String::new, |url| url.expose().to_owned())),
            &mut self.master_url,
        );
    }

    /// Checks that the URLs are set if the topology needs them.
    pub(in crate::config) fn check(&self, raw: &Raw, report: &mut Report) {
        let missing = match self.topology {
            Topology::Standalone => return,
            Topology::Sentinel => "sentinel needs the sentinels' URLs in store.redis.urls",
            Topology::Cluster => "cluster needs the URLs of some of its nodes in store.redis.urls",
        };
        let written = raw.get("store.redis.topology");
        let has_urls = raw.get("store.redis.urls").is_some();
        if let (Some(written), false) = (written, has_urls) {
            let missing = written.refuse(missing);
            report.add(missing.into_problem("store.redis.topology"));
        }
    }
}

/// How to connect to the master, if that is set.
fn master_url(
    written: &RawValue,
    topology: Topology,
    service: &str,
) -> Result<Option<RedisUrl>, Wrong> {
    match written.optional() {
        None => Ok(None),
        Some(_) if topology == Topology::Standalone => Err(written.wrong_secret(
            "nothing, unless store.redis.topology is sentinel; a single server's URL goes into store.redis.urls",
        )),
        Some(_) if topology == Topology::Cluster => Err(written.wrong_secret(
            "nothing, unless store.redis.topology is sentinel; the URLs of a cluster's nodes go into store.redis.urls",
        )),
        Some(text) => {
            let url = text.parse().ok();
            let url = url.filter(|url: &RedisUrl| url.host() == service && url.port().is_none());
            url.map(Some).ok_or_else(|| {
                written.wrong_secret(format_args!(
                    "redis://[user:password@]{service}[/database], or rediss:// for TLS; # in a password is %23; in the place of host and port, which the sentinels provide, write store.redis.sentinel_service"
                ))
            })
        }
    }
}

/// The URLs in a value.
fn urls(written: &RawValue) -> Vec<RawValue> {
    match written.scalar() {
        Some(text) => written.parts(split_urls(text).into_iter()),
        None => written.items().unwrap_or_default(),
    }
}

/// The URLs in a text with commas. A comma belongs to a password if no scheme follows it.
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

fn one_url(written: &RawValue) -> Result<Vec<RedisUrl>, Wrong> {
    let items = urls(written);
    let [item] = items.as_slice() else {
        return Err(written.wrong_secret(format_args!(
            "one URL, as {NotARedisUrl}; several are sentinels or nodes of a cluster, with store.redis.topology: sentinel or cluster"
        )));
    };
    let url = item.scalar().unwrap_or_default().parse();
    url.map(|url| vec![url])
        .map_err(|error: NotARedisUrl| item.wrong_secret(format_args!("one URL, as {error}")))
}

fn sentinels(written: &RawValue) -> Result<Vec<RedisUrl>, Wrong> {
    urls_without_database(
        written,
        "the URLs of the sentinels, each as redis://[user:password@]host[:26379], or rediss:// for TLS, \
         with one host, by its name or address; # in a password is %23; a database goes into store.redis.master_url",
    )
}

/// Some nodes of a cluster. The others get the user and password of these, so all must be the same.
fn nodes(written: &RawValue) -> Result<Vec<RedisUrl>, Wrong> {
    let nodes = urls_without_database(
        written,
        "the URLs of some nodes of the cluster, each as redis://[user:password@]host[:6379], or rediss:// for TLS, \
         with one host, by its name or address; # in a password is %23; a cluster has no database but 0, so name none",
    )?;
    match nodes.split_first() {
        Some((first, others)) if !others.iter().all(|other| other.connects_as(first)) => {
            Err(written.wrong_secret(
                "the same scheme, user and password in each URL, because all other nodes of the cluster get them too",
            ))
        }
        _ => Ok(nodes),
    }
}

/// One or more URLs, none with a database.
fn urls_without_database(written: &RawValue, allowed: &str) -> Result<Vec<RedisUrl>, Wrong> {
    let items = urls(written);
    let wrong = |item: &RawValue, which: &str| {
        item.refuse(format_args!("got {NOT_SHOWN}{which}; allowed: {allowed}"))
    };
    if items.is_empty() {
        return Err(written.wrong_secret(allowed));
    }
    let read = |(place, item): (usize, &RawValue)| {
        let url: Option<RedisUrl> = item.scalar().unwrap_or_default().parse().ok();
        url.filter(|url| !url.has_database())
            .ok_or_else(|| match items.len() {
                1 => wrong(item, ""),
                all => wrong(item, &format!(" as URL {} of {all}", place + 1)),
            })
    };
    items.iter().enumerate().map(read).collect()
}

/// The name of the master at the sentinels. Other topologies allow only the default.
fn service(written: &RawValue, topology: Topology) -> Result<String, Wrong> {
    match written.scalar() {
        Some(text) if service_is_good(text) => match topology {
            Topology::Standalone | Topology::Cluster if text != SERVICE => Err(written.wrong(
                format_args!("{SERVICE}, unless store.redis.topology is sentinel"),
            )),
            Topology::Standalone | Topology::Sentinel | Topology::Cluster => Ok(text.to_owned()),
        },
        _ => Err(written.wrong(format_args!(
            "1 to {MAX_SERVICE} letters, digits, `.`, `_` or `-`, as Sentinel allows"
        ))),
    }
}

/// Whether Sentinel allows this name.
fn service_is_good(text: &str) -> bool {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=MAX_SERVICE).contains(&text.len()) && text.bytes().all(is_good)
}

fn key_prefix(written: &RawValue) -> Result<String, Wrong> {
    let text = written.scalar().unwrap_or_default();
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    if text.is_empty() || text.len() > MAX_KEY_PREFIX || !text.bytes().all(is_good) {
        return Err(written.wrong(format_args!(
            "1 to {MAX_KEY_PREFIX} letters, digits, `.`, `_`, `:` or `-`"
        )));
    }
    Ok(text.to_owned())
}

impl Redis {
    /// How to connect to the master. If that isn't set, without a password, and with TLS if a
    /// sentinel uses TLS.
    #[must_use]
    pub fn master(&self) -> RedisUrl {
        self.master_url.clone().unwrap_or_else(|| {
            let with_tls = self.urls.iter().any(RedisUrl::is_with_tls);
            RedisUrl::of_host(with_tls, &self.sentinel_service)
        })
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
