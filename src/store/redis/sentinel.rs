//! Sentinels, and the master that they name.
//!
//! All of them are asked at once, each for a moment only, so that one which hangs costs the others nothing, and the one with the newest
//! configuration is believed: Sentinel numbers its configurations, and a master that was replaced has a lower number than its successor,
//! whatever a sentinel that was cut off still says. The server that is named has to say that it is a master before it is used.
//!
//! They are asked at each attempt to connect, and every few seconds while the connection stands: an old master which is alone on its side of a
//! split network goes on taking writes, and says nothing. A subscription to `+switch-master` would tell the same a moment earlier, would have to be
//! kept on each sentinel, and could be lost without a sign; whoever fails over as usual ends its connections anyway, and that is noticed at once.
//!
//! The client library's own sentinel client is not used: it takes the first of the list that names a server which says that it is a master, be it by
//! an old configuration, waits longer for one that hangs, and tells of one sentinel's error alone.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use redis::{ConnectionAddr, ConnectionInfo, RedisError};
use tokio::time::{sleep, timeout};

use super::failure::{self, Peer};
use super::source::{self, Found, Server};
use crate::store::StoreError;

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

/// What all sentinels have said.
struct Said {
    /// The master by the newest configuration.
    newest: Option<Server>,
    /// The sentinels that have named none, each with its reason.
    without: Vec<(String, StoreError)>,
}

impl Sentinels {
    /// Who they are, for people; without secrets.
    pub(super) fn names(&self) -> String {
        let sentinels: Vec<_> = self.sentinels.iter().map(place).collect();
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
    pub(super) async fn connect(&self) -> Result<Found, StoreError> {
        let said = self.ask().await;
        let Some(server) = said.newest else {
            return Err(self.unnamed(&said.without));
        };
        let named = |failure| {
            let service = &self.service;
            let named = format!(
                "{}, which the sentinels name as the master of {service}",
                server.place
            );
            failure::at(&named, failure)
        };
        let link = timeout(GREETING, self.greet(&server.address)).await;
        let link = link.unwrap_or(Err(StoreError::Timeout(GREETING)));
        let link = link.map_err(named)?;
        Ok(Found { link, server })
    }

    /// Waits until the sentinels name another master than that one; what to end the connection with.
    pub(super) async fn other_than(&self, used: &Server) -> StoreError {
        let mut without = BTreeSet::new();
        loop {
            let said = self.ask().await;
            without = self.tell(&without, &said);
            match said.newest {
                Some(named) if named.epoch >= used.epoch && named.address != used.address => {
                    let reason = format!(
                        "the sentinels name another master of {}: {}",
                        self.service, named.place
                    );
                    return StoreError::Disconnected(reason);
                }
                _ => sleep(LOOK.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await,
            }
        }
    }

    /// Tells the log of the sentinels that name none and weren't among those before, and of those that do again; the ones that name none.
    fn tell(&self, before: &BTreeSet<String>, said: &Said) -> BTreeSet<String> {
        let service = &self.service;
        let new = said.without.iter();
        for (sentinel, reason) in new.filter(|(sentinel, _)| !before.contains(sentinel)) {
            tracing::warn!(sentinel, service, %reason, "a sentinel names no master");
        }
        let now: BTreeSet<_> = said.without.iter().map(|(name, _)| name.clone()).collect();
        for sentinel in before.difference(&now) {
            tracing::info!(sentinel, service, "a sentinel names a master again");
        }
        now
    }

    /// Asks all of them.
    async fn ask(&self) -> Said {
        let asked = self.sentinels.iter().map(async |sentinel| {
            let answer = timeout(ANSWER, self.ask_one(sentinel)).await;
            (sentinel, answer.unwrap_or(Err(StoreError::Timeout(ANSWER))))
        });
        let (mut newest, mut without) = (None::<Server>, Vec::new());
        for (sentinel, answer) in join_all(asked).await {
            match answer {
                Ok(server) if newest.as_ref().is_some_and(|n| n.epoch >= server.epoch) => {}
                Ok(server) => newest = Some(server),
                Err(reason) => without.push((place(sentinel), reason)),
            }
        }
        Said { newest, without }
    }

    /// Asks one of them. First by which configuration: if that changes in between, the number is too low and not too high.
    async fn ask_one(&self, sentinel: &ConnectionInfo) -> Result<Server, StoreError> {
        let failed = |error: RedisError| failure::of_connecting(&error, Peer::Sentinel);
        let mut link = source::link(sentinel.clone()).await.map_err(failed)?;
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
        let address = self.address(host, port);
        Ok(Server {
            place: address.to_string(),
            address,
            epoch,
        })
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
    async fn greet(&self, address: &ConnectionAddr) -> Result<MultiplexedConnection, StoreError> {
        let failed = |error: RedisError| failure::of_connecting(&error, Peer::Master);
        let server = self.master.clone().set_addr(address.clone());
        let mut link = source::ready_link(server).await.map_err(failed)?;
        let role: Vec<redis::Value> = redis::cmd("ROLE")
            .query_async(&mut link)
            .await
            .map_err(failed)?;
        let role = role.into_iter().next().unwrap_or(redis::Value::Nil);
        let role: String = redis::from_redis_value(role).unwrap_or_default();
        if role == "master" {
            return Ok(link);
        }
        let says = format!("it says that it is no master but a {role} (they are asked anew)");
        Err(StoreError::Rejected(says))
    }

    /// The failure where none of them names a master.
    fn unnamed(&self, without: &[(String, StoreError)]) -> StoreError {
        let each = without
            .iter()
            .map(|(sentinel, reason)| format!("{sentinel}: {reason}"));
        let each: Vec<_> = each.collect();
        StoreError::Disconnected(format!(
            "no sentinel names a master of {}: {}",
            self.service,
            each.join("; ")
        ))
    }
}

/// Where a server is, without secrets.
fn place(server: &ConnectionInfo) -> String {
    server.addr().to_string()
}
