//! What a Redis Cluster costs: Redis's processor for a renewal, next to that on a single server, and
//! how many calls fail during a planned failover, by their deadline.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use streamgate::clock::Stopwatch;
use streamgate::session::{Renewal, Start, Terms};
use streamgate::store::redis::{RedisSettings, RedisStore};
use streamgate::store::{Seen, Shard, Store};

use testkit::cluster::RedisCluster;
use testkit::process::processor_time;
use testkit::redis::RedisServer;
use testkit::streams::{LEASE, refusing, user};
use testkit::watch::{as_many, eventually};

use super::{CALLS_AT_ONCE, LONG, median, seen, session, starting, viewer};

/// How many users have a session that is renewed.
const USERS: usize = 4_000;

/// How often each is renewed.
const ROUNDS: usize = 20;

/// The deadlines that are tried during a planned failover, in milliseconds.
const DEADLINES: [u64; 3] = [50, 100, 200];

/// How many planned failovers there are for each deadline.
const FAILOVERS: usize = 10;

/// How long the other masters don't vote once more about the same master's replicas: two node
/// timeouts, and a little. Meanwhile its writes would be paused in vain.
const NO_VOTES: Duration = Duration::from_millis(3_200);

/// The time between two calls during a failover.
const PACE: Duration = Duration::from_millis(1);

/// How many calls are made around a failover: a quarter of them before it.
const CALLS: u32 = 2_000;

/// How many users have a session in the cluster that fails over.
const FILLED: usize = 100_000;

/// What came of the calls during one failover.
struct Around {
    /// How many calls there were.
    calls: usize,
    /// How many failed.
    failed: usize,
    /// How long the longest one took.
    longest: Duration,
}

/// Prints what a renewal costs.
pub(crate) async fn processor_per_renewal() {
    let (server, cluster) = (RedisServer::start(), RedisCluster::start());
    // Each master has a replica, so the server has one.
    let port = server.port().to_string();
    let _replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &port]);
    let alone = RedisStore::open(lasting(server.settings())).unwrap();
    alone.ping(&Shard::whole()).await.unwrap();
    let shared = cluster.connected_store(lasting(cluster.settings())).await;
    let users = as_many(USERS);
    for store in [&alone, &shared] {
        fill(store, users).await;
    }
    let one = [&server];
    let masters: Vec<_> = cluster.masters().iter().map(|node| &node.server).collect();
    let mut rounds = Vec::new();
    for _ in 0..as_many(ROUNDS) {
        let at_one = renew(&alone, users, &one).await;
        rounds.push([at_one, renew(&shared, users, &masters).await]);
    }
    let of = |side: usize| median(rounds.iter().map(|round| round[side]).collect());
    let ratio = median(
        rounds
            .iter()
            .map(|[at_one, at_all]| at_all / at_one)
            .collect(),
    );
    println!("\n| | one server | a cluster | ratio |");
    println!("|---|--:|--:|--:|");
    println!(
        "| processor of Redis for a renewal | {:.1} us | {:.1} us | {ratio:.2} |\n",
        of(0),
        of(1)
    );
}

/// Renews a session of each of so many users, those of a shard at once as streamgate does; the
/// processor time of these servers for each, in microseconds.
async fn renew(store: &RedisStore, users: usize, servers: &[&RedisServer]) -> f64 {
    let mut shards: BTreeMap<Shard, Vec<Seen>> = BTreeMap::new();
    for seen in (0..users).map(seen_first) {
        let shard = store.shard_of(&seen.user);
        shards.entry(shard).or_default().push(seen);
    }
    let used = || -> Duration {
        let processes = servers.iter().map(|server| server.id());
        processes.map(|id| processor_time(id, "")).sum()
    };
    let before = used();
    for renewals in join_all(shards.values().map(|seen| store.renew_all(seen))).await {
        for renewal in renewals {
            let is_renewed = matches!(renewal, Ok(Renewal::Renewed { .. }));
            assert!(is_renewed, "{renewal:?}");
        }
    }
    (used() - before).as_secs_f64() * 1e6 / users as f64
}

