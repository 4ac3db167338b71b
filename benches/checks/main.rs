//! What a check costs streamgate, from the call that arrives to the answer that leaves:
//! microseconds of processor time (user and system) per check, beside an `ext_authz` server that
//! does nothing in the same run; and how long gateways wait for the answer. `make bench-checks`
//! runs it and prints its tables. Another machine prints other figures, so this is no test.
//!
//! The servers share one core, and the client and Redis have another. The servers take turns, so
//! that whatever else the machine does affects all of them.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a measurement that can't go on has failed"
)]

mod client;
mod nothing;
mod request;

use std::time::Duration;

use testkit::cluster::{RedisCluster, in_cluster};
use testkit::process::processor_time;
use testkit::redis::RedisServer;
use testkit::streamgate::Streamgate;
use testkit::watch::as_many;

use client::{Client, Load};
use nothing::NothingServer;
use request::Template;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How many checks are made between two readings.
const BATCH: usize = 5_000;

/// How many such batches of each kind, in turns.
const BATCHES: usize = 20;

/// How many checks are under way at one time: those of a busy gateway.
const AT_ONE_TIME: usize = 64;

/// Over so many connections: Envoy has one for each of its workers.
const CONNECTIONS: usize = 4;

/// How many viewers have three streams each before anything is measured.
const VIEWERS: usize = 5_000;

/// How long after one check the next is made to see how long they take, and how many in all.
const PACED: (Duration, usize) = (Duration::from_millis(1), 10_000);

/// The core of the servers, and the one of everything else.
const CORES: [&str; 2] = ["0", "1"];

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    /// The server that does nothing.
    Nothing,
    /// streamgate on the embedded store.
    Embedded,
    /// streamgate on a Redis.
    OnRedis,
    /// streamgate on a Redis Cluster of three masters.
    OnCluster,
}

/// Which check is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The next request of a playback that is counted.
    Held,
    /// The first request of a playback with an id that was never used before.
    Start,
    /// The same by a viewer who has as many as allowed.
    Refused,
}

/// One kind of check.
struct Row {
    /// What it is, for people.
    name: &'static str,
    who: Who,
    kind: Kind,
}

const fn row(name: &'static str, who: Who, kind: Kind) -> Row {
    Row { name, who, kind }
}

/// All kinds, in the order in which they take turns; the first is the one to compare with.
const ROWS: [Row; 9] = [
    row(
        "an ext_authz server that does nothing",
        Who::Nothing,
        Kind::Start,
    ),
    row(
        "Redis: a playback's next request (from memory)",
        Who::OnRedis,
        Kind::Held,
    ),
    row("Redis: start", Who::OnRedis, Kind::Start),
    row(
        "Redis: refused, with three holders",
        Who::OnRedis,
        Kind::Refused,
    ),
    row(
        "Redis Cluster: a playback's next request (from memory)",
        Who::OnCluster,
        Kind::Held,
    ),
    row("Redis Cluster: start", Who::OnCluster, Kind::Start),
    row(
        "embedded store: a playback's next request",
        Who::Embedded,
        Kind::Held,
    ),
    row("embedded store: start", Who::Embedded, Kind::Start),
    row(
        "embedded store: refused, with three holders",
        Who::Embedded,
        Kind::Refused,
    ),
];

/// All that is asked, and Redis.
struct Bench {
    redis: RedisServer,
    cluster: RedisCluster,
    nothing: NothingServer,
    embedded: Streamgate,
    on_redis: Streamgate,
    on_cluster: Streamgate,
    template: Template,
    /// The next number that no check has used.
    unused: usize,
}

/// What a batch has cost for each check: the server's and Redis's processor, in microseconds.
type Cost = [f64; 2];

impl Bench {
    async fn start() -> Self {
        pin(CORES[1]);
        let (redis, cluster) = (RedisServer::start(), RedisCluster::start());
        let urls = cluster.urls().join(",");
        pin(CORES[0]);
        let bench = Self {
            nothing: NothingServer::start(),
            embedded: Streamgate::start_for_crowds(None).await,
            on_redis: Streamgate::start_for_crowds(Some(&redis)).await,
            on_cluster: Streamgate::start_for_crowds_on(&in_cluster(&urls)).await,
            redis,
            cluster,
            template: Template::new(),
            unused: 3 * VIEWERS,
        };
        pin(CORES[1]);
        for who in [Who::Embedded, Who::OnRedis, Who::OnCluster] {
            let mut client = bench.client(who);
            // One after the other, so that few of a viewer's three wait for each other.
            for slot in 0..3 {
                let load = Load::in_turn(VIEWERS, AT_ONE_TIME);
                let told = client.run(&load, |n| (n % VIEWERS, slot * VIEWERS + n % VIEWERS));
                assert_eq!(told.allowed, VIEWERS);
            }
        }
        bench
    }

    fn client(&self, who: Who) -> Client {
        let address = match who {
            Who::Nothing => self.nothing.address,
            Who::Embedded => self.embedded.grpc,
            Who::OnRedis => self.on_redis.grpc,
            Who::OnCluster => self.on_cluster.grpc,
        };
        Client::connect(address, CONNECTIONS, self.template.clone())
    }

