//! What Redis pays for an operation, compared with a textbook semaphore and a script that does
//! nothing: microseconds per call by its own count, and bytes per session. Also whether the listing
//! of everybody holds it up, and what a Redis Cluster costs. `make bench-redis` runs it and prints
//! its tables. Another machine prints other figures, so this is no test.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a measurement that can't go on has failed"
)]

mod cluster;

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use redis::aio::MultiplexedConnection;
use streamgate::identity::{ContentId, DeviceId, Door, Facts, Kind, SessionKey, UserId};
use streamgate::session::{Ending, Renewal, Sighting, Start, Terms};
use streamgate::store::redis::{RedisSettings, RedisStore};
use streamgate::store::{Cursor, Seen, Shard, Store};

use testkit::redis::RedisServer;
use testkit::streams::{LEASE, key, refusing, sighting, start, user};
use testkit::watch::as_many;

/// How many users take part in the measurement of time, with three sessions each.
const USERS: usize = 6_000;

/// How many take part in the measurement of memory, half of them with two sessions, half of them
/// with three.
const USERS_KEPT: usize = 100_000;

/// How many take part in the measurement of pages, half of them with two sessions, half of them
/// with three.
const USERS_LISTED: usize = 200_000;

/// How often everybody's pages are followed.
const PASSES: usize = 3;

/// How many keys of other users are in the database at the end.
const OTHERS: usize = 1_000_000;

/// How many calls are made between two readings. Small, so that what else runs on the machine
/// spoils few of them.
const BATCH: usize = 100;

/// A lease that outlasts all this.
const LONG: Duration = Duration::from_secs(3600);

/// How many calls are under way at a time.
const CALLS_AT_ONCE: usize = 50;

/// The counting semaphore as it is usually written: a sorted set of holders by the end of their
/// leases.
const TEXTBOOK: &str = include_str!("../textbook.lua");

/// The rows of the table: the name of each call, and its heading.
const ROWS: [(&str, &str); 10] = [
    ("empty", "a script that does nothing"),
    ("textbook", "a textbook semaphore's start"),
    ("start", "start"),
    ("again", "start, repeated"),
    ("refused", "start, refused"),
    ("played", "that it plays, once a playback"),
    ("renew", "renewal"),
    ("renew all", "renewal among many, each"),
    ("release", "release"),
    ("list", "list"),
];

/// The subject of the measurement, and its tools.
struct Bench {
    store: RedisStore,
    link: MultiplexedConnection,
    /// Microseconds per call of each batch, by the name of the call.
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
    /// Notes the microseconds that a call of a script has taken since the last look; or one of so
    /// many that shared calls.
    async fn look(&mut self, what: &'static str, calls: Option<usize>) {
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
        let calls = calls.map_or_else(|| field("calls="), |calls| calls as f64);
        let time = field("usec=") / calls;
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
        self.look(what, None).await;
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
        self.look(what, None).await;
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
            let rules = refusing(3);
            let admission = store.admit(&viewer, &start, &rules);
            admission.await.unwrap();
        })
        .await;
    }

    /// Reports of one session of each user that it plays.
    async fn played(&mut self, users: &[usize], is_uuid: bool) {
        self.act("played", users, async |store, user| {
            let (viewer, key) = (viewer(user), session(user, user % 3, is_uuid));
            assert!(store.played(&viewer, &key).await.unwrap().is_some());
        })
        .await;
    }

    /// Renews one session of each user.
    async fn renew(&mut self, users: &[usize], is_uuid: bool) {
        self.act("renew", users, async |store, user| {
            let Seen {
                user,
                sighting,
                limit,
            } = seen(user, is_uuid);
            let renewal = store.renew(&user, &sighting, limit).await;
            assert!(matches!(renewal, Ok(Renewal::Renewed { .. })));
        })
        .await;
    }

    /// Renews one session of each user, all concurrently.
    async fn renew_all(&mut self, users: &[usize], is_uuid: bool) {
        let all: Vec<_> = users.iter().map(|user| seen(*user, is_uuid)).collect();
        for renewal in self.store.renew_all(&all).await {
            assert!(matches!(renewal, Ok(Renewal::Renewed { .. })));
        }
        self.look("renew all", Some(all.len())).await;
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
            let released = store.release(&viewer, &key, Ending::Stream, Duration::ZERO);
            released.await.unwrap();
        })
        .await;
    }

    /// The medians of all batches: microseconds, and how many times what the textbook's batches of
    /// the same round took.
    fn cost(&self, what: &str) -> (f64, f64) {
        let (times, textbook) = (&self.times[what], &self.times["textbook"]);
        let rounds = textbook.chunks(textbook.len() / times.len());
        let mean = |times: &[f64]| times.iter().sum::<f64>() / times.len() as f64;
        let ratios = times
            .iter()
            .zip(rounds)
            .map(|(time, round)| time / mean(round));
        (median(times.clone()), median(ratios.collect()))
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What the gateway tells of a session of that user that runs.
fn seen(number: usize, is_uuid: bool) -> Seen {
    Seen {
        user: viewer(number),
        sighting: Sighting {
            facts: facts(),
            ..sighting(&session(number, number % 3, is_uuid))
        },
        limit: 3,
    }
}

/// A field of the server's `INFO`.
fn told(server: &RedisServer, section: &str, field: &str) -> String {
    let report: String = server.run(&["INFO", section]);
    let line = report.lines().find_map(|line| line.strip_prefix(field));
    line.unwrap().trim().to_owned()
}

async fn load(link: &mut MultiplexedConnection, script: &str) -> String {
    let mut load = redis::cmd("SCRIPT");
    load.arg("LOAD")
        .arg(script)
        .query_async(link)
        .await
        .unwrap()
}

/// Microseconds per call, and its ratio to the textbook's, by the name of the call.
async fn measure_time(is_uuid: bool) -> BTreeMap<&'static str, (f64, f64)> {
    let server = RedisServer::start();
    let client = redis::Client::open(server.url()).unwrap();
    let mut link = client.get_multiplexed_async_connection().await.unwrap();
    let empty = load(&mut link, "return 1").await;
    let textbook = load(&mut link, TEXTBOOK).await;
    let store = server.store();
    store.ping(&Shard::whole()).await.unwrap();
    let mut bench = Bench {
        store,
        link,
        times: BTreeMap::new(),
    };
    let numbers: Vec<usize> = (0..as_many(USERS)).collect();
    for users in numbers.chunks(BATCH) {
        for third in 0..3 {
            bench.call("empty", &empty, users, third).await;
            bench.call("textbook", &textbook, users, third).await;
            bench.start("start", users, is_uuid, |_| third).await;
        }
        bench.played(users, is_uuid).await;
        bench.renew(users, is_uuid).await;
        bench.renew_all(users, is_uuid).await;
        bench.start("again", users, is_uuid, |user| user % 3).await;
        bench.start("refused", users, is_uuid, |_| 9).await;
        bench.list(users).await;
        bench.release(users, is_uuid).await;
    }
    ROWS.map(|(what, _)| (what, bench.cost(what))).into()
}