/// The first session of that user is seen to run.
fn seen_first(number: usize) -> Seen {
    let mut seen = seen(number, true);
    seen.sighting.key = session(number, 0, true);
    seen
}

/// The same settings with sessions that last.
fn lasting(settings: RedisSettings) -> RedisSettings {
    RedisSettings {
        terms: Terms::new(LONG, LEASE),
        ..settings
    }
}

/// Starts a session of each of so many users, which plays.
async fn fill(store: &RedisStore, users: usize) {
    stream::iter(0..users)
        .for_each_concurrent(CALLS_AT_ONCE, async |number| {
            let (viewer, key) = (viewer(number), session(number, 0, true));
            let start = Start {
                lease: LONG,
                ..starting(&key)
            };
            store.admit(&viewer, &start, &refusing(3)).await.unwrap();
            store.played(&viewer, &key).await.unwrap();
        })
        .await;
}

/// Prints how many calls of the shard fail during planned failovers.
pub(crate) async fn failures_in_planned_failovers() {
    let cluster = RedisCluster::start_watchful();
    let settings = lasting(cluster.settings());
    let patient = cluster.connected_store(settings.clone()).await;
    fill(&patient, as_many(FILLED)).await;
    let [names, ..] = cluster.users_of_each(&patient, 1);
    println!(
        "\n| deadline | planned failovers | with failed calls | calls | failed | longest call: median | the longest |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|");
    for timeout in DEADLINES.map(Duration::from_millis) {
        let settings = RedisSettings {
            timeout,
            ..settings.clone()
        };
        let store = cluster.connected_store(settings).await;
        let mut around = Vec::new();
        for _ in 0..as_many(FAILOVERS) {
            around.push(fail_over(&cluster, &store, &names[0]).await);
            tokio::time::sleep(NO_VOTES).await;
        }
        let sum = |of: fn(&Around) -> usize| -> usize { around.iter().map(of).sum() };
        let longest: Vec<_> = around
            .iter()
            .map(|it| it.longest.as_secs_f64() * 1e3)
            .collect();
        println!(
            "| {timeout:?} | {} | {} | {} | {} | {:.0} ms | {:.0} ms |",
            around.len(),
            sum(|it| usize::from(it.failed > 0)),
            sum(|it| it.calls),
            sum(|it| it.failed),
            median(longest.clone()),
            longest.into_iter().fold(0.0, f64::max),
        );
    }
    println!();
}

/// Has the first shard's replica become its master while a user of it is asked for at an even pace.
async fn fail_over(cluster: &RedisCluster, store: &RedisStore, name: &str) -> Around {
    let nodes = [&cluster.masters()[0], &cluster.replicas()[0]];
    let replica = nodes.into_iter().find(|node| !node.is_master()).unwrap();
    let client = redis::Client::open(replica.server.url()).unwrap();
    let mut link = client.get_multiplexed_async_connection().await.unwrap();
    let (name, start) = (user(name), starting(&session(0, 1, true)));
    let calls = (0..CALLS).map(async |number| {
        tokio::time::sleep(PACE * number).await;
        let taken = Stopwatch::start();
        let outcome = store.admit(&name, &start, &refusing(3)).await;
        (outcome.is_err(), taken.elapsed())
    });
    let exchange = async {
        tokio::time::sleep(PACE * CALLS / 4).await;
        let mut fail_over = redis::cmd("CLUSTER");
        let fail_over = fail_over.arg("FAILOVER").exec_async(&mut link);
        fail_over.await.unwrap();
    };
    let (outcomes, ()) = tokio::join!(join_all(calls), exchange);
    eventually("the replica is the master", async || {
        nodes
            .iter()
            .all(|node| node.is_master() == std::ptr::eq(*node, replica))
    })
    .await;
    let longest = outcomes.iter().map(|(_, took)| *took).max();
    Around {
        calls: outcomes.len(),
        failed: outcomes.iter().filter(|(is_failed, _)| *is_failed).count(),
        longest: longest.unwrap(),
    }
}
