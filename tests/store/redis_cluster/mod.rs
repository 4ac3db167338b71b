//! A Redis Cluster in trouble: what a fault of one shard does to its users, and that it does
//! nothing to those of the others. Counts and outcomes are asserted, never times.

// What the nodes announce, and how they want to be spoken to.
mod addresses;
// One shard dies, hangs, vanishes, is cut off, is exchanged, or comes back with less.
mod faults;
// Everybody's sessions by pages, while slots move and where a command is forbidden.
mod listing;
// Slots that move, and answers that are lost.
mod moving;
// What is no cluster, or none that we can use.
mod refused;
// Many renewals at once at one master.
mod renewals;

use std::time::Duration;

use futures_util::future::join_all;
use streamgate::store::redis::{RedisSettings, RedisStore};
use streamgate::store::{Store, StoreError};
use tokio_util::sync::CancellationToken;

use testkit::cluster::{MASTERS, RedisCluster};
use testkit::proxy::Proxy;
use testkit::streams::{lasting, lasting_terms, playback, refusing, user};
use testkit::watch::eventually;

/// A deadline that is short for a person and long for a busy machine.
const DEADLINE: Duration = Duration::from_secs(1);

/// How many callers each shard has.
const CALLERS: usize = 4;

/// How long a caller rests after a call.
const REST: Duration = Duration::from_millis(10);

/// How many users each shard has: none starts twice.
const USERS: usize = 40_000;

/// What came of the starts at one shard: the users, by the store's answer.
#[derive(Debug, Default)]
struct Outcomes {
    /// They were let in.
    done: Vec<String>,
    /// Nobody knows.
    unknown: Vec<String>,
    /// Nothing was done, for that reason.
    not_done: Vec<(String, StoreError)>,
}

/// Users of each shard who start one after the other, and what came of it.
struct Load {
    /// The users of each shard who have not started yet.
    users: [Vec<String>; MASTERS],
    /// What came of the others.
    outcomes: [Outcomes; MASTERS],
}

/// The settings of a store that gives up after that time, and whose sessions no test outlasts.
fn settings(cluster: &RedisCluster, timeout: Duration) -> RedisSettings {
    RedisSettings {
        timeout,
        terms: lasting_terms(),
        ..cluster.settings()
    }
}

/// Lets a new user start.
async fn begin(store: &RedisStore, name: &str) -> Result<(), StoreError> {
    let start = lasting(&playback("film"));
    let rules = refusing(3);
    store.admit(&user(name), &start, &rules).await.map(drop)
}

/// Whether that user's stream is counted.
async fn is_counted(store: &RedisStore, name: &str) -> bool {
    let listing = eventually("the user is listed", async || {
        store.list(&user(name)).await.ok()
    });
    !listing.await.sessions.is_empty()
}

/// Waits until users of that shard are let in again, so many.
async fn serves_again(store: &RedisStore, names: &mut Vec<String>) {
    for _ in 0..20 {
        eventually("the shard serves again", async || {
            begin(store, &names.pop().unwrap()).await.is_ok()
        })
        .await;
    }
}

// === impl Outcomes ===

impl Outcomes {
    /// Adds what came of a start.
    fn note(&mut self, name: String, outcome: Result<(), StoreError>) {
        match outcome {
            Ok(()) => self.done.push(name),
            Err(failure) if failure.outcome_is_unknown() => self.unknown.push(name),
            Err(failure) => self.not_done.push((name, failure)),
        }
    }

    /// Adds those of another caller.
    fn join(&mut self, other: Self) {
        self.done.extend(other.done);
        self.unknown.extend(other.unknown);
        self.not_done.extend(other.not_done);
    }

    /// How many starts failed.
    fn failed(&self) -> usize {
        self.unknown.len() + self.not_done.len()
    }

    /// How many of these users are counted.
    async fn counted(store: &RedisStore, names: impl IntoIterator<Item = &String>) -> usize {
        let mut counted = 0;
        for name in names {
            counted += usize::from(is_counted(store, name).await);
        }
        counted
    }

    /// Nothing was done of what was said not to be.
    async fn are_true(&self, store: &RedisStore) {
        let names = self.not_done.iter().map(|(name, _)| name);
        assert_eq!(Self::counted(store, names).await, 0);
    }
}

// === impl Load ===

impl Load {
    /// The users of a cluster.
    fn new(cluster: &RedisCluster, store: &RedisStore) -> Self {
        Self {
            users: cluster.users_of_each(store, USERS),
            outcomes: Default::default(),
        }
    }

    /// Users start at all shards, until that is done.
    async fn during<T>(&mut self, store: &RedisStore, work: impl Future<Output = T>) -> T {
        let over = CancellationToken::new();
        let shards = self.users.iter_mut().map(|users| {
            let share = users.len() / CALLERS;
            let callers = (0..CALLERS).map(|_| users.split_off(users.len() - share));
            let callers: Vec<_> = callers.collect();
            join_all(callers.into_iter().map(|names| call(store, names, &over)))
        });
        let working = async {
            let done = work.await;
            over.cancel();
            done
        };
        let (done, shards) = tokio::join!(working, join_all(shards));
        for (number, callers) in shards.into_iter().enumerate() {
            for (rest, outcomes) in callers {
                self.users[number].extend(rest);
                self.outcomes[number].join(outcomes);
            }
        }
        eprintln!("{self:?}");
        done
    }

    /// No start failed at any shard but that one, and all had some.
    fn spares_the_others(&self, hit: usize) {
        for (number, outcomes) in self.outcomes.iter().enumerate() {
            assert!(!outcomes.done.is_empty(), "{self:?}");
            assert!(number == hit || outcomes.failed() == 0, "{outcomes:?}");
        }
    }
}

impl std::fmt::Debug for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for outcomes in &self.outcomes {
            let (done, unknown) = (outcomes.done.len(), outcomes.unknown.len());
            let not_done = outcomes.not_done.len();
            write!(f, "done {done}, unknown {unknown}, not done {not_done}; ")?;
        }
        Ok(())
    }
}

/// One caller: lets one user after the other start, until that is over. Who is left, and what came
/// of the others.
async fn call(
    store: &RedisStore,
    mut names: Vec<String>,
    over: &CancellationToken,
) -> (Vec<String>, Outcomes) {
    let mut outcomes = Outcomes::default();
    while !over.is_cancelled() {
        let name = names.pop().expect("there are users enough");
        let outcome = begin(store, &name).await;
        outcomes.note(name, outcome);
        tokio::time::sleep(REST).await;
    }
    (names, outcomes)
}
