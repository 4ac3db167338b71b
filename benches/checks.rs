//! What a check costs streamgate, from the call that arrives to the answer that leaves:
//! microseconds of processor time per check, compared with an `ext_authz` server that lets
//! everybody in; and how long gateways wait for the answer. `make bench-checks` runs it and prints
//! its tables. Another machine prints other figures, so this is no test.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a measurement that can't go on has failed"
)]

use std::net::SocketAddr;
use std::time::Duration;

use envoy_types::pb::envoy::service::auth::v3::authorization_server::{
    Authorization, AuthorizationServer,
};
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{CheckRequest, CheckResponse, OkHttpResponse};
use envoy_types::pb::google::rpc::Status as RpcStatus;
use futures_util::{StreamExt, stream};
use streamgate::clock::Stopwatch;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use testkit::gateway_client::{Check, Gateway};
use testkit::process::processor_time;
use testkit::redis::RedisServer;
use testkit::streamgate::Streamgate;
use testkit::watch::as_many;

/// How many checks are made between two readings.
const BATCH: usize = 5_000;

/// How many such batches of each kind, in turns.
const BATCHES: usize = 20;

/// How many checks are under way at one time: those of a busy gateway.
const AT_ONE_TIME: usize = 64;

/// Over so many connections: Envoy has one for each of its workers.
const CONNECTIONS: usize = 4;

/// How many checks a second are made to see how long they take.
const PACE: u32 = 1_000;

/// How many of them.
const PACED: usize = 10_000;

/// What carries the threads of the server that does nothing.
const THREAD: &str = "nothing-at-all";

/// Lets everybody in.
struct Nothing;

#[tonic::async_trait]
impl Authorization for Nothing {
    async fn check(&self, _: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let go_on = HttpResponse::OkResponse(OkHttpResponse::default());
        Ok(Response::new(CheckResponse {
            status: Some(RpcStatus::default()),
            http_response: Some(go_on),
            ..CheckResponse::default()
        }))
    }
}

/// That server, on threads of its own.
struct NothingServer {
    address: SocketAddr,
    runtime: Option<tokio::runtime::Runtime>,
}

impl NothingServer {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .thread_name(THREAD)
            .enable_all()
            .build()
            .unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        runtime.spawn(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            sender.send(listener.local_addr().unwrap()).unwrap();
            let service = AuthorizationServer::new(Nothing);
            let incoming = TcpListenerStream::new(listener);
            let server = Server::builder().add_service(service);
            server.serve_with_incoming(incoming).await.unwrap();
        });
        let address = receiver.recv().unwrap();
        Self {
            address,
            runtime: Some(runtime),
        }
    }
}

impl Drop for NothingServer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Who is asked, over so many connections.
struct Asked(Vec<Gateway>);

impl Asked {
    async fn at(address: SocketAddr) -> Self {
        let mut gateways = Vec::new();
        for _ in 0..CONNECTIONS {
            gateways.push(Gateway::connect(address).await);
        }
        Self(gateways)
    }

    /// Makes so many checks, each out of its number; how many were let in.
    async fn ask(&self, numbers: std::ops::Range<usize>, check: &impl Fn(usize) -> Check) -> usize {
        let asking = stream::iter(numbers).map(|n| self.0[n % CONNECTIONS].check(check(n)));
        let mut asking = asking.buffer_unordered(AT_ONE_TIME);
        let mut let_in = 0;
        while let Some(answer) = asking.next().await {
            let_in += usize::from(answer.is_allowed());
        }
        let_in
    }

    /// Makes checks at an even pace, whether or not the ones before are answered; how long each
    /// took, in milliseconds.
    async fn pace(&self, check: &impl Fn(usize) -> Check) -> Vec<f64> {
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / PACE);
        let mut asking = JoinSet::new();
        for n in 0..as_many(PACED) {
            ticks.tick().await;
            let (gateway, check) = (self.0[n % CONNECTIONS].clone(), check(n));
            asking.spawn(async move {
                let waiting = Stopwatch::start();
                gateway.check(check).await;
                waiting.elapsed().as_secs_f64() * 1e3
            });
        }
        asking.join_all().await
    }
}

