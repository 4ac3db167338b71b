//! A thousandth of ten million viewers, beside what `docs/sizing.md` says of them: a kick-off, and
//! then the middle of a match, at one streamgate with default settings and a Redis of its own.

use std::net::SocketAddr;
use std::time::Duration;

use envoy_types::pb::envoy::data::accesslog::v3::HttpAccessLogEntry;
use streamgate::clock::Stopwatch;
use testkit::gateway_client::{Check, Gateway as GatewayClient};
use testkit::process::processor_time;
use testkit::redis::RedisServer;
use testkit::streamgate::Streamgate;
use testkit::watch::as_many;

use super::client::{Client, Load};
use super::parties::{CORES, Kind, Parties, Who, entry};
use super::pin;
use super::report::{Forecast, Report};
use super::request::{Sender, Template, names};

/// How many starts a kick-off has, and how many requests make one of them: with a request each 200
/// us, 100 starts a second.
const STARTS: (usize, usize) = (11_000, 50);

/// Each viewer asks every two seconds, and there are 10,000.
const PACE: Duration = Duration::from_micros(200);

/// How long the middle of a match is watched.
const MIDDLE: Duration = Duration::from_secs(60);

/// Every so many starts one is by a viewer who has three streams. So many viewers have.
const TOO_MANY: (usize, usize) = (10, 100);

/// The numbers of the streams that are one too many begin here.
const REFUSED: usize = 500_000_000;

/// How many starts ago a stream began that is asked for again.
const SETTLED: usize = 20;

/// How many entries of the access log come at a time, and how long after each other.
const ENTRIES: (usize, Duration) = (5, Duration::from_millis(1));

/// Over so many connections.
const CONNECTIONS: usize = 4;

/// What `docs/sizing.md` takes from other measurements: how often a playback is renewed, how long
/// Redis takes for it, how many calls that is, how many bytes of Redis a viewer takes and a further
/// stream of theirs, and how many of streamgate a stream that it remembers.
const RENEWED_EVERY: Duration = Duration::from_secs(12);
const RENEWAL: Duration = Duration::from_nanos(11_100);
const CALLS_OF_A_RENEWAL: f64 = 1.0 / 3.0 + 2.0 / 3.0 / 32.0;
const BYTES: (usize, usize) = (245, 65);
const HELD_BYTES: usize = 820;

/// How many calls a refused start makes: it waits for a slot, and asks again four times.
const CALLS_OF_A_REFUSAL: usize = 5;

/// The installation.
struct Scaled {
    redis: RedisServer,
    streamgate: Streamgate,
}

/// What it has used and done so far.
struct Reading {
    at: Duration,
    streamgate: Duration,
    redis: Duration,
    scripts: f64,
    renewals: f64,
    redis_memory: f64,
    memory: f64,
}

/// The viewer of a stream that is let in.
const fn viewer(stream: usize) -> usize {
    let full = TOO_MANY.1;
    if stream < 3 * full {
        stream % full
    } else {
        stream - 2 * full
    }
}

/// How many streams run once so many starts were made.
const fn streams(starts: usize) -> usize {
    3 * TOO_MANY.1 + starts - starts / TOO_MANY.0
}

/// The check that is made as the nth one of a kick-off: most are of streams that run already.
const fn of_kick_off(n: usize) -> (usize, usize) {
    let starts = n / STARTS.1;
    if n % STARTS.1 != STARTS.1 - 1 {
        // In turn, while there are ever more, some would wait for longer than a lease.
        return running(n.wrapping_mul(7_919), starts.saturating_sub(SETTLED));
    }
    if starts % TOO_MANY.0 == TOO_MANY.0 - 1 {
        return ((starts / TOO_MANY.0) % TOO_MANY.1, REFUSED + starts);
    }
    let stream = streams(starts);
    (viewer(stream), stream)
}

/// A check of a stream that runs, once so many starts were made.
const fn running(n: usize, starts: usize) -> (usize, usize) {
    let stream = n % streams(starts);
    (viewer(stream), stream)
}

impl Scaled {
    async fn start() -> Self {
        pin(CORES[1]);
        let redis = RedisServer::start();
        pin(CORES[0]);
        let url = redis.url();
        let settings = [("store.backend", "redis"), ("store.redis.urls", &*url)];
        let streamgate = Streamgate::start(&settings).await;
        pin(CORES[1]);
        Self { redis, streamgate }
    }

