//! What Redis pays for an operation, beside a textbook semaphore and a script that does nothing: microseconds per call by its own
//! count, and bytes per session. A measurement, not a test; run it by hand, optimised:
//! `cargo test --release --test integration -- --ignored --nocapture store_cost`.

use std::collections::BTreeMap;

use futures_util::{StreamExt, stream};
use redis::aio::MultiplexedConnection;
use streamgate::session::{
    ContentId, DeviceId, Door, Ending, Facts, Kind, SessionKey, Sighting, Start, UserId, WhenFull,
};
use streamgate::store::Store;
use streamgate::store::redis::RedisStore;

use crate::support::redis::RedisServer;
use crate::support::streams::{LEASE, key, sighting, start, user};

/// How many users take part in the measurement of time.
const USERS: usize = 6_000;

/// How many calls are made between two readings. Small, so that what else runs on the machine spoils few of them.
const BATCH: usize = 100;

/// How many calls are under way at a time.
const CALLS_AT_ONCE: usize = 50;

/// The counting semaphore as it is usually written: a sorted set of holders by the end of their leases.
const TEXTBOOK: &str = "
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if redis.call('ZCARD', KEYS[1]) < tonumber(ARGV[1]) then
  redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[2])
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  return 1
end
return 0";

/// What is measured, and what it is measured with.
struct Bench {
    store: RedisStore,
    link: MultiplexedConnection,
    /// Microseconds per call of each batch, by what was called.
    times: BTreeMap<&'static str, Vec<f64>>,
}

/// A user whose name has twenty bytes.
fn viewer(number: usize) -> UserId {
    user(&format!("user-{number:015}"))
}

/// A session whose id has thirty-six bytes: a UUID, or not.
fn session(viewer: usize, number: usize, is_uuid: bool) -> SessionKey {
    let id = format!("{viewer:08x}-7d8e-4f00-9f00-{number:012x}");
    let id = if is_uuid {
        id
    } else {
        id.to_uppercase().replace('-', "_")
    };
    key(Kind::Playback, &id)
}

/// Device and content of sixteen bytes each.
fn facts() -> Facts {
    Facts {
        device: DeviceId::parse("device-012345678").ok(),
        content: ContentId::parse("content-01234567").ok(),
        door: Some(Door::ExtAuthz),
        ..Facts::default()
    }
}

fn starting(key: &SessionKey) -> Start {
    Start {
        facts: facts(),
        ..start(key)
    }
}

impl Bench {
    /// Microseconds that a call of a script has taken since the last look.
    async fn look(&mut self, what: &'static str) {
        let report: String = redis::cmd("INFO")
            .arg("commandstats")
            .query_async(&mut self.link)
            .await
            .unwrap();
        let line = report
            .lines()
            .find_map(|line| line.strip_prefix("cmdstat_evalsha:"))
            .unwrap();
        let field = |name: &str| -> f64 {
            let found = line.split(',').find_map(|field| field.strip_prefix(name));
            found.unwrap().parse().unwrap()
        };
        let time = field("usec=") / field("calls=");
        self.times.entry(what).or_default().push(time);
        redis::cmd("CONFIG")
            .arg("RESETSTAT")
            .exec_async(&mut self.link)
            .await
            .unwrap();
    }

    /// Calls a script of another's, once for each of these users, as the store would.
    async fn call(
        &mut self,
        what: &'static str,
        digest: &str,
        users: &[usize],
        session_number: usize,
    ) {
        let link = &self.link;
        stream::iter(users)
            .for_each_concurrent(CALLS_AT_ONCE, |number| async move {
                let mut call = redis::cmd("EVALSHA");
                let key = format!("{what}:{{{}}}", viewer(*number));
                call.arg(digest).arg(1).arg(key);
                if what != "empty" {
                    let member = session(*number, session_number, true).id;
                    let lease = LEASE.as_millis().to_string();
                    call.arg(3).arg(member.as_str()).arg(lease);
                }
                call.exec_async(&mut link.clone()).await.unwrap();
            })
            .await;
        self.look(what).await;
    }

    /// Does something with the store, once for each of these users.
    async fn act(
        &mut self,
        what: &'static str,
        users: &[usize],
        act: impl AsyncFn(&RedisStore, usize),
    ) {
        let (store, act) = (&self.store, &act);
        stream::iter(users)
            .for_each_concurrent(
                CALLS_AT_ONCE,
                |number| async move { act(store, *number).await },
            )
            .await;
        self.look(what).await;
    }

    /// Starts the session of that number of each user.
    async fn start(
        &mut self,
        what: &'static str,
        users: &[usize],
        is_uuid: bool,
        session_of: impl Fn(usize) -> usize,
    ) {
        let session_of = &session_of;
        self.act(what, users, async |store, user| {
            let start = starting(&session(user, session_of(user), is_uuid));
            let viewer = viewer(user);
            let admission = store.admit(&viewer, &start, 3, &WhenFull::Refuse);
            admission.await.unwrap();
        })
        .await;
    }

