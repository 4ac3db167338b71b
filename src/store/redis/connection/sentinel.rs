//! Sentinels, and the master that they name.
//!
//! **The rule**, which [`believed`] is: the server that the newest configuration names is believed (Sentinel numbers its configurations; of equal
//! numbers, the server that most name, then the first by its place), and the one in use is left as soon as another is believed, but by half of the
//! sentinels or fewer only for a higher number than it was last named by.
//!
//! So a master that was replaced is not used, whatever a sentinel that was cut off still says, and all who hear more than half of the sentinels count in
//! one server, whatever each has used before: also where the numbers begin anew, because the service was removed and is watched again.
//! The server that is named has to say that it is a master before it is used.
//!
//! All of them are asked at once, each for a moment only, so that one which hangs costs the others nothing. They are asked at each attempt to connect, and
//! every few seconds while the connection stands: an old master which is alone on its side of a split network goes on taking writes, and says
//! nothing. A subscription to `+switch-master` would tell the same a moment earlier, would have to be kept on each sentinel, and could be lost
//! without a sign; whoever fails over as usual ends its connections anyway, and that is noticed at once.
//!
//! The client library's own sentinel client is not used: it takes the first of the list that names a server which says that it is a master, be it by
//! an old configuration, waits longer for one that hangs, and tells of one sentinel's error alone.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use futures_util::future::join_all;
use redis::{ConnectionAddr, ConnectionInfo, RedisError};
use tokio::time::{sleep, timeout};

use super::master_election::believed;
use super::target::{self, Connected, Link, RedisServer};
use crate::store::StoreError;
use crate::store::redis::error::{self, ServerRole};

/// How long a sentinel may take to answer, its connection included.
const ANSWER: Duration = Duration::from_millis(300);

/// How long the server that they name may take to say that it is a master, its connection included.
const GREETING: Duration = Duration::from_secs(1);

/// The longest time between two looks at what the sentinels say while the connection stands; the shortest is half of it.
const LOOK: Duration = Duration::from_secs(5);

/// The sentinels, the service that they watch, and how its master is spoken to.
#[derive(Debug, Clone)]
pub struct Sentinels {
    /// The sentinels, as their URLs say it.
    pub sentinels: Vec<ConnectionInfo>,
    /// What they call what they watch.
    pub service: String,
    /// How the master is spoken to; where it is, they say.
    pub master: ConnectionInfo,
}

/// What one sentinel has said.
struct SentinelAnswer {
    /// The sentinel, for people.
    sentinel: String,
    /// The master that it names, or why it names none.
    named: Result<RedisServer, StoreError>,
}

/// What the log was told of sentinels, so that it isn't told again at each look: of each that is no help, the master that it names, if any.
#[derive(Debug, Default)]
pub(super) struct SentinelLog(BTreeMap<String, Option<String>>);

impl Sentinels {
    /// Who they are, for people; without secrets.
    pub(super) fn names(&self) -> String {
        let sentinels: Vec<_> = self
            .sentinels
            .iter()
            .map(|one| target::place(one.addr()))
            .collect();
        sentinels.join(", ")
    }

    /// All who are spoken to.
    pub(super) fn peers(&self) -> impl Iterator<Item = &ConnectionInfo> {
        self.sentinels.iter().chain([&self.master])
    }

    /// Connects to the master.
    ///
    /// # Errors
    /// No sentinel names one; or the one that they name can't be reached, refuses us, or is none.
    pub(super) async fn connect(&self) -> Result<Connected, StoreError> {
        let answers = self.ask().await;
        let named = named(&answers);
        let Some(server) = believed(&named, self.sentinels.len(), None).cloned() else {
            return Err(self.unnamed(answers));
        };
        let at_it = |failure| {
            let service = &self.service;
            let named = format!(
                "{}, which the sentinels name as the master of {service}",
                server.place
            );
            error::at(&named, failure)
        };
        let link = timeout(GREETING, self.greet(&server.address)).await;
        let silent = |_| Err(error::of_silence(GREETING, &self.master));
        let link = link.unwrap_or_else(silent);
        let link = link.map_err(at_it)?;
        Ok(Connected { link, server })
    }