/// What a browser's player asks for, in as many headers as Envoy hands on.
fn segment(user: &str, playback: &str) -> Check {
    let headers = [
        (":authority", "video.example.com"),
        (":method", "GET"),
        (":path", "/vod/a-film/1080p/segment-00042.m4s"),
        (":scheme", "https"),
        ("accept", "*/*"),
        ("accept-encoding", "gzip, deflate, br, zstd"),
        ("accept-language", "de-DE,de;q=0.9,en;q=0.8"),
        ("origin", "https://www.example.com"),
        ("referer", "https://www.example.com/"),
        ("sec-fetch-mode", "cors"),
        (
            "user-agent",
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/146.0.0.0 Safari/537.36",
        ),
        ("x-forwarded-for", "203.0.113.7"),
        ("x-forwarded-proto", "https"),
        ("x-device-id", "tv-living-room-1"),
    ];
    let check = Check::of_playback(user, playback).path("/vod/a-film/1080p/segment-00042.m4s");
    headers
        .into_iter()
        .fold(check, |check, (name, value)| check.header(name, value))
}

fn viewer(number: usize) -> String {
    format!("user-{number:015}")
}

fn playback(number: usize) -> String {
    format!("0188f1a2-4b6c-7d8e-9f00-{number:012x}")
}

/// The first playback of that viewer.
fn theirs(number: usize) -> Check {
    segment(&viewer(number), &playback(number))
}

/// A start by a user who has three playbacks already; each number makes another one.
fn one_too_many(number: usize) -> Check {
    segment(&viewer(number % BATCH), &format!("more-{number}"))
}

/// One of a viewer's three; they are asked for one after the other, so that few wait for each
/// other.
fn one_of_three(number: usize) -> Check {
    let (slot, viewer_number) = (number / BATCH, number % BATCH);
    segment(&viewer(viewer_number), &format!("{slot}-{viewer_number}"))
}

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    /// The server that does nothing.
    Nothing,
    /// streamgate on the embedded store.
    Embedded,
    /// streamgate on a Redis.
    OnRedis,
}

/// One kind of check.
#[derive(Clone, Copy)]
struct Row {
    /// What it is, for people.
    name: &'static str,
    who: Who,
    check: fn(usize) -> Check,
    /// Whether it is another check each time, or one of the same few.
    is_new: bool,
    is_let_in: bool,
}

const fn row(name: &'static str, who: Who, check: fn(usize) -> Check) -> Row {
    Row {
        name,
        who,
        check,
        is_new: true,
        is_let_in: true,
    }
}

const fn again(row: Row) -> Row {
    Row {
        is_new: false,
        ..row
    }
}

const fn refused(row: Row) -> Row {
    Row {
        is_let_in: false,
        ..row
    }
}

/// All kinds, in the order in which they take turns.
const ROWS: [Row; 7] = [
    row(
        "an ext_authz server that lets everybody in",
        Who::Nothing,
        theirs,
    ),
    again(row(
        "Redis: a playback's next request (from memory)",
        Who::OnRedis,
        one_of_three,
    )),
    row("Redis: start", Who::OnRedis, theirs),
    refused(row(
        "Redis: refused, with three holders",
        Who::OnRedis,
        one_too_many,
    )),
    again(row(
        "embedded store: a playback's next request",
        Who::Embedded,
        one_of_three,
    )),
    row("embedded store: start", Who::Embedded, theirs),
    refused(row(
        "embedded store: refused, with three holders",
        Who::Embedded,
        one_too_many,
    )),
];

/// The measured parties, and Redis.
struct Bench {
    redis: RedisServer,
    nothing: NothingServer,
    embedded: Streamgate,
    on_redis: Streamgate,
}