    /// Renews one session of each user.
    async fn renew(&mut self, users: &[usize], is_uuid: bool) {
        self.act("renew", users, async |store, user| {
            let seen = Sighting {
                facts: facts(),
                ..sighting(&session(user, user % 3, is_uuid))
            };
            store.renew(&viewer(user), &seen, 3).await.unwrap();
        })
        .await;
    }

    /// Lists each user's sessions.
    async fn list(&mut self, users: &[usize]) {
        self.act("list", users, async |store, user| {
            store.list(&viewer(user)).await.unwrap();
        })
        .await;
    }

    /// Releases one session of each user.
    async fn release(&mut self, users: &[usize], is_uuid: bool) {
        self.act("release", users, async |store, user| {
            let (viewer, key) = (viewer(user), session(user, user % 3, is_uuid));
            let released = store.release(&viewer, &key, Ending::Stream);
            released.await.unwrap();
        })
        .await;
    }

    /// Says what was measured.
    fn print(&mut self) {
        let textbook = self.cost("textbook");
        let names: Vec<&str> = self.times.keys().copied().collect();
        for what in names {
            let cost = self.cost(what);
            println!(
                "{what:>12}  {cost:6.2} us  {:5.2} of the textbook",
                cost / textbook
            );
        }
    }

    /// The time that a third of the batches stayed below: what it costs when nothing else gets in the way.
    fn cost(&mut self, what: &str) -> f64 {
        let times = self.times.get_mut(what).unwrap();
        times.sort_by(f64::total_cmp);
        times[times.len() / 3]
    }
}

async fn load(link: &mut MultiplexedConnection, script: &str) -> String {
    let mut load = redis::cmd("SCRIPT");
    load.arg("LOAD")
        .arg(script)
        .query_async(link)
        .await
        .unwrap()
}

async fn measure_time(is_uuid: bool) {
    let server = RedisServer::start();
    let client = redis::Client::open(server.url()).unwrap();
    let mut link = client.get_multiplexed_async_connection().await.unwrap();
    let empty = load(&mut link, "return 1").await;
    let textbook = load(&mut link, TEXTBOOK).await;
    let store = server.store();
    store.ping().await.unwrap();
    let mut bench = Bench {
        store,
        link,
        times: BTreeMap::new(),
    };
    let numbers: Vec<usize> = (0..USERS).collect();
    for users in numbers.chunks(BATCH) {
        for third in 0..3 {
            bench.call("empty", &empty, users, third).await;
            bench.call("textbook", &textbook, users, third).await;
            bench.start("start", users, is_uuid, |_| third).await;
        }
        bench.renew(users, is_uuid).await;
        bench
            .start("start again", users, is_uuid, |user| user % 3)
            .await;
        bench.start("refused", users, is_uuid, |_| 9).await;
        bench.list(users).await;
        bench.release(users, is_uuid).await;
    }
    bench.print();
}

async fn measure_bytes(is_uuid: bool) {
    const USERS: usize = 100_000;
    let server = RedisServer::start();
    let store = server.store();
    store.ping().await.unwrap();
    let used = || -> usize {
        let report: String = server.run(&["INFO", "memory"]);
        let used = report
            .lines()
            .find_map(|line| line.strip_prefix("used_memory:"));
        used.unwrap().trim().parse().unwrap()
    };
    let before = used();
    let sessions: Vec<(usize, usize)> = (0..USERS)
        .flat_map(|number| (0..2 + number % 2).map(move |session| (number, session)))
        .collect();
    let count = sessions.len();
    stream::iter(sessions)
        .for_each_concurrent(CALLS_AT_ONCE, |(number, index)| {
            let store = &store;
            async move {
                let start = starting(&session(number, index, is_uuid));
                store
                    .admit(&viewer(number), &start, 3, &WhenFull::Refuse)
                    .await
                    .unwrap();
            }
        })
        .await;
    let per_user: usize = server.run(&["MEMORY", "USAGE", "streamgate:{user-000000000000001}"]);
    println!(
        "{count} sessions of {USERS} users: {:.1} bytes a session; MEMORY USAGE of a user with three: {per_user}",
        (used() - before) as f64 / count as f64
    );
}

#[tokio::test]
#[ignore = "a measurement, run by hand"]
async fn microseconds_per_call_and_bytes_per_session() {
    for (is_uuid, ids) in [(true, "UUIDs"), (false, "other texts of 36 bytes")] {
        println!("session ids are {ids}");
        measure_time(is_uuid).await;
        measure_bytes(is_uuid).await;
    }
}