    fn reading(&self, clock: Stopwatch) -> Reading {
        let told: String = self.redis.run(&["INFO", "everything"]);
        let number = |name: &str, end: char| -> f64 {
            let mut lines = told.lines();
            let line = lines.find_map(|line| line.strip_prefix(name));
            let number = line.map(|line| line.split(end).next().unwrap().parse().unwrap());
            number.unwrap_or_default()
        };
        Reading {
            at: clock.elapsed(),
            streamgate: processor_time(self.streamgate.id(), ""),
            redis: processor_time(self.redis.id(), ""),
            scripts: number("cmdstat_evalsha:calls=", ','),
            renewals: number("cmdstat_setrange:calls=", ','),
            redis_memory: number("used_memory:", '\r'),
            memory: self.streamgate.memory().0 as f64 * 1024.0,
        }
    }

    /// Makes that many checks at the pace, while entries about running streams come. Returns how
    /// many were let in.
    async fn watch(
        &self,
        entries: &[HttpAccessLogEntry],
        count: usize,
        is_kick_off: bool,
    ) -> usize {
        let check = if is_kick_off {
            of_kick_off
        } else {
            |n| running(n, STARTS.0)
        };
        let (address, template) = (self.streamgate.grpc, Template::of(Sender::Envoy));
        let mut checking = tokio::task::spawn_blocking(move || {
            let mut client = Client::connect(address, CONNECTIONS, template);
            client.run(&Load::paced(count, PACE), check).allowed
        });
        tokio::select! {
            () = tell(address, entries, is_kick_off) => panic!("there are always more"),
            allowed = &mut checking => allowed.unwrap(),
        }
    }

    /// The entries about all streams that run in the end, as the gateway learns our answer.
    async fn entries(&self, streams: usize) -> Vec<HttpAccessLogEntry> {
        let gateway = GatewayClient::connect(self.streamgate.grpc).await;
        let [(_, user), (_, playback)] = names((0, 0));
        let answer = gateway.check(Check::of_playback(&user, &playback)).await;
        let entries = (0..streams).map(|stream| entry(&answer, (viewer(stream), stream)));
        entries.collect()
    }
}

/// Sends entries about the streams that run, some at a time, until it is dropped.
async fn tell(address: SocketAddr, entries: &[HttpAccessLogEntry], is_kick_off: bool) {
    let mut log = GatewayClient::connect(address).await.access_log().await;
    let (mut turn, began) = (tokio::time::interval(ENTRIES.1), Stopwatch::start());
    for first in (0..usize::MAX).step_by(ENTRIES.0) {
        turn.tick().await;
        let starts = if is_kick_off {
            began.elapsed().as_nanos() / PACE.as_nanos() / STARTS.1 as u128
        } else {
            STARTS.0 as u128
        };
        let starts = usize::try_from(starts).unwrap().saturating_sub(SETTLED);
        let running = &entries[..streams(starts).min(entries.len())];
        for n in first..first + ENTRIES.0 {
            log.send(vec![running[n % running.len()].clone()]);
        }
    }
}

/// What a check, an entry of the access log and a start cost streamgate at this pace, and a start
/// Redis, in seconds: a busier one spends less on each.
struct Costs {
    check: f64,
    entry: f64,
    start: f64,
    start_in_redis: f64,
}

impl Costs {
    async fn measure(parties: &mut Parties) -> Self {
        // Each has to be known as playing before it is answered from memory.
        let all = Load::in_turn(as_many(40_000).max(100), 64);
        parties.sample(Who::OnRedis, Kind::Held, &all).await;
        let held = Load::paced(as_many(25_000).max(100), PACE);
        let held = parties.sample(Who::OnRedis, Kind::Held, &held).await;
        let every = PACE * u32::try_from(STARTS.1).unwrap();
        let entries = Load::in_turn(as_many(15_000).max(100), 1);
        let entry = parties.sample(Who::OnRedis, Kind::Entry, &entries).await;
        let start = Load::paced(as_many(1_500).max(10), every);
        let start = parties.sample(Who::OnRedis, Kind::Start, &start).await;
        Self {
            check: held.processor / 1e6,
            entry: entry.processor / 1e6,
            start: start.processor / 1e6,
            start_in_redis: start.redis / 1e6,
        }
    }
}

/// From one reading to another.
struct Span<'a>(&'a Reading, &'a Reading);

