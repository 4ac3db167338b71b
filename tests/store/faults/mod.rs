//! Each fault that a Redis, or the way to it, can have: what the store says of it, what it does meanwhile, and that it goes on by itself.

mod server;
mod wire;

use std::time::Duration;

use streamgate::session::{Admission, Ending, Released, Renewal};
use streamgate::store::redis::{RedisSettings, RedisStore};
use streamgate::store::{Shard, Store, StoreError};

use testkit::redis::{RedisServer, settings};
use testkit::streams::{playback, refusing, sighting, start, user};
use testkit::watch::eventually;

/// A deadline that is short for a person and long for a busy machine.
const DEADLINE: Duration = Duration::from_millis(300);

/// How many calls the store lets wait for answers at once.
const MOST_WAITING: usize = 4096;

/// A store there with patience enough for a busy machine.
fn store_at(url: &str) -> RedisStore {
    RedisStore::open(settings(url)).unwrap()
}

/// A store there that gives up after that time.
fn store_within(timeout: Duration, url: &str) -> RedisStore {
    let settings = RedisSettings {
        timeout,
        ..settings(url)
    };
    RedisStore::open(settings).unwrap()
}

async fn admit(store: &RedisStore, id: &str) -> Result<Admission, StoreError> {
    let (alice, start) = (user("alice"), start(&playback(id)));
    store.admit(&alice, &start, &refusing(3)).await
}

async fn renew(store: &RedisStore, id: &str) -> Result<Renewal, StoreError> {
    let seen = sighting(&playback(id));
    store.renew(&user("alice"), &seen, 3).await
}

async fn release(store: &RedisStore, id: &str) -> Result<Released, StoreError> {
    let session = playback(id);
    store
        .release(&user("alice"), &session, Ending::Stream, Duration::ZERO)
        .await
}

/// Waits until the store answers.
async fn recovers(store: &RedisStore) {
    eventually("it recovers", || async {
        store.ping(&Shard::whole()).await.is_ok()
    })
    .await;
    eventually("it lets start", || async {
        let admission = admit(store, "after all").await;
        matches!(admission, Ok(Admission::Admitted(_)))
    })
    .await;
}

/// Every operation is refused, and each text holds all those words.
async fn refuses(store: &RedisStore, words: &[&str]) {
    for failure in [
        store.ping(&Shard::whole()).await.err(),
        admit(store, "refused").await.err(),
    ] {
        let failure = failure.expect("it is refused");
        assert!(matches!(failure, StoreError::Rejected(_)), "{failure:?}");
        says(&failure, words);
    }
}

/// The text holds all those words.
fn says(failure: &StoreError, words: &[&str]) {
    let text = failure.to_string();
    for word in words {
        assert!(text.contains(word), "no {word:?} in: {text}");
    }
}

/// How often a script was called by its digest, as the server counts.
fn calls(server: &RedisServer) -> usize {
    let stats: String = server.run(&["INFO", "commandstats"]);
    let evalsha = stats
        .lines()
        .find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
    let number = evalsha.and_then(|rest| rest.split(',').next());
    number.map_or(0, |number| number.parse().unwrap())
}
