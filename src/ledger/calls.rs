//! Calls to the store: made if the breaker allows, timed and counted.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::Ledger;
use super::breaker::StoreCall;
use super::decision::Outage;
use super::shards::KnownShard;
use crate::clock::Stopwatch;
use crate::identity::UserId;
use crate::session::LimitOverride;
use crate::store::{Cursor, Listing, Page, ServerIdentity, Shard, StoreError};
use crate::telemetry::metrics::{Operation, Outcome};

/// A server of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreServer {
    /// What it has.
    pub shard: Shard,
    /// Its identity; none if it can't answer, which its health explains.
    pub identity: Option<ServerIdentity>,
}

impl Ledger {
    /// The user's live sessions.
    ///
    /// # Errors
    /// The store could not answer.
    pub async fn list(&self, user: &UserId) -> Result<Listing, Outage> {
        self.timed(Operation::List, user, || self.store.list(user))
            .await
    }

    /// Sets the limit of one user, or clears it; returns the one that was in force. It takes the
    /// place of every configured limit, except while the store can't answer.
    ///
    /// # Errors
    /// The store could not answer. Whether the limit has changed may be unknown.
    pub async fn override_limit(
        &self,
        user: &UserId,
        limit: Option<LimitOverride>,
    ) -> Result<Option<LimitOverride>, Outage> {
        let set = || self.store.override_limit(user, limit);
        self.timed(Operation::OverrideLimit, user, set).await
    }

    /// One page of all users' live sessions: [`Store::page`](crate::store::Store::page). If the
    /// store has several shards, it concerns them all and says nothing about any of them.
    ///
    /// # Errors
    /// The store could not answer.
    pub async fn page(&self, from: &Cursor, size: usize) -> Result<Page, Outage> {
        let ask = || self.store.page(from, size);
        let only = self.shards.only();
        self.timed_at(Operation::Page, only.as_deref(), ask).await
    }

    /// Probes all shards of the store, so that their state is known even if no other call is made.
    pub async fn probe(&self) {
        self.shards.follow(self.store.shards());
        let all = self.shards.all();
        join_all(all.iter().map(|known| self.probe_shard(known))).await;
    }

    /// Probes one shard.
    pub(super) async fn probe_shard(&self, known: &KnownShard) {
        let ask = || self.store.ping(&known.shard);
        // The breaker records the outcome, and nothing else needs it.
        drop(self.timed_at(Operation::Ping, Some(known), ask).await);
    }

    /// The server that the store uses at the moment, for display and without secrets; none if it
    /// has several.
    #[must_use]
    pub fn store_server(&self) -> Option<String> {
        self.store.server(&Shard::whole())
    }

    /// Identifies the store's servers, which are asked now; none of a store without servers.
    ///
    /// A failure doesn't count as one of the store, because this needs rights that streams don't.
    pub async fn store_servers(&self) -> Vec<StoreServer> {
        let identify = async |known: Arc<KnownShard>| {
            let shard = known.shard.clone();
            if known.breaker.may_ask().is_err() {
                let identity = None;
                return Some(StoreServer { shard, identity });
            }
            match self.store.server_identity(&shard).await {
                Ok(None) => None,
                Ok(identity) => Some(StoreServer { shard, identity }),
                Err(_) => Some(StoreServer {
                    shard,
                    identity: None,
                }),
            }
        };
        let asked = self.shards.all().into_iter().map(identify);
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// The shard that has this user now.
    pub(super) fn shard_of(&self, user: &UserId) -> Arc<KnownShard> {
        let shard = self.store.shard_of(user);
        self.shards.find(&shard).unwrap_or_else(|| {
            self.shards.follow(self.store.shards());
            self.shards.add(&shard)
        })
    }

    /// Makes a call about a user if the breaker of their shard allows, counts it, and records what
    /// it shows about the shard's health.
    pub(super) async fn timed<T, F>(
        &self,
        operation: Operation,
        user: &UserId,
        call: impl FnOnce() -> F,
    ) -> Result<T, Outage>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let known = self.shard_of(user);
        self.timed_at(operation, Some(&known), call).await
    }

    /// The same for a call to one shard, or to several if none is given.
    pub(super) async fn timed_at<T, F>(
        &self,
        operation: Operation,
        known: Option<&KnownShard>,
        call: impl FnOnce() -> F,
    ) -> Result<T, Outage>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let is_probe = operation == Operation::Ping;
        let may_ask = known.map_or(Ok(()), |known| known.breaker.may_ask());
        if let (false, Err(error)) = (is_probe, may_ask) {
            self.metrics
                .store(operation, Outcome::NotAsked, Duration::ZERO);
            return Err(error.into());
        }
        let asked = Stopwatch::start();
        let answer = call().await;
        self.metrics
            .store(operation, outcome(answer.as_ref().err()), asked.elapsed());
        // The list of all users' sessions needs additional rights: if they are missing, other calls
        // still work.
        let lacks_rights =
            operation == Operation::Page && matches!(answer, Err(StoreError::Rejected(_)));
        if let (Some(known), false) = (known, lacks_rights) {
            let call = StoreCall { asked, is_probe };
            self.shards.note(known, answer.as_ref().err(), call);
        }
        answer.map_err(Outage::from)
    }
}

/// The metric's label for the store's answer.
pub(super) fn outcome(error: Option<&StoreError>) -> Outcome {
    match error {
        None => Outcome::Ok,
        Some(StoreError::Timeout(_)) => Outcome::Timeout,
        Some(StoreError::Disconnected(_)) => Outcome::Disconnected,
        Some(StoreError::NotAsked(_)) => Outcome::NotAsked,
        Some(StoreError::Full(_)) => Outcome::Full,
        Some(StoreError::Rejected(_)) => Outcome::Rejected,
        Some(StoreError::Protocol(_)) => Outcome::Protocol,
    }
}
