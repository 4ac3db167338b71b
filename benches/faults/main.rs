//! What each fault does to the count: how many get in above the limit, who is refused wrongly, how
//! long slots leak, how long a check takes, and how long until all is as before. Two streamgates
//! and an Envoy on each topology of the store, with thousands of viewers who know what they really
//! watch. `make faults` runs it inside a network namespace of its own, prints each row and writes
//! the table. Another machine prints other times, so this is no test.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a measurement that can't go on has failed"
)]

mod alerts;
mod control;
mod explain;
mod fault;
mod installation;
mod network;
mod table;
mod truth;
mod viewers;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use streamgate::clock::Stopwatch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use control::Control;
use fault::Fault;
use installation::{Installation, LEASE, TOPOLOGIES};
use table::{Row, Seen};
use viewers::{Audience, USERS};

/// How long a fault lasts that ends only because we end it: less than two thirds of a lease.
const LASTS: Duration = Duration::from_secs(4);

/// How long viewers come and go before the fault.
const BEFORE: Duration = Duration::from_secs(6);

/// How long they do so from when the fault begins: two leases and more.
const AFTER: Duration = Duration::from_secs(20);

/// What leaks is free after a lease at the latest.
const LEAKS_END_WITHIN: Duration = Duration::from_secs(LEASE as u64 + 2);

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.unwrap().block_on(async {
        let (chosen, all) = chosen();
        if std::env::var_os("ALERTS").is_some() {
            alerts::see(&chosen).await;
            return;
        }
        let mut table = Vec::new();
        for row in &chosen {
            let seen = run(row).await;
            println!("{}", table::line(row, &seen));
            table.push((*row, seen));
        }
        if chosen.len() == all {
            table::write(&table);
        }
    });
}

/// All rows.
fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (topology, _) in TOPOLOGIES {
        for fault in Fault::ALL.into_iter().filter(|it| it.is_of(topology)) {
            let rules = fault.rules(topology).iter();
            rows.extend(rules.map(|&rule| Row {
                topology,
                fault,
                rule,
            }));
        }
    }
    rows
}

/// The rows whose description contains one of the arguments, all if there is none; `K/N` is every
/// Nth one from the Kth. Also how many there are in all.
fn chosen() -> (Vec<Row>, usize) {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let wanted: Vec<&String> = arguments
        .iter()
        .filter(|it| !it.starts_with("--"))
        .collect();
    let rows = rows();
    let all = rows.len();
    let is_chosen = |(number, row): &(usize, Row)| {
        let fits = |word: &&String| match word.split_once('/') {
            Some((part, parts)) => {
                let parts: usize = parts.parse().unwrap();
                number % parts == part.parse::<usize>().unwrap() % parts
            }
            None => row.describe().contains(word.as_str()),
        };
        wanted.is_empty() || wanted.iter().any(fits)
    };
    let chosen = rows.into_iter().enumerate().filter(is_chosen);
    (chosen.map(|(_, row)| row).collect(), all)
}

/// Puts an installation through the fault of that row.
async fn run(row: &Row) -> Seen {
    let mut at = Installation::start(row.topology, &row.fault.options(), row.rule).await;
    let clock = Stopwatch::start();
    let control = Control::start(clock);
    let audience = { Audience::of(at.both(), USERS, clock) };
    let envoy = at.envoy.as_ref().unwrap().address;
    let devices = audience.watch(envoy);
    let mut looking = JoinSet::new();
    looking.spawn(Arc::clone(&audience).look_for_leaks());

    sleep(BEFORE).await;
    let before = audience.truth.tally();
    let began = clock.elapsed();
    let is_killed = row.fault == Fault::EnvoyKilled;
    audience.envoy_is_killed.store(is_killed, Ordering::Relaxed);
    row.fault.happen(&mut at, LASTS).await;
    sleep(AFTER.saturating_sub(clock.elapsed() - began)).await;

    audience.end();
    devices.join_all().await;
    let left_over = audience.until_all_is_free(LEAKS_END_WITHIN).await;
    looking.shutdown().await;
    audience.leave().await;
    if std::env::var_os("EXPLAIN").is_some() {
        explain::leaks(&audience.truth.tally(), began);
        for streamgate in at.streamgates.iter().flatten() {
            explain::show(streamgate).await;
        }
    }
    Seen {
        starts_before: before.starts,
        checks_before: before.checks,
        tally: audience.truth.tally(),
        began,
        left_over,
        delays: control.end(),
    }
}
