//! Calls to the store: made if the breaker allows, timed and counted.

use std::future::Future;
use std::time::Duration;

use super::Ledger;
use super::breaker::StoreCall;
use super::decision::Outage;
use crate::clock::Stopwatch;
use crate::identity::UserId;
use crate::store::{Cursor, Listing, Page, ServerIdentity, Shard, StoreError};
use crate::telemetry::metrics::{Operation, Outcome};

impl Ledger {
    /// The user's live sessions.
    ///
    /// # Errors
    /// The store could not answer.
    pub async fn list(&self, user: &UserId) -> Result<Listing, Outage> {
        self.timed(Operation::List, || self.store.list(user)).await
    }

    /// One page of all users' live sessions: [`Store::page`](crate::store::Store::page).
    ///
    /// # Errors
    /// The store could not answer.
    pub async fn page(&self, from: &Cursor, size: usize) -> Result<Page, Outage> {
        self.timed(Operation::Page, || self.store.page(from, size))
            .await
    }

    /// Probes the store, so that its state is known even if no other call is made.
    pub async fn probe(&self) {
        // The breaker records the outcome, and nothing else needs it.
        let whole = Shard::whole();
        drop(
            self.timed(Operation::Ping, || self.store.ping(&whole))
                .await,
        );
    }

    /// The server that the store uses at the moment, for display and without secrets.
    #[must_use]
    pub fn store_server(&self) -> Option<String> {
        self.store.server(&Shard::whole())
    }

    /// Identifies the store's server, which is asked now; `None` if there is no server.
    ///
    /// # Errors
    /// The store could not answer. This doesn't count as a failure of the store, because it needs
    /// rights that streams don't.
    pub async fn server_identity(&self) -> Result<Option<ServerIdentity>, StoreError> {
        self.breaker.may_ask()?;
        self.store.server_identity(&Shard::whole()).await
    }

    /// Makes a call if the breaker allows, counts it, and records what it shows about the store's
    /// health.
    pub(super) async fn timed<T, F>(
        &self,
        operation: Operation,
        call: impl FnOnce() -> F,
    ) -> Result<T, Outage>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let is_probe = operation == Operation::Ping;
        if let (false, Err(error)) = (is_probe, self.breaker.may_ask()) {
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
        let lacks_rights = matches!(answer, Err(StoreError::Rejected(_)));
        if operation != Operation::Page || !lacks_rights {
            let call = StoreCall { asked, is_probe };
            self.breaker
                .note(answer.as_ref().err(), call, &self.metrics);
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