impl Bench {
    async fn start() -> Self {
        let redis = RedisServer::start();
        let bench = Self {
            nothing: NothingServer::start(),
            embedded: Streamgate::start_for_crowds(None).await,
            on_redis: Streamgate::start_for_crowds(Some(&redis)).await,
            redis,
        };
        // The first viewers have three streams each; later ones have none yet.
        for who in [Who::Nothing, Who::Embedded, Who::OnRedis] {
            let all = 0..3 * BATCH;
            let let_in = bench.at(who).await.ask(all, &one_of_three).await;
            assert_eq!(let_in, 3 * BATCH);
        }
        bench
    }

    async fn at(&self, who: Who) -> Asked {
        Asked::at(match who {
            Who::Nothing => self.nothing.address,
            Who::Embedded => self.embedded.grpc,
            Who::OnRedis => self.on_redis.grpc,
        })
        .await
    }

    /// How much processor time that one has used, and Redis.
    fn times(&self, who: Who) -> [Duration; 2] {
        let time = match who {
            Who::Nothing => processor_time(std::process::id(), THREAD),
            Who::Embedded => processor_time(self.embedded.id(), ""),
            Who::OnRedis => processor_time(self.on_redis.id(), ""),
        };
        [time, processor_time(self.redis.id(), "")]
    }

    /// What a check of each kind costs, and costs Redis: medians, in microseconds.
    async fn costs(&self) -> Vec<[f64; 2]> {
        let mut taken = vec![[vec![], vec![]]; ROWS.len()];
        for batch in 1..=as_many(BATCHES) {
            for (row, taken) in ROWS.iter().zip(&mut taken) {
                let asked = self.at(row.who).await;
                let from = if row.is_new { batch * BATCH } else { 0 };
                let before = self.times(row.who);
                let let_in = asked.ask(from..from + BATCH, &row.check).await;
                let after = self.times(row.who);
                let expected = if row.is_let_in { BATCH } else { 0 };
                assert_eq!(let_in, expected, "{}", row.name);
                for (taken, (before, after)) in taken.iter_mut().zip(before.iter().zip(after)) {
                    taken.push((after - *before).as_secs_f64() * 1e6 / BATCH as f64);
                }
            }
        }
        taken
            .into_iter()
            .map(|taken| taken.map(|each| share_of(each, 1, 2)))
            .collect()
    }
}

/// The value that so many of so many don't exceed.
fn share_of(mut values: Vec<f64>, some: usize, all: usize) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() * some / all]
}

#[tokio::main]
async fn main() {
    let bench = Bench::start().await;
    print_costs(&bench.costs().await);
    print_times(&bench).await;
}

/// Prints the processor time that each kind of check takes.
fn print_costs(costs: &[[f64; 2]]) {
    let nothing = costs[0][0];
    println!(
        "\n| {AT_ONE_TIME} checks at a time | processor a check | in all | checks a second and core | of Redis's processor |"
    );
    println!("|---|--:|--:|--:|--:|");
    for (row, [ours, redis]) in ROWS.iter().zip(costs) {
        let redis = match row.who {
            Who::OnRedis => format!("{redis:.1} us"),
            Who::Nothing | Who::Embedded => String::new(),
        };
        println!(
            "| {} | {ours:.1} us | {:.2} | {:.0} | {redis} |",
            row.name,
            ours / nothing,
            1e6 / ours
        );
    }
    println!();
}

/// Prints how long checks take at an even pace.
async fn print_times(bench: &Bench) {
    println!("| {PACE} checks a second | median | 99 of 100 within | 999 of 1000 within |");
    println!("|---|--:|--:|--:|");
    for row in &ROWS[..3] {
        let from = if row.is_new { BATCH * (BATCHES + 1) } else { 0 };
        let number = |n: usize| from + if row.is_new { n } else { n % BATCH };
        let asked = bench.at(row.who).await;
        let took = asked.pace(&|n| (row.check)(number(n))).await;
        println!(
            "| {} | {:.2} ms | {:.2} ms | {:.2} ms |",
            row.name,
            share_of(took.clone(), 1, 2),
            share_of(took.clone(), 99, 100),
            share_of(took, 999, 1000)
        );
    }
}
