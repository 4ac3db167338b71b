//! A kick-off at one thousandth of ten million viewers, beside what the sums of `docs/sizing.md`
//! say of it: ten thousand viewers start within 100 seconds, which is the peak of a kick-off, and
//! then watch; one in ten tries a stream too many. Real streamgates, a real Redis, and viewers that
//! ask when their time has come. `make sizing` runs it and prints its table. What it compares is
//! processor time, calls and memory, so other load on the machine hardly matters.

#![expect(
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement that can't go on has failed, and prints what it found"
)]

mod model;
mod viewers;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use streamgate::clock::Stopwatch;
use testkit::process::processor_time;
use testkit::redis::RedisServer;
use testkit::streamgate::Streamgate;
use testkit::watch::as_many;
use tokio::task::JoinSet;

use model::{Happens, Takes, memory};
use viewers::{Audience, at};

/// A thousandth of ten million.
const VIEWERS: usize = 10_000;

/// How long it takes until all have started: 100 a second, as at the peak of a kick-off.
const RAMP: Duration = Duration::from_secs(100);

/// How long they then watch.
const WATCH: Duration = Duration::from_secs(36);

/// One in so many tries a stream too many.
const ONE_IN: usize = 10;

/// How many streamgates there are.
const INSTANCES: usize = 2;

/// What has been used so far.
#[derive(Debug, Clone, Copy)]
struct Used {
    takes: Takes,
    /// Bytes of streamgate, and of Redis.
    memory: [f64; 2],
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let (viewers, redis) = (as_many(VIEWERS), RedisServer::start());
    let url = redis.url();
    let mut streamgates = Vec::new();
    for _ in 0..INSTANCES {
        let settings = [
            ("store.backend", "redis"),
            ("store.redis.urls", &*url),
            ("limits.default", "1"),
        ];
        streamgates.push(Streamgate::start(&settings).await);
    }
    let mut logs = JoinSet::new();
    let audience = Audience::of(&streamgates, &mut logs).await;
    let mut watching = JoinSet::new();
    let clock = Stopwatch::start();
    for viewer in 0..viewers {
        let starts = RAMP.mul_f64(viewer as f64 / viewers as f64);
        let has_more = viewer.is_multiple_of(ONE_IN);
        watching.spawn(Arc::clone(&audience).watch(viewer, (clock, starts), has_more));
    }
    let before = used(&streamgates, &redis, &audience).await;
    at(clock, RAMP).await;
    let between = used(&streamgates, &redis, &audience).await;
    at(clock, RAMP + WATCH).await;
    let after = used(&streamgates, &redis, &audience).await;
    watching.shutdown().await;
    let ramp = Happens::kick_off(viewers, RAMP.as_secs_f64(), ONE_IN);
    print("kick-off", RAMP, ramp.takes(), between.since(&before));
    let watch = Happens::watching(viewers, WATCH.as_secs_f64());
    print("watching", WATCH, watch.takes(), after.since(&between));
    for (place, what) in ["streamgate: memory", "Redis: memory"].iter().enumerate() {
        let measured = after.memory[place] - before.memory[place];
        row(what, memory(viewers)[place] / 1e6, measured / 1e6, "MB");
    }
    let failed = audience.answers.failed.load(Ordering::Relaxed);
    println!("{failed} checks failed");
}

/// What has been used so far.
async fn used(streamgates: &[Streamgate], redis: &RedisServer, audience: &Audience) -> Used {
    let answers = &audience.answers;
    let refusals = answers.refused.load(Ordering::Relaxed) as f64;
    let mut streamgate = Duration::ZERO;
    let (mut operations, mut resident) = (0.0, 0.0);
    for one in streamgates {
        streamgate += processor_time(one.id(), "");
        resident += one.memory().0 as f64 * 1024.0;
        for operation in ["admit", "played", "release"] {
            let labels = [("operation", operation)];
            operations += one.metric("streamgate_store_requests_total", &labels).await;
        }
        operations += one.metric("streamgate_renewals_total", &[]).await;
    }
    let information: String = redis.run(&["INFO", "memory"]);
    let information: HashMap<&str, &str> = information
        .lines()
        .filter_map(|line| line.split_once(':'))
        .collect();
    Used {
        takes: Takes {
            checks: answers.allowed.load(Ordering::Relaxed) as f64 + refusals,
            refusals,
            streamgate: streamgate.as_secs_f64(),
            operations,
            redis: processor_time(redis.id(), "").as_secs_f64(),
        },
        memory: [resident, information["used_memory"].trim().parse().unwrap()],
    }
}

impl Used {
    /// What has been used since then.
    fn since(&self, earlier: &Self) -> Takes {
        let (now, then) = (self.takes, earlier.takes);
        Takes {
            checks: now.checks - then.checks,
            refusals: now.refusals - then.refusals,
            streamgate: now.streamgate - then.streamgate,
            operations: now.operations - then.operations,
            redis: now.redis - then.redis,
        }
    }
}

/// Prints the rows of one phase.
fn print(phase: &str, lasting: Duration, predicted: Takes, measured: Takes) {
    let seconds = lasting.as_secs_f64();
    let rows = [
        (
            "checks a second",
            predicted.checks,
            measured.checks,
            1.0,
            "",
        ),
        (
            "refusals",
            predicted.refusals,
            measured.refusals,
            seconds,
            "",
        ),
        (
            "streamgate: cores",
            predicted.streamgate,
            measured.streamgate,
            1.0,
            "",
        ),
        (
            "operations of the store a second",
            predicted.operations,
            measured.operations,
            1.0,
            "",
        ),
        ("Redis: cores", predicted.redis, measured.redis, 1.0, ""),
    ];
    for (what, predicted, measured, times, unit) in rows {
        let scale = times / seconds;
        row(
            &format!("{phase}, {what}"),
            predicted * scale,
            measured * scale,
            unit,
        );
    }
}

/// Prints one row.
fn row(what: &str, predicted: f64, measured: f64, unit: &str) {
    let ratio = measured / predicted;
    println!("| {what} | {predicted:.3} {unit} | {measured:.3} {unit} | {ratio:.2} |");
}
