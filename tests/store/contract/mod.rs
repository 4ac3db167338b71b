//! What a store has to do, whatever it is made of: each case is written once and runs on every store there is.

use std::sync::Arc;
use std::time::Duration;

use streamgate::clock::{Clock, ManualClock, Timestamp};
use streamgate::identity::{SessionKey, UserId};
use streamgate::session::{
    Admission, AdmissionKind, EndCause, Ending, Refusal, Released, Renewal, Session, Sighting,
    Start, StartRules, WhenFull,
};
use streamgate::store::redis::{RedisSettings, RedisStore};
use streamgate::store::{MemoryStore, Store};

use testkit::cluster::RedisCluster;
use testkit::redis::RedisServer;
use testkit::streams::{sighting, start, terms, user};

/// Makes a test of each case on each store.
macro_rules! contract {
    ($($case:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test]
            async fn $case() {
                crate::store::contract::on_memory(super::$case).await;
            })*
        }

        mod redis {
            $(#[tokio::test]
            async fn $case() {
                crate::store::contract::on_redis(super::$case).await;
            })*
        }

        /// Runs each case on that cluster, one after the other.
        pub(super) async fn on_cluster(cluster: &testkit::cluster::RedisCluster) {
            $(crate::store::contract::on_cluster(cluster, stringify!($case), $case).await;)*
        }
    };
}

mod admit;
mod displace;
mod limits;
mod pages;
mod races;
mod release;
mod renew;

/// A store under test, and the clock it goes by.
struct Subject<'a> {
    store: &'a dyn Store,
    clock: &'a ManualClock,
    /// The numbers of sessions that pages are asked for.
    sizes: &'static [usize],
    /// How many users there are where many are needed.
    crowd: usize,
}

/// The sizes of pages of a store that is one piece.
const SIZES: &[usize] = &[0, 1, 7, 100, 1000];

/// How many users make a crowd there.
const CROWD: usize = 300;

/// A clock somewhere in time.
fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(Timestamp::from_millis(1_700_000_000_000)))
}

/// Runs a case on the embedded store.
async fn on_memory(case: impl AsyncFn(&Subject<'_>)) {
    let clock = clock();
    let store = MemoryStore::new(terms(), clock.clone());
    case(&Subject {
        store: &store,
        clock: &clock,
        sizes: SIZES,
        crowd: CROWD,
    })
    .await;
}

/// Runs a case on a Redis of its own.
async fn on_redis(case: impl AsyncFn(&Subject<'_>)) {
    let clock = clock();
    let server = RedisServer::start();
    let store = server.store().with_clock(clock.clone());
    case(&Subject {
        store: &store,
        clock: &clock,
        sizes: SIZES,
        crowd: CROWD,
    })
    .await;
}

/// Runs a case on a cluster that others share, with keys of its own.
async fn on_cluster(cluster: &RedisCluster, name: &str, case: impl AsyncFn(&Subject<'_>)) {
    eprintln!("{name}");
    let clock = clock();
    let settings = RedisSettings {
        key_prefix: name.chars().take(64).collect(),
        ..cluster.settings()
    };
    let store = RedisStore::open(settings)
        .unwrap()
        .with_clock(clock.clone());
    // To list it, 16,384 slots have to be asked for, so the fewer listings the better.
    case(&Subject {
        store: &store,
        clock: &clock,
        sizes: &[1, 30, 1000],
        crowd: CROWD / 5,
    })
    .await;
}

/// A cluster takes seconds to start, so all cases share one. The last line that this prints names
/// the case that failed.
#[tokio::test]
async fn a_cluster_does_all_that_a_store_has_to_do() {
    let cluster = RedisCluster::start();
    admit::on_cluster(&cluster).await;
    displace::on_cluster(&cluster).await;
    limits::on_cluster(&cluster).await;
    pages::on_cluster(&cluster).await;
    races::on_cluster(&cluster).await;
    release::on_cluster(&cluster).await;
    renew::on_cluster(&cluster).await;
}

/// The user of most cases.
fn alice() -> UserId {
    user("alice")
}

impl Subject<'_> {
    async fn admit(&self, key: &SessionKey, limit: u32) -> Admission {
        self.admit_or(key, limit, &WhenFull::Refuse).await
    }

    async fn admit_or(&self, key: &SessionKey, limit: u32, when_full: &WhenFull) -> Admission {
        self.ask(&start(key), limit, when_full).await
    }

    async fn ask(&self, start: &Start, limit: u32, when_full: &WhenFull) -> Admission {
        self.store
            .admit(&alice(), start, &StartRules::new(limit, when_full.clone()))
            .await
            .unwrap()
    }

    async fn renew(&self, key: &SessionKey, limit: u32) -> Renewal {
        self.see(&sighting(key), limit).await
    }

    async fn see(&self, sighting: &Sighting, limit: u32) -> Renewal {
        self.store.renew(&alice(), sighting, limit).await.unwrap()
    }

    async fn release(&self, key: &SessionKey, ending: Ending) -> Released {
        self.store
            .release(&alice(), key, ending, Duration::ZERO)
            .await
            .unwrap()
    }

    async fn sessions(&self) -> Vec<Session> {
        let listing = self.store.list(&alice()).await.unwrap();
        assert_eq!(listing.taken_at, self.clock.now());
        listing.sessions
    }

    async fn live(&self) -> Vec<SessionKey> {
        let sessions = self.sessions().await;
        sessions.into_iter().map(|session| session.key).collect()
    }

    /// Lets these in, a second apart.
    async fn fill(&self, keys: &[&SessionKey]) {
        for key in keys {
            assert!(is_started(&self.admit(key, 1000).await));
            self.clock.advance(Duration::from_secs(1));
        }
    }

    fn at(&self, later: Duration) -> Timestamp {
        self.clock.now().after(later)
    }
}

fn is_started(admission: &Admission) -> bool {
    matches!(admission, Admission::Admitted(admitted) if admitted.entry == AdmissionKind::Started)
}

/// The sessions that gave way to one that was let in.
fn displaced(admission: Admission) -> Vec<SessionKey> {
    match admission {
        Admission::Admitted(admitted) => admitted
            .displaced
            .into_iter()
            .map(|session| session.key)
            .collect(),
        Admission::Refused(refusal) => panic!("refused: {refusal:?}"),
    }
}

fn ended(cause: EndCause) -> Admission {
    Admission::Refused(Refusal::Ended(cause, None, None))
}

fn is_full(admission: &Admission) -> bool {
    matches!(admission, Admission::Refused(Refusal::Full { .. }))
}
