//! A store that fails on command: it loses answers, refuses, or keeps its callers waiting. The
//! embedded store does the work. It is one piece, or has shards that fail each on its own.
//!
//! Unit tests use it, and integration tests through the feature `faulty-store`. It is a module of
//! this crate and not of `testkit`, because it implements this crate's [`Store`]: in a unit test
//! `testkit` is built with another copy of that trait.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::clock::{Clock, SystemClock, Timestamp};
use crate::identity::{EndMessage, SessionKey, UserId};
use crate::session::{
    Admission, Ending, LimitOverride, Playing, Released, Renewal, Sighting, Start, StartRules,
    Terms,
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
    /// It says that it timed out, and does what it is asked that much later.
    ActsLate(Duration),
    /// That is wrong with every so-manieth call about a user, and nothing with the others.
    Every(usize, Box<Self>),
}

/// Wraps the embedded store.
#[derive(Debug)]
pub struct FaultyStore {
    /// The store below, in which nothing is ever wrong.
    pub sound: Arc<MemoryStore>,
    /// What is wrong with each operation.
    faults: Mutex<HashMap<&'static str, Fault>>,
    /// Who owns each slot. A user has one slot for ever.
    owners: Mutex<Vec<Shard>>,
    /// What is wrong with each shard.
    shard_faults: Mutex<HashMap<Shard, Fault>>,
    /// How many calls each shard was asked for, probes left out, and how many of them failed.
    tallies: Mutex<HashMap<Shard, (usize, usize)>>,
    /// The user whose sessions can't be renewed, as if the key held something else.
    pub broken: Mutex<Option<UserId>>,
    /// Whether callers have to wait, before anything is done.
    held: watch::Sender<bool>,
    /// How often each operation was asked for.
    calls: watch::Sender<HashMap<&'static str, usize>>,
    /// How often each user was asked about, for [`Fault::Every`].
    turns: Mutex<HashMap<UserId, usize>>,
    /// What it has yet to do: [`Fault::ActsLate`].
    late: Mutex<JoinSet<()>>,
}

impl FaultyStore {
    /// A store in which nothing is wrong yet.
    pub fn new() -> Arc<Self> {
        Self::at(Arc::new(SystemClock::start()))
    }

    /// The same, by that clock.
    pub fn at(clock: Arc<dyn Clock>) -> Arc<Self> {
        let terms = Terms::new(Duration::from_secs(30), Duration::from_millis(50));
        Self::before(Arc::new(MemoryStore::new(terms, clock)))
    }