/// Bytes per session, everything included, of users that have so many each.
async fn measure_bytes(is_uuid: bool, each: fn(usize) -> usize) -> f64 {
    let server = RedisServer::start();
    let store = server.store();
    store.ping(&Shard::whole()).await.unwrap();
    let used = || -> f64 { told(&server, "memory", "used_memory:").parse().unwrap() };
    let before = used();
    let count = fill(&store, as_many(USERS_KEPT), is_uuid, each).await;
    (used() - before) / count as f64
}

/// Two or three sessions.
const fn two_or_three(user: usize) -> usize {
    2 + user % 2
}

/// Lets so many users have so many sessions each; how many sessions there are.
async fn fill(store: &RedisStore, users: usize, is_uuid: bool, each: fn(usize) -> usize) -> usize {
    let sessions: Vec<(usize, usize)> = (0..users)
        .flat_map(|number| (0..each(number)).map(move |session| (number, session)))
        .collect();
    let count = sessions.len();
    stream::iter(sessions)
        .for_each_concurrent(CALLS_AT_ONCE, |(number, index)| async move {
            let start = Start {
                lease: LONG,
                ..starting(&session(number, index, is_uuid))
            };
            store
                .admit(&viewer(number), &start, &refusing(3))
                .await
                .unwrap();
        })
        .await;
    count
}

/// Everybody's pages of one size, by what Redis wrote down of each command.
struct Pages {
    /// How many there were.
    count: u64,
    /// Microseconds of each command, in ascending order.
    commands: Vec<u64>,
}

/// Has the server write down what each command took from now on.
fn write_down(server: &RedisServer) {
    server.run::<()>(&["CONFIG", "SET", "slowlog-max-len", "1000000"]);
    server.run::<()>(&["CONFIG", "SET", "slowlog-log-slower-than", "0"]);
    server.run::<()>(&["SLOWLOG", "RESET"]);
}

/// What each of those commands took since then, in turn.
fn written_down(server: &RedisServer, commands: &[&str]) -> Vec<u64> {
    type Line = (u64, u64, u64, Vec<Vec<u8>>);
    server.run::<()>(&["CONFIG", "SET", "slowlog-log-slower-than", "-1"]);
    let log: Vec<redis::Value> = server.run(&["SLOWLOG", "GET", "-1"]);
    let line = |line| {
        let redis::Value::Array(mut fields) = line else {
            panic!("{line:?}")
        };
        fields.truncate(4);
        let line = redis::from_redis_value(redis::Value::Array(fields));
        let (_, _, time, words): Line = line.unwrap();
        let name = String::from_utf8_lossy(&words[0]).to_lowercase();
        commands.contains(&&*name).then_some(time)
    };
    log.into_iter().filter_map(line).collect()
}

