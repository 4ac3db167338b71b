//! The store of all instances, and the model: a pure roster for each user. Every call goes to both,
//! one call at a time, and both must give the same answer.
//!
//! The clock of the test's runtime is paused, so tokio moves it on whenever nothing is left to do.
//! A real Redis needs a clock that runs, so its connection lives on another runtime. A blocking
//! task waits for its answer, and while one runs tokio leaves the paused clock alone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use streamgate::clock::{Clock, ManualClock, SystemClock, Timestamp};
use streamgate::identity::{SessionKey, UserId};
use streamgate::session::{
    Admission, Ending, Playing, Released, Renewal, Roster, Sighting, Start, StartRules, Terms,
};
use streamgate::store::redis::{RedisSettings, RedisStore};
use streamgate::store::{Listing, MemoryStore, Seen, Store, StoreError};
use tokio::runtime::Runtime;
use tokio::sync::Mutex;

use testkit::redis::RedisServer;

/// The stores that are compared with the model.
pub(super) enum Backend<'a> {
    /// The embedded store.
    Memory,
    /// A Redis, and the runtime of its connection.
    Redis(&'a RedisServer, &'a Runtime),
}

/// What a ledger asks about one user.
#[derive(Debug, Clone)]
pub(super) enum Question {
    Admit(Start, StartRules),
    Renew(Sighting, u32),
    Played(SessionKey),
    Release(SessionKey, Ending, Duration),
    List,
}

/// What the store answers.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Answer {
    Admission(Admission),
    Renewal(Renewal),
    Played(Option<Playing>),
    Released(Released),
    Listing(Listing),
}

/// A user and what is asked about them.
pub(super) type Asked = (UserId, Question);

/// What one call asks.
#[derive(Debug)]
pub(super) enum Asking {
    /// One question.
    One([Asked; 1]),
    /// Renewals, all in one call.
    Batch(Vec<Asked>),
}

/// Forgets everybody, like a Redis that restarts without persistence.
type Forget = Arc<dyn Fn() + Send + Sync>;

/// The store and the model.
pub(super) struct SharedStore {
    /// The store under test.
    real: Arc<dyn Store>,
    /// Where that runs, if it is not where the test does.
    runtime: Option<tokio::runtime::Handle>,
    /// Empties it.
    forget: Forget,
    /// Its time.
    clock: Arc<ManualClock>,
    /// The time of the test.
    time: SystemClock,
    /// What it grants.
    terms: Terms,
    /// The model. Locked during a call, so that the model sees calls in the store's order.
    rosters: Mutex<HashMap<UserId, Roster>>,
}

impl Question {
    /// Asks a store.
    async fn put(&self, store: &dyn Store, user: &UserId) -> Result<Answer, StoreError> {
        Ok(match self {
            Self::Admit(start, rules) => Answer::Admission(store.admit(user, start, rules).await?),
            Self::Renew(sighting, limit) => {
                Answer::Renewal(store.renew(user, sighting, *limit).await?)
            }
            Self::Played(key) => Answer::Played(store.played(user, key).await?),
            Self::Release(key, ending, age) => {
                Answer::Released(store.release(user, key, *ending, *age).await?)
            }
            Self::List => Answer::Listing(store.list(user).await?),
        })
    }

    /// Asks the model.
    fn decide(&self, roster: &mut Roster, terms: &Terms, now: Timestamp) -> Answer {
        match self {
            Self::Admit(start, rules) => Answer::Admission(roster.admit(start, rules, terms, now)),
            Self::Renew(sighting, limit) => {
                Answer::Renewal(roster.renew(sighting, *limit, terms, now))
            }
            Self::Played(key) => Answer::Played(roster.played(key, terms, now)),
            Self::Release(key, ending, age) => {
                Answer::Released(roster.release(key, *ending, *age, terms, now))
            }
            Self::List => Answer::Listing(Listing {
                sessions: roster.live(now).cloned().collect(),
                limit_override: None,
                taken_at: now,
            }),
        }
    }

    /// The session that it is about.
    pub(super) fn key(&self) -> Option<&SessionKey> {
        match self {
            Self::Admit(start, _) => Some(&start.key),
            Self::Renew(sighting, _) => Some(&sighting.key),
            Self::Played(key) | Self::Release(key, ..) => Some(key),
            Self::List => None,
        }
    }
}