    /// One way to a store that others may reach by theirs: only this way fails.
    pub fn before(sound: Arc<MemoryStore>) -> Arc<Self> {
        Arc::new(Self {
            sound,
            faults: Mutex::default(),
            owners: Mutex::new(vec![Shard::whole()]),
            shard_faults: Mutex::default(),
            tallies: Mutex::default(),
            broken: Mutex::default(),
            held: watch::Sender::new(false),
            calls: watch::Sender::default(),
            turns: Mutex::default(),
            late: Mutex::default(),
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

    /// Who owns each slot from now on. There must be at least one.
    pub fn is_owned_by(&self, owners: &[Shard]) {
        *lock(&self.owners) = owners.to_vec();
    }

    /// What is wrong from now on, with that shard.
    pub fn shard_fails(&self, shard: &Shard, fault: Fault) {
        lock(&self.shard_faults).insert(shard.clone(), fault);
    }

    /// How many calls a shard was asked for so far, probes left out, and how many of them failed.
    pub fn calls_to(&self, shard: &Shard) -> (usize, usize) {
        lock(&self.tallies).get(shard).copied().unwrap_or_default()
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

    /// Does an operation about a user, or not, and counts it for their shard.
    async fn about<T: Send + 'static>(
        &self,
        user: &UserId,
        operation: &'static str,
        doing: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let shard = self.shard_of(user);
        let done = self.through(operation, (&shard, Some(user)), doing).await;
        let mut tallies = lock(&self.tallies);
        let (calls, failed) = tallies.entry(shard).or_default();
        *calls += 1;
        *failed += usize::from(done.is_err());
        drop(tallies);
        done
    }

    /// Does an operation in that shard, or not. It may be about one user.
    async fn through<T: Send + 'static>(
        &self,
        operation: &'static str,
        (shard, user): (&Shard, Option<&UserId>),
        doing: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.calls
            .send_modify(|calls| *calls.entry(operation).or_default() += 1);
        drop(self.held.subscribe().wait_for(|held| !held).await);
        if *shard == Shard::unowned() {
            return Err(StoreError::NotAsked("no master owns the slot".to_owned()));
        }
        let of_operation = self.faults().get(operation).cloned();
        let of_shard = lock(&self.shard_faults).get(shard).cloned();
        let fault = of_operation
            .filter(|fault| !matches!(fault, Fault::None))
            .or(of_shard)
            .unwrap_or_default();
        let timeout = Err(StoreError::Timeout(Duration::from_millis(50)));
        match self.in_turn(fault, user) {
            Fault::None | Fault::Every(..) => doing.await,
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
            Fault::ActsLate(time) => {
                lock(&self.late).spawn(async move {
                    tokio::time::sleep(time).await;
                    drop(doing.await);
                });
                timeout
            }
        }
    }

    /// What is wrong with this call, if it is wrong with every so-manieth only.
    fn in_turn(&self, fault: Fault, user: Option<&UserId>) -> Fault {
        let Fault::Every(times, fault) = fault else {
            return fault;
        };
        let mut turns = lock(&self.turns);
        let turn = user.map_or(0, |user| {
            let turn = turns.entry(user.clone()).or_default();
            *turn += 1;
            *turn
        });
        if turn.is_multiple_of(times) {
            *fault
        } else {
            Fault::None
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
        let (sound, of) = (Arc::clone(&self.sound), user.clone());
        let (start, rules) = (start.clone(), rules.clone());
        let doing = async move { sound.admit(&of, &start, &rules).await };
        self.about(user, "admit", doing).await
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
        let (sound, of, sighting) = (Arc::clone(&self.sound), user.clone(), sighting.clone());
        let doing = async move { sound.renew(&of, &sighting, limit).await };
        self.about(user, "renew", doing).await
    }

    async fn release_telling(
        &self,
        user: &UserId,
        key: &SessionKey,
        ending: (Ending, Option<&EndMessage>),
        age: Duration,
    ) -> Result<(Released, Option<Timestamp>), StoreError> {
        let (sound, of, key) = (Arc::clone(&self.sound), user.clone(), key.clone());
        let (ending, message) = (ending.0, ending.1.cloned());
        let doing = async move {
            sound
                .release_telling(&of, &key, (ending, message.as_ref()), age)
                .await
        };
        self.about(user, "release", doing).await
    }

    async fn played(&self, user: &UserId, key: &SessionKey) -> Result<Option<Playing>, StoreError> {
        let (sound, of, key) = (Arc::clone(&self.sound), user.clone(), key.clone());
        let doing = async move { sound.played(&of, &key).await };
        self.about(user, "played", doing).await
    }

    async fn list(&self, user: &UserId) -> Result<Listing, StoreError> {
        let (sound, of) = (Arc::clone(&self.sound), user.clone());
        self.about(user, "list", async move { sound.list(&of).await })
            .await
    }

    async fn override_limit(
        &self,
        user: &UserId,
        limit: Option<LimitOverride>,
    ) -> Result<Option<LimitOverride>, StoreError> {
        let (sound, of) = (Arc::clone(&self.sound), user.clone());
        let doing = async move { sound.override_limit(&of, limit).await };
        self.about(user, "override_limit", doing).await
    }

    async fn page(&self, from: &Cursor, size: usize) -> Result<Page, StoreError> {
        let (sound, from) = (Arc::clone(&self.sound), from.clone());
        let doing = async move { sound.page(&from, size).await };
        self.through("page", (&Shard::whole(), None), doing).await
    }

    fn shard_of(&self, user: &UserId) -> Shard {
        let owners = lock(&self.owners);
        let bytes = user.as_str().bytes().map(usize::from);
        let slot = bytes.fold(0, |sum: usize, byte| {
            sum.wrapping_mul(31).wrapping_add(byte)
        }) % owners.len().max(1);
        owners.get(slot).cloned().unwrap_or_else(Shard::whole)
    }

    fn shards(&self) -> Vec<Shard> {
        let owners: BTreeSet<Shard> = lock(&self.owners).iter().cloned().collect();
        owners.into_iter().collect()
    }

    async fn ping(&self, shard: &Shard) -> Result<(), StoreError> {
        if !self.shards().contains(shard) {
            return Err(StoreError::NotAsked("it owns no slot".to_owned()));
        }
        let (sound, of) = (Arc::clone(&self.sound), shard.clone());
        let doing = async move { sound.ping(&of).await };
        self.through("ping", (shard, None), doing).await
    }
}
