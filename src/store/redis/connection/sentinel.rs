//! Sentinels, and the master that they name.
//!
//! **The rule**, implemented by [`believed`]: we use the server that the newest configuration
//! names. Sentinel numbers its configurations; among equal numbers, the server that most sentinels
//! name wins, then the first by address. We leave the server in use as soon as the rule picks
//! another. But if half of the sentinels or fewer answer, that takes a higher number than the
//! server in use was last named with.
//!
//! So we never use a replaced master, whatever an isolated sentinel still says. All instances that
//! reach more than half of the sentinels use the same server, whichever each used before. That also
//! holds if the numbers restart because the service was removed and added again. The named server
//! must report that it is a master before we use it.
//!
//! We ask all sentinels at once, each with a short time limit, so that one that hangs doesn't delay
//! the others. We ask at each connection attempt, and every few seconds while connected, because an
//! old master that is alone on its side of a split network keeps accepting writes without any sign.
//! A subscription to `+switch-master` would report a change a moment earlier, but we would have to
//! maintain it on each sentinel, and it could be lost silently. A usual failover closes the old
//! master's connections anyway, and we notice that immediately.
//!
//! We don't use the client library's own sentinel client. It takes the first server in the list
//! that says that it is a master, even from an old configuration, waits longer for a sentinel that
//! hangs, and reports the error of only one sentinel.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use futures_util::future::join_all;
use redis::{ConnectionAddr, ConnectionInfo, RedisError};
use tokio::time::{sleep, timeout};

use super::link::{self, Link};
use super::master_election::believed;
use super::target::{self, Connected, RedisServer};
use crate::store::StoreError;
use crate::store::redis::error::{self, ServerRole};

/// The time limit of a sentinel's answer, its connection included.
const ANSWER: Duration = Duration::from_millis(300);

/// The time limit for the named server to report that it is a master, its connection included.
const GREETING: Duration = Duration::from_secs(1);

/// The longest time between two checks of the sentinels while connected; the shortest is half of
/// it.
const LOOK: Duration = Duration::from_secs(5);

/// The sentinels, the service that they watch, and the settings for its master.
#[derive(Debug, Clone)]
pub struct Sentinels {
    /// The sentinels, from their URLs.
    pub sentinels: Vec<ConnectionInfo>,
    /// The sentinels' name for the service.
    pub service: String,
    /// The connection settings of the master; the sentinels supply its address.
    pub master: ConnectionInfo,
}

/// One sentinel's answer.
struct SentinelAnswer {
    /// The sentinel, for display.
    sentinel: String,
    /// The master that it names, or why it names none.
    named: Result<RedisServer, StoreError>,
}

/// What the log already says about sentinels, so that each check doesn't repeat it: for each
/// sentinel that doesn't help, the master that it names, if any.
#[derive(Debug, Default)]
pub(super) struct SentinelLog(BTreeMap<String, Option<String>>);

impl Sentinels {
    /// The sentinels, for display and without secrets.
    pub(super) fn names(&self) -> String {
        let sentinels: Vec<_> = self
            .sentinels
            .iter()
            .map(|one| target::place(one.addr()))
            .collect();
        sentinels.join(", ")
    }

    /// The destination, for display.
    pub(in crate::store::redis) fn place(&self) -> String {
        format!("the master of {}", self.service)
    }

    /// All servers that we connect to.
    pub(in crate::store::redis) fn peers(&self) -> impl Iterator<Item = &ConnectionInfo> {
        self.sentinels.iter().chain([&self.master])
    }

    /// Connects to the master.
    ///
    /// # Errors
    /// No sentinel names a master; or the named server can't be reached, refuses us, or is not a
    /// master.
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

    /// The settings for a connection to the master.
    ///
    /// # Errors
    /// As for [`Self::connect`].
    pub(in crate::store::redis) async fn find_master(&self) -> Result<ConnectionInfo, StoreError> {
        let connected = self.connect().await?;
        Ok(self.master.clone().set_addr(connected.server.address))
    }

    /// Waits until the sentinels name another master than that one; returns the error to close the
    /// connection with.
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
            // Right after a failover some sentinels don't know of it yet, which isn't worth
            // logging.
            if is_settled {
                told.hear(&self.service, &used, &answers);
            }
            is_settled = true;
            sleep(LOOK.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
        }
    }

    /// Asks all sentinels.
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

    /// Asks one sentinel. It asks for the configuration's number first: if the configuration
    /// changes in between, the number is too low rather than too high.
    async fn ask_one(&self, sentinel: &ConnectionInfo) -> Result<RedisServer, StoreError> {
        let failed = |error: RedisError| error::of_connecting(&error, ServerRole::Sentinel);
        let mut link = link::link(sentinel.clone()).await.map_err(failed)?.calls;
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
        let server = target::at(&self.master, host.to_owned(), port);
        Ok(RedisServer::new(server.addr().clone(), epoch))
    }

    /// Connects to the server at that address and checks that it is a master.
    async fn greet(&self, address: &ConnectionAddr) -> Result<Link, StoreError> {
        let failed = |error: RedisError| error::of_connecting(&error, ServerRole::Master);
        let server = self.master.clone().set_addr(address.clone());
        let mut link = link::ready_link(server).await.map_err(failed)?;
        let role: Vec<redis::Value> = redis::cmd("ROLE")
            .query_async(&mut link.calls)
            .await
            .map_err(failed)?;
        let role = role.into_iter().next().unwrap_or(redis::Value::Nil);
        let role: String = redis::from_redis_value(role).unwrap_or_default();
        if role == "master" {
            return Ok(link);
        }
        let says =
            format!("it says that it is not a master but a {role} (asking the sentinels again)");
        Err(StoreError::Rejected(says))
    }

    /// The error if no sentinel names a master.
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
    /// Logs sentinels that have begun to name no master, or another than the one in use; and those
    /// that name the one in use again.
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

/// The named masters.
fn named(answers: &[SentinelAnswer]) -> Vec<RedisServer> {
    let named = answers.iter().map(|answer| answer.named.as_ref());
    named.filter_map(Result::ok).cloned().collect()
}

/// The host that a sentinel names, without the brackets that an IPv6 address may have; none if it
/// is empty.
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
