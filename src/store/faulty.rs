//! A store that fails on command: it loses answers, refuses, or keeps its callers waiting. The
//! embedded store does the work.
//!
//! Unit tests use it, and integration tests through the feature `faulty-store`. It is a module of
//! this crate and not of `testkit`, because it implements this crate's [`Store`]: in a unit test
//! `testkit` is built with another copy of that trait.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::clock::{Clock, SystemClock};
use crate::identity::{SessionKey, UserId};
use crate::session::{
    Admission, Ending, Playing, Released, Renewal, Sighting, Start, StartRules, Terms,
};
use crate::store::{Cursor, Listing, MemoryStore, Page, Shard, Store, StoreError};
use crate::util::lock;

/// What the store does wrong.
#[derive(Debug, Clone, Default)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// It does what it is asked, and says that it timed out.
    LosesAnswers,
    /// It does nothing and says that it timed out.
    LosesCalls,
    /// It does nothing and says so.
    Errs(StoreError),
    /// It does what it is asked, and takes that long before it does.
    Takes(Duration),
    /// It does what it is asked, and takes that long to say so.
    AnswersLate(Duration),
}

/// Wraps the embedded store.
#[derive(Debug)]
pub struct FaultyStore {
    /// The store below, in which nothing is ever wrong.
    pub sound: MemoryStore,
    /// What is wrong with each operation.
    faults: Mutex<HashMap<&'static str, Fault>>,
    /// The user whose sessions can't be renewed, as if the key held something else.
    pub broken: Mutex<Option<UserId>>,
    /// Whether callers have to wait, before anything is done.
    held: watch::Sender<bool>,
    /// How often each operation was asked for.
    calls: watch::Sender<HashMap<&'static str, usize>>,
}

impl FaultyStore {
    /// A store in which nothing is wrong yet.
    pub fn new() -> Arc<Self> {
        Self::at(Arc::new(SystemClock::start()))
    }

    /// The same, by that clock.
    pub fn at(clock: Arc<dyn Clock>) -> Arc<Self> {
        let terms = Terms::new(Duration::from_secs(30), Duration::from_millis(50));
        Arc::new(Self {
            sound: MemoryStore::new(terms, clock),
            faults: Mutex::default(),
            broken: Mutex::default(),
            held: watch::Sender::new(false),
            calls: watch::Sender::default(),
        })
    }

    /// What is wrong from now on, with everything.
    pub fn fails(&self, fault: &Fault) {
        let operations = [
            "admit", "renew", "played", "release", "list", "page", "ping",
        ];
        *self.faults() = operations
            .map(|operation| (operation, fault.clone()))
            .into();
    }

    /// What is wrong from now on, with that operation.
    pub fn fails_at(&self, operation: &'static str, fault: Fault) {
        self.faults().insert(operation, fault);
    }

    /// From now on callers wait.
    pub fn hold(&self) {
        self.held.send_replace(true);
    }

    /// Callers wait no longer.
    pub fn let_go(&self) {
        self.held.send_replace(false);
    }

    /// How often that was asked for, held calls included.
    pub fn calls(&self, operation: &str) -> usize {
        self.calls.borrow().get(operation).copied().unwrap_or(0)
    }

    /// Waits until that has been asked for so often.
    pub async fn asked(&self, operation: &str, times: usize) {
        let mut calls = self.calls.subscribe();
        let enough = |calls: &HashMap<&'static str, usize>| {
            calls.get(operation).copied().unwrap_or(0) >= times
        };
        let patience = Duration::from_secs(20);
        let waited = tokio::time::timeout(patience, calls.wait_for(enough)).await;
        assert!(
            waited.is_ok(),
            "{operation} was not asked for {times} times"
        );
    }

    /// The ids of a user's live sessions, in order.
    pub async fn live(&self, user: &str) -> Vec<String> {
        let Ok(user) = UserId::parse(user) else {
            return Vec::new();
        };
        let listing = self.sound.list(&user).await;
        let sessions = listing.map(|listing| listing.sessions).unwrap_or_default();
        sessions
            .iter()
            .map(|session| session.key.id.to_string())
            .collect()
    }

    fn faults(&self) -> MutexGuard<'_, HashMap<&'static str, Fault>> {
        lock(&self.faults)
    }

    /// Does an operation, or not.
    async fn through<T>(
        &self,
        operation: &'static str,
        doing: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.calls
            .send_modify(|calls| *calls.entry(operation).or_default() += 1);
        drop(self.held.subscribe().wait_for(|held| !held).await);
        let fault = self.faults().get(operation).cloned().unwrap_or_default();
        let timeout = Err(StoreError::Timeout(Duration::from_millis(50)));
        match fault {
            Fault::None => doing.await,
            Fault::LosesAnswers => doing.await.and(timeout),
            Fault::LosesCalls => timeout,
            Fault::Errs(error) => Err(error),
            Fault::Takes(time) => {
                tokio::time::sleep(time).await;
                doing.await
            }
            Fault::AnswersLate(time) => {
                let answer = doing.await;
                tokio::time::sleep(time).await;
                answer
            }
        }
    }
}

#[async_trait]
impl Store for FaultyStore {
    async fn admit(
        &self,
        user: &UserId,
        start: &Start,
        rules: &StartRules,
    ) -> Result<Admission, StoreError> {
        let doing = self.sound.admit(user, start, rules);
        self.through("admit", doing).await
    }

    async fn renew(
        &self,
        user: &UserId,
        sighting: &Sighting,
        limit: u32,
    ) -> Result<Renewal, StoreError> {
        let is_broken = {
            let broken = lock(&self.broken);
            broken.as_ref() == Some(user)
        };
        if is_broken {
            return Err(StoreError::Protocol("FOREIGN".to_owned()));
        }
        self.through("renew", self.sound.renew(user, sighting, limit))
            .await
    }

    async fn release(
        &self,
        user: &UserId,
        key: &SessionKey,
        ending: Ending,
        age: Duration,
    ) -> Result<Released, StoreError> {
        self.through("release", self.sound.release(user, key, ending, age))
            .await
    }

    async fn played(&self, user: &UserId, key: &SessionKey) -> Result<Option<Playing>, StoreError> {
        self.through("played", self.sound.played(user, key)).await
    }

    async fn list(&self, user: &UserId) -> Result<Listing, StoreError> {
        self.through("list", self.sound.list(user)).await
    }

    async fn page(&self, from: &Cursor, size: usize) -> Result<Page, StoreError> {
        self.through("page", self.sound.page(from, size)).await
    }

    async fn ping(&self, shard: &Shard) -> Result<(), StoreError> {
        self.through("ping", self.sound.ping(shard)).await
    }
}