    /// Waits until another master is believed than that one; what to end the connection with.
    pub(super) async fn other_than(
        &self,
        mut used: RedisServer,
        told: &mut SentinelLog,
    ) -> StoreError {
        let mut is_settled = false;
        loop {
            let answers = self.ask().await;
            let named = named(&answers);
            let believed = believed(&named, self.sentinels.len(), Some(&used)).cloned();
            match believed {
                Some(other) if other.place != used.place => {
                    let reason = format!(
                        "the sentinels name another master of {}: {}",
                        self.service, other.place
                    );
                    return StoreError::Disconnected(reason);
                }
                confirmed => used = confirmed.unwrap_or(used),
            }
            // Right after a failover not all of them know of it, and that is worth no word.
            if is_settled {
                told.hear(&self.service, &used, &answers);
            }
            is_settled = true;
            sleep(LOOK.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
        }
    }

    /// Asks all of them.
    async fn ask(&self) -> Vec<SentinelAnswer> {
        let asked = self.sentinels.iter().map(async |sentinel| {
            let named = timeout(ANSWER, self.ask_one(sentinel)).await;
            SentinelAnswer {
                sentinel: target::place(sentinel.addr()),
                named: named.unwrap_or_else(|_| Err(error::of_silence(ANSWER, sentinel))),
            }
        });
        join_all(asked).await
    }

    /// Asks one of them. First by which configuration: if that changes in between, the number is too low and not too high.
    async fn ask_one(&self, sentinel: &ConnectionInfo) -> Result<RedisServer, StoreError> {
        let failed = |error: RedisError| error::of_connecting(&error, ServerRole::Sentinel);
        let mut link = target::link(sentinel.clone()).await.map_err(failed)?.calls;
        let ask = |what: &str| {
            let mut ask = redis::cmd("SENTINEL");
            ask.arg(what).arg(&self.service);
            ask
        };
        let known = ask("MASTER").query_async(&mut link).await;
        let known: HashMap<String, String> = known.map_err(failed)?;
        let epoch = known.get("config-epoch");
        let epoch = epoch.and_then(|epoch| epoch.parse().ok()).unwrap_or(0);
        let named = ask("GET-MASTER-ADDR-BY-NAME").query_async(&mut link).await;
        let (host, port): (String, u16) = named.map_err(failed)?;
        let host = host_of(&host).ok_or_else(|| {
            let strange = "it names a master without a host (see SENTINEL GET-MASTER-ADDR-BY-NAME)";
            StoreError::Rejected(strange.to_owned())
        })?;
        Ok(RedisServer::new(self.address(host.to_owned(), port), epoch))
    }

    /// The address of a server that is spoken to as the master is.
    fn address(&self, host: String, port: u16) -> ConnectionAddr {
        match self.master.addr().clone() {
            ConnectionAddr::TcpTls {
                insecure,
                tls_params,
                ..
            } => ConnectionAddr::TcpTls {
                host,
                port,
                insecure,
                tls_params,
            },
            _ => ConnectionAddr::Tcp(host, port),
        }
    }

    /// Connects to the server there, which has to say that it is a master.
    async fn greet(&self, address: &ConnectionAddr) -> Result<Link, StoreError> {
        let failed = |error: RedisError| error::of_connecting(&error, ServerRole::Master);
        let server = self.master.clone().set_addr(address.clone());
        let mut link = target::ready_link(server).await.map_err(failed)?;
        let role: Vec<redis::Value> = redis::cmd("ROLE")
            .query_async(&mut link.calls)
            .await
            .map_err(failed)?;
        let role = role.into_iter().next().unwrap_or(redis::Value::Nil);
        let role: String = redis::from_redis_value(role).unwrap_or_default();
        if role == "master" {
            return Ok(link);
        }
        let says = format!("it says that it is no master but a {role} (they are asked again)");
        Err(StoreError::Rejected(says))
    }

    /// The failure where none of them names a master.
    fn unnamed(&self, answers: Vec<SentinelAnswer>) -> StoreError {
        let each = answers
            .into_iter()
            .filter_map(|SentinelAnswer { sentinel, named }| {
                let reason = named.err()?;
                Some(format!("{sentinel}: {reason}"))
            });
        let each: Vec<_> = each.collect();
        StoreError::Disconnected(format!(
            "no sentinel names a master of {}: {}",
            self.service,
            each.join("; ")
        ))
    }
}

// === impl SentinelLog ===

impl SentinelLog {
    /// Tells the log of sentinels that have begun to name none, or another than the one in use; and of those that name that one again.
    fn hear(&mut self, service: &str, used: &RedisServer, answers: &[SentinelAnswer]) {
        for SentinelAnswer { sentinel, named } in answers {
            let other = match named {
                Ok(server) if server.place == used.place => {
                    if self.0.remove(sentinel).is_some() {
                        tracing::info!(
                            sentinel,
                            service,
                            "a sentinel names the master in use again"
                        );
                    }
                    continue;
                }
                named => named.as_ref().ok(),
            };
            let place = other.map(|server| server.place.clone());
            if self.0.insert(sentinel.clone(), place.clone()) == Some(place) {
                continue;
            }
            match named {
                Err(reason) => {
                    tracing::warn!(sentinel, service, %reason, "a sentinel names no master");
                }
                Ok(other) => {
                    tracing::warn!(
                        sentinel,
                        service,
                        named = other.place,
                        config_epoch = other.epoch,
                        used = used.place,
                        used_config_epoch = used.epoch,
                        "a sentinel names another master than the one in use"
                    );
                }
            }
        }
    }
}

/// The masters that are named.
fn named(answers: &[SentinelAnswer]) -> Vec<RedisServer> {
    let named = answers.iter().map(|answer| answer.named.as_ref());
    named.filter_map(Result::ok).cloned().collect()
}

/// The host that a sentinel names, without the brackets that one of IPv6 may have been given; none if it is empty.
fn host_of(named: &str) -> Option<&str> {
    let inside = named
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    Some(inside.unwrap_or(named)).filter(|host| !host.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_named_with_or_without_brackets_and_never_empty() {
        for (named, host) in [
            ("10.0.0.7", Some("10.0.0.7")),
            ("[::1]", Some("::1")),
            ("::1", Some("::1")),
            ("", None),
            ("[]", None),
        ] {
            assert_eq!(host_of(named), host, "{named}");
        }
    }
}