impl Asking {
    /// Each question of the call.
    pub(super) fn each(&self) -> &[Asked] {
        match self {
            Self::One(one) => one,
            Self::Batch(many) => many,
        }
    }
}

impl SharedStore {
    /// An empty store that grants these terms. Call it in the test's runtime.
    pub(super) fn new(backend: &Backend<'_>, terms: Terms) -> Self {
        let clock = Arc::new(ManualClock::default());
        let (real, runtime, forget): (Arc<dyn Store>, _, Forget) = match backend {
            Backend::Memory => {
                let store = Arc::new(MemoryStore::new(terms, clock.clone()));
                let emptied = Arc::clone(&store);
                (store, None, Arc::new(move || emptied.forget(|_| true)))
            }
            Backend::Redis(server, runtime) => {
                let settings = RedisSettings {
                    terms,
                    ..server.settings()
                };
                let _entered = runtime.enter();
                let store = RedisStore::open(settings).unwrap();
                let store = Arc::new(store.with_clock(clock.clone()));
                let url = server.url();
                let forget = move || flush(&url);
                (store, Some(runtime.handle().clone()), Arc::new(forget))
            }
        };
        Self {
            real,
            runtime,
            forget,
            clock,
            time: SystemClock::start(),
            terms,
            rosters: Mutex::default(),
        }
    }

    /// The store's time.
    pub(super) fn now(&self) -> Timestamp {
        self.time.now()
    }

    /// The clock of the instances, which is the store's.
    pub(super) fn clock(&self) -> SystemClock {
        self.time.clone()
    }

    /// Asks the store and the model: what each of them answers.
    pub(super) async fn ask(
        &self,
        asked: Asking,
    ) -> (Vec<Result<Answer, StoreError>>, Vec<Answer>) {
        let mut rosters = self.rosters.lock().await;
        let now = self.now();
        self.clock.set(now);
        let expected = asked.each().iter().map(|(user, question)| {
            let roster = rosters.entry(user.clone()).or_default();
            question.decide(roster, &self.terms, now)
        });
        let expected = expected.collect();
        (self.ask_real(asked).await, expected)
    }

    /// Asks the real store.
    async fn ask_real(&self, asked: Asking) -> Vec<Result<Answer, StoreError>> {
        let store = Arc::clone(&self.real);
        let answering = async move {
            match asked {
                Asking::One([(user, question)]) => vec![question.put(&*store, &user).await],
                Asking::Batch(many) => renew_all(&*store, &many).await,
            }
        };
        match self.runtime.clone() {
            None => answering.await,
            Some(runtime) => {
                let asking = move || runtime.block_on(answering);
                tokio::task::spawn_blocking(asking).await.unwrap()
            }
        }
    }

    /// The store forgets everybody.
    pub(super) async fn forget_all(&self) {
        let mut rosters = self.rosters.lock().await;
        rosters.clear();
        let forget = Arc::clone(&self.forget);
        tokio::task::spawn_blocking(move || forget()).await.unwrap();
    }

    /// The user's live sessions, as the model has them.
    pub(super) async fn live(&self, user: &UserId) -> Vec<SessionKey> {
        self.live_in(user, Duration::ZERO).await
    }

    /// Those that are still live after that time, even without a sign of life.
    pub(super) async fn live_in(&self, user: &UserId, time: Duration) -> Vec<SessionKey> {
        let rosters = self.rosters.lock().await;
        let roster = rosters.get(user).cloned().unwrap_or_default();
        let live = roster.live(self.now().after(time));
        live.map(|session| session.key.clone()).collect()
    }
}

/// Tells a store of many streams at once.
async fn renew_all(store: &dyn Store, asked: &[Asked]) -> Vec<Result<Answer, StoreError>> {
    let seen: Vec<Seen> = asked
        .iter()
        .filter_map(|(user, question)| match question {
            Question::Renew(sighting, limit) => Some(Seen {
                user: user.clone(),
                sighting: sighting.clone(),
                limit: *limit,
            }),
            _ => None,
        })
        .collect();
    let answers = store.renew_all(&seen).await.into_iter();
    answers.map(|answer| answer.map(Answer::Renewal)).collect()
}

/// Empties a Redis.
fn flush(url: &str) {
    let mut connection = redis::Client::open(url).unwrap().get_connection().unwrap();
    redis::cmd("FLUSHALL").exec(&mut connection).unwrap();
}