    /// How much processor time that one has used, and its Redis: of a cluster, the masters.
    fn times(&self, who: Who) -> [Duration; 2] {
        let process = match who {
            Who::Nothing => self.nothing.id(),
            Who::Embedded => self.embedded.id(),
            Who::OnRedis => self.on_redis.id(),
            Who::OnCluster => self.on_cluster.id(),
        };
        let masters = self.cluster.masters().iter();
        let servers = match who {
            Who::OnCluster => masters.map(|node| node.server.id()).collect(),
            Who::Nothing | Who::Embedded | Who::OnRedis => vec![self.redis.id()],
        };
        let of = |process| processor_time(process, "");
        [of(process), servers.into_iter().map(of).sum()]
    }

    /// Makes that load of one kind of check. Returns how long each took.
    fn make(&mut self, row: &Row, load: &Load) -> Vec<Duration> {
        let (count, first) = (load.count, self.unused);
        let told = self.client(row.who).run(load, |n| match row.kind {
            // One of a viewer's three.
            Kind::Held => {
                let n = n.wrapping_mul(7_919) % (3 * VIEWERS);
                (n % VIEWERS, n)
            }
            Kind::Start => (first + n, first + n),
            Kind::Refused => (n % VIEWERS, first + n),
        });
        if row.kind != Kind::Held {
            self.unused += count;
        }
        let expected = if row.kind == Kind::Refused { 0 } else { count };
        assert_eq!(told.allowed, expected, "{}", row.name);
        told.took
    }

    /// What each kind costs, batch by batch.
    fn costs(&mut self) -> Vec<Vec<Cost>> {
        let mut taken: Vec<Vec<Cost>> = ROWS.iter().map(|_| Vec::new()).collect();
        let load = Load::in_turn(as_many(BATCH), AT_ONE_TIME);
        for _ in 0..as_many(BATCHES) {
            for (row, taken) in ROWS.iter().zip(&mut taken) {
                let before = self.times(row.who);
                self.make(row, &load);
                let after = self.times(row.who);
                let each =
                    |n: usize| (after[n] - before[n]).as_secs_f64() * 1e6 / load.count as f64;
                taken.push([each(0), each(1)]);
            }
        }
        taken
    }
}

/// Pins this process, and those that it starts from now on, to a core.
fn pin(core: &str) {
    let process = std::process::id().to_string();
    let pinned = std::process::Command::new("taskset")
        .args(["-a", "-c", "-p", core, &process])
        .output()
        .unwrap();
    assert!(pinned.status.success(), "there is no core {core}");
}

/// The value that so many of so many don't exceed.
fn share_of(mut values: Vec<f64>, some: usize, all: usize) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() * some / all]
}

/// The median, the least and the most.
fn shown(values: Vec<f64>) -> (f64, String) {
    let least = share_of(values.clone(), 0, 1);
    let most = values.iter().copied().fold(least, f64::max);
    (share_of(values, 1, 2), format!("{least:.2} to {most:.2}"))
}

fn main() {
    if std::env::args().nth(1).as_deref() == Some(nothing::ARGUMENT) {
        return nothing::serve();
    }
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().unwrap();
    runtime.block_on(async {
        let mut bench = Bench::start().await;
        print_costs(&bench.costs());
        print_times(&mut bench);
    });
}

/// Prints the processor time that each kind of check takes.
fn print_costs(costs: &[Vec<Cost>]) {
    println!(
        "\n| {AT_ONE_TIME} checks at a time | processor a check | of the empty server | in {} batches | checks a second and core | of Redis's processor |",
        costs[0].len()
    );
    println!("|---|--:|--:|--:|--:|--:|");
    for (row, costs_of_row) in ROWS.iter().zip(costs) {
        let (ours, _) = shown(costs_of_row.iter().map(|cost| cost[0]).collect());
        let ratios = costs_of_row.iter().zip(&costs[0]);
        let (ratio, range) = shown(ratios.map(|(cost, empty)| cost[0] / empty[0]).collect());
        let redis = match row.who {
            Who::OnRedis | Who::OnCluster => {
                let (redis, _) = shown(costs_of_row.iter().map(|cost| cost[1]).collect());
                format!("{redis:.1} us")
            }
            Who::Nothing | Who::Embedded => String::new(),
        };
        println!(
            "| {} | {ours:.2} us | {ratio:.2} | {range} | {:.0} | {redis} |",
            row.name,
            1e6 / ours
        );
    }
    println!();
}

/// Prints how long checks take at an even pace, from when each should have been made.
fn print_times(bench: &mut Bench) {
    let (pace, count) = PACED;
    println!("| a check every {pace:?} | median | 99 of 100 within | 999 of 1000 within |");
    println!("|---|--:|--:|--:|");
    for row in &ROWS[..3] {
        let load = Load::paced(as_many(count), pace);
        let took = bench.make(row, &load);
        let took: Vec<f64> = took.iter().map(|took| took.as_secs_f64() * 1e3).collect();
        println!(
            "| {} | {:.2} ms | {:.2} ms | {:.2} ms |",
            row.name,
            share_of(took.clone(), 1, 2),
            share_of(took.clone(), 99, 100),
            share_of(took, 999, 1000)
        );
    }
}
