//! Many viewers on the real binary, while Redis forgets everything, stands still, or is simply to be left in peace. No Envoy: the checks
//! are spoken as it speaks them, and offered at a steady rate, whatever the answers take.

mod forgets;
mod in_peace;
mod stands_still;

use std::collections::HashSet;
use std::time::Duration;

use futures_util::stream;
use futures_util::stream::StreamExt;
use streamgate::clock::Stopwatch;
use streamgate::identity::SessionKey;
use streamgate::store::Store;
use streamgate::store::redis::RedisStore;

use testkit::gateway_client::{Answer, Check, Gateway};
use testkit::streamgate::Setting;
use testkit::streams::user;
use testkit::watch::PATIENCE;

/// Two loads at once on a small machine would show nothing but that it is small.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// What is published is measured with an optimised build. One that isn't can't do so much beside other tests: it is offered the n-th part.
const PART: usize = if cfg!(debug_assertions) { 5 } else { 1 };

/// How many calls are under way at a time where none has a time of its own.
const AT_ONCE: usize = 64;

/// How many entries Envoy sends in one message. After one of 1,000 streamgate would end the stream.
const ENTRIES: usize = 500;

/// The settings of a streamgate that counts in this Redis, and these besides.
fn on_redis<'a>(url: &'a str, others: &[Setting<'a>]) -> Vec<Setting<'a>> {
    let redis = [
        ("store.backend", "redis"),
        ("store.redis.urls", url),
        ("limits.grace", "0s"),
    ];
    redis.iter().chain(others).copied().collect()
}

/// A steady rate.
struct Pace {
    begun: Stopwatch,
    per_second: usize,
    given: usize,
}

impl Pace {
    /// So many a second, from now on.
    fn of(per_second: usize) -> Self {
        Self {
            begun: Stopwatch::start(),
            per_second,
            given: 0,
        }
    }

    /// The numbers of those that have come due, after a moment in which some may.
    async fn due(&mut self) -> std::ops::Range<usize> {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let elapsed = usize::try_from(self.begun.elapsed().as_micros()).unwrap();
        let by_now = elapsed * self.per_second / 1_000_000;
        std::mem::replace(&mut self.given, by_now)..by_now
    }
}

/// Asks, and does not wait for ever; `None` if no answer came.
async fn ask(gateway: &Gateway, check: Check) -> Option<Answer> {
    let asking = Box::pin(gateway.try_check(check));
    let asked = tokio::time::timeout(PATIENCE, asking).await;
    asked.ok()?.ok()
}

/// What Redis counts of some users' sessions.
async fn counted(
    store: &RedisStore,
    users: impl IntoIterator<Item = String>,
) -> Vec<(String, HashSet<SessionKey>)> {
    let looks = users.into_iter().map(async |name| {
        let listing = store.list(&user(&name)).await.unwrap();
        let keys = listing.sessions.into_iter().map(|session| session.key);
        (name, keys.collect())
    });
    stream::iter(looks)
        .buffer_unordered(AT_ONCE)
        .collect()
        .await
}