impl Span<'_> {
    /// How much of that there was in a second.
    fn rate(&self, what: fn(&Reading) -> f64) -> f64 {
        let Self(from, to) = self;
        (what(to) - what(from)) / (to.at - from.at).as_secs_f64()
    }
}

const fn forecast(what: &'static str, predicted: f64, measured: f64) -> Forecast {
    Forecast {
        what,
        predicted,
        measured,
    }
}

/// A kick-off and the middle of a match.
pub(crate) async fn at_scale(parties: &mut Parties, report: &mut Report) {
    let costs = Costs::measure(parties).await;
    let scaled = Scaled::start().await;
    let (starts, clock) = (as_many(STARTS.0).max(STARTS.1), Stopwatch::start());
    let (all, full) = (streams(starts), 3 * TOO_MANY.1);
    let empty = scaled.reading(clock);
    let mut client = Client::connect(scaled.streamgate.grpc, 1, Template::of(Sender::Envoy));
    let filled = client.run(&Load::in_turn(full, 1), |n| (viewer(n), n));
    assert_eq!(filled.allowed, full);
    let entries = scaled.entries(all).await;

    let began = scaled.reading(clock);
    let count = starts * STARTS.1;
    let refused = count - scaled.watch(&entries, count, true).await;
    let kicked_off = scaled.reading(clock);
    let middle = as_many(usize::try_from(MIDDLE.as_nanos() / PACE.as_nanos()).unwrap());
    let cut_off = middle - scaled.watch(&entries, middle, false).await;
    let ended = scaled.reading(clock);

    let expected = (starts / TOO_MANY.0) as f64;
    report.forecasts = vec![forecast("starts refused", expected, refused as f64)];
    let kick_off = of_a_kick_off(&costs, starts, &Span(&began, &kicked_off));
    let middle = of_the_middle(&costs, all, &Span(&kicked_off, &ended));
    report.forecasts.extend(kick_off.into_iter().chain(middle));
    report.forecasts.extend([
        forecast("watching viewers refused", 0.0, cut_off as f64),
        forecast(
            "Redis: memory, MB",
            ((all - 2 * TOO_MANY.1) * BYTES.0 + 2 * TOO_MANY.1 * BYTES.1) as f64 / 1e6,
            (ended.redis_memory - empty.redis_memory) / 1e6,
        ),
        forecast(
            "streamgate: memory, MB",
            all as f64 * HELD_BYTES as f64 / 1e6,
            (ended.memory - empty.memory) / 1e6,
        ),
    ]);
}

/// The processors in a kick-off, in which half of all streams run on average.
fn of_a_kick_off(costs: &Costs, starts: usize, span: &Span<'_>) -> [Forecast; 2] {
    let Span(from, to) = span;
    let starts_a_second = starts as f64 / (to.at - from.at).as_secs_f64();
    let refused = starts_a_second / TOO_MANY.0 as f64;
    // A start that is let in is followed by the report that it plays.
    let calls = (starts_a_second - refused) * 2.0 + refused * CALLS_OF_A_REFUSAL as f64;
    let renewals = streams(starts) as f64 / 2.0 / RENEWED_EVERY.as_secs_f64();
    [
        forecast(
            "kick-off: cores of streamgate",
            (costs.check + costs.entry) / PACE.as_secs_f64() + starts_a_second * costs.start,
            span.rate(|it| it.streamgate.as_secs_f64()),
        ),
        forecast(
            "kick-off: cores of Redis",
            calls * costs.start_in_redis + renewals * RENEWAL.as_secs_f64(),
            span.rate(|it| it.redis.as_secs_f64()),
        ),
    ]
}

/// The processors and the calls in the middle of a match.
fn of_the_middle(costs: &Costs, streams: usize, span: &Span<'_>) -> [Forecast; 4] {
    let renewals = streams as f64 / RENEWED_EVERY.as_secs_f64();
    [
        forecast(
            "match: cores of streamgate",
            (costs.check + costs.entry) / PACE.as_secs_f64(),
            span.rate(|it| it.streamgate.as_secs_f64()),
        ),
        forecast(
            "match: renewals a second",
            renewals,
            span.rate(|it| it.renewals),
        ),
        forecast(
            "match: calls of Redis a second",
            renewals * CALLS_OF_A_RENEWAL,
            span.rate(|it| it.scripts),
        ),
        forecast(
            "match: cores of Redis",
            renewals * RENEWAL.as_secs_f64(),
            span.rate(|it| it.redis.as_secs_f64()),
        ),
    ]
}