/// Follows pages of that size to the end, with no other client. The commands are the same each
/// time, so the shortest time of each counts: anything longer is an interruption of the process,
/// not its work.
async fn measure_pages(server: &RedisServer, store: &RedisStore, size: usize) -> Pages {
    let (mut count, mut commands) = (0, Vec::new());
    // The server's table of keys grows little by little, and has grown when it has been passed over
    // once.
    for pass in 0..=PASSES {
        write_down(server);
        let mut next = Some(Cursor::default());
        while let Some(from) = next {
            next = store.page(&from, size).await.unwrap().next;
            count += u64::from(pass == 1);
        }
        let times = written_down(server, &["scan", "mget", "time"]);
        if pass <= 1 {
            commands.clone_from(&times);
        }
        assert_eq!(times.len(), commands.len());
        for (shortest, time) in commands.iter_mut().zip(times) {
            *shortest = time.min(*shortest);
        }
    }
    commands.sort_unstable();
    Pages { count, commands }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    cluster::processor_per_renewal().await;
    microseconds_per_call_and_bytes_per_session().await;
    microseconds_per_page_of_everybody().await;
    cluster::failures_in_planned_failovers().await;
}

async fn microseconds_per_call_and_bytes_per_session() {
    let (uuids, others) = (measure_time(true).await, measure_time(false).await);
    let mut bytes = Vec::new();
    for each in [two_or_three, |_| 1] {
        bytes.push([
            measure_bytes(true, each).await,
            measure_bytes(false, each).await,
        ]);
    }
    let version = told(&RedisServer::start(), "server", "redis_version:");
    println!(
        "\n| Redis {version} | ids are UUIDs | of the textbook | other ids | of the textbook |"
    );
    println!("|---|--:|--:|--:|--:|");
    for (what, name) in ROWS {
        let [(time, ratio), (other_time, other_ratio)] = [uuids[what], others[what]];
        println!("| {name} | {time:.1} us | {ratio:.2} | {other_time:.1} us | {other_ratio:.2} |");
    }
    for (what, [uuids, others]) in ["memory per live session", "memory of a user with one"]
        .iter()
        .zip(bytes)
    {
        println!("| {what} | {uuids:.0} bytes | | {others:.0} bytes | |");
    }
    println!();
    println!(
        "Redis's own count of microseconds per call, medians of batches of {BATCH}, in one run in turn: {} users with 3 sessions each; \
         memory: {} users with 2.5 each. User 20 bytes, session 36, device and content 16 each.",
        as_many(USERS),
        as_many(USERS_KEPT)
    );
}

async fn microseconds_per_page_of_everybody() {
    let server = RedisServer::start();
    let settings = RedisSettings {
        terms: Terms::new(LONG, LEASE),
        ..server.settings()
    };
    let store = RedisStore::open(settings).unwrap();
    store.ping(&Shard::whole()).await.unwrap();
    fill(&store, as_many(USERS_LISTED), true, two_or_three).await;
    write_down(&server);
    for number in 0..5000 {
        store.list(&viewer(number)).await.unwrap();
    }
    let mut lists = written_down(&server, &["evalsha"]);
    lists.sort_unstable();
    let list = lists[lists.len() / 2];
    println!(
        "\n| everybody's sessions, {} users, by pages of | pages | commands a page | time a page | commands: median | 999 of 1000 within | the longest |",
        as_many(USERS_LISTED)
    );
    println!("|---|--:|--:|--:|--:|--:|--:|");
    for (size, others) in [(100, 0), (1000, 0), (100, as_many(OTHERS))] {
        let script = "for n = 1, ARGV[1] do redis.call('SET', 'other:' .. n, 'x') end";
        server.run::<redis::Value>(&["EVAL", script, "0", &others.to_string()]);
        let Pages { count, commands } = measure_pages(&server, &store, size).await;
        let beside = match others {
            0 => String::new(),
            others => format!(", among {others} keys of others"),
        };
        let of = |permille: usize| commands[(commands.len() - 1) * permille / 1000];
        println!(
            "| {size}{beside} | {count} | {:.1} | {} us | {} us | {} us | {} us |",
            commands.len() as f64 / count as f64,
            commands.iter().sum::<u64>() / count,
            of(500),
            of(999),
            of(1000),
        );
    }
    println!("| (a user's list, for comparison) | | 1 | {list} us | | | |\n");
}
