//! A Redis that stands still.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use streamgate::clock::Stopwatch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use testkit::gateway_client::{Answer, Check, Gateway};
use testkit::redis::RedisServer;
use testkit::streamgate::{Setting, Streamgate};
use testkit::watch::{PATIENCE, eventually, measured};

use super::{PART, Pace, TURN, ask, counted, on_redis};

/// A check under a load, and what came of it.
#[derive(Debug)]
struct Asked {
    user: String,
    asked_at: Duration,
    answered_at: Duration,
    answer: Option<Answer>,
}

/// A streamgate at which playbacks go on and new ones start, in equal parts.
struct Load {
    streamgate: Streamgate,
    gateway: Gateway,
    begun: Stopwatch,
    asked: AtomicUsize,
}

impl Load {
    /// How many checks are offered in a second.
    const RATE: usize = 1000 / PART;
    /// How many playbacks go on.
    const HELD: usize = 250 / PART;
    /// For how long Redis stands still.
    const PAUSE: Duration = Duration::from_secs(5);

    /// A streamgate with its held playbacks, which Redis counts.
    async fn with_held(settings: &[Setting<'_>]) -> Arc<Self> {
        let streamgate = Streamgate::start(settings).await;
        let load = Self {
            gateway: Gateway::connect(streamgate.grpc).await,
            streamgate,
            begun: Stopwatch::start(),
            asked: AtomicUsize::new(0),
        };
        for number in 0..Self::HELD {
            let user = format!("held-{number}");
            // On a busy machine Redis may seem to be out before it is.
            eventually("a playback starts", async || {
                let answer = ask(&load.gateway, Check::of_playback(&user, "tv")).await;
                answer.is_some_and(|answer| answer.is_allowed())
            })
            .await;
        }
        load.owes_nothing().await;
        Arc::new(load)
    }

    /// Waits until Redis has been told all.
    async fn owes_nothing(&self) -> Duration {
        let owed = "streamgate_sessions_owed";
        self.streamgate
            .metric_becomes(owed, &[], |owed| owed == 0.0)
            .await
    }

    async fn check(self: Arc<Self>, nth: usize) -> Asked {
        let user = match nth % 2 {
            0 => format!("held-{}", nth / 2 % Self::HELD),
            _ => format!("new-{nth}"),
        };
        let asked_at = self.begun.elapsed();
        let answer = ask(&self.gateway, Check::of_playback(&user, "tv")).await;
        Asked {
            user,
            asked_at,
            answered_at: self.begun.elapsed(),
            answer,
        }
    }

    /// Offers checks until told to stop; all of them, answered or not.
    async fn run(self: Arc<Self>, stop: CancellationToken) -> Vec<Asked> {
        let (mut pace, mut asking) = (Pace::of(Self::RATE), JoinSet::new());
        while !stop.is_cancelled() {
            for nth in pace.due().await {
                asking.spawn(Arc::clone(&self).check(nth));
                self.asked.fetch_add(1, Ordering::Relaxed);
            }
        }
        asking.join_all().await
    }

    /// Waits until so many more seconds' checks have been offered.
    async fn seconds(&self, seconds: usize) {
        let enough = self.asked.load(Ordering::Relaxed) + seconds * Self::RATE;
        eventually("checks are offered", async || {
            self.asked.load(Ordering::Relaxed) >= enough
        })
        .await;
    }
}

/// Has Redis stand still under the load, with that rule: what was asked, and from when until when it surely was by the rule.
async fn pause_under_load(rule: &str, redis: &RedisServer) -> (Vec<Asked>, Duration, Duration) {
    let url = redis.url();
    // Longer than all this takes: no lease of those that ask only once has ended when they are counted.
    let settings = [("store.outage", rule), ("leases.playback", "120s")];
    let load = Load::with_held(&on_redis(&url, &settings)).await;
    let stop = CancellationToken::new();
    let mut running = JoinSet::new();
    running.spawn(Arc::clone(&load).run(stop.clone()));
    load.seconds(1).await;
    let (before, _) = load.streamgate.memory();

    redis.pause();
    let paused = Stopwatch::start();
    let (up, started) = ("streamgate_store_up", [("reason", "started")]);
    let checks = "streamgate_checks_total";
    let noticed = load.streamgate.metric_becomes(up, &[], |up| up == 0.0);
    measured(
        &format!("outage rule ({rule}) in place after Redis has stopped answering"),
        noticed.await,
    );
    let from = load.begun.elapsed();
    tokio::time::sleep(Load::PAUSE.saturating_sub(paused.elapsed())).await;
    let before_it_goes_on = load.streamgate.metric(checks, &started).await;
    let until = load.begun.elapsed();
    redis.resume();
    let more = |now: f64| now > before_it_goes_on;
    let decides = load.streamgate.metric_becomes(checks, &started, more);
    measured(
        &format!("first start decided by Redis ({rule}) after a pause of 5 s"),
        decides.await,
    );
    load.seconds(2).await;
    stop.cancel();
    let asked = running.join_next().await.unwrap().unwrap();
    load.owes_nothing().await;

    let (_, most) = load.streamgate.memory();
    let grown = most.saturating_sub(before) / 1024;
    let slowest = asked
        .iter()
        .map(|asked| asked.answered_at - asked.asked_at)
        .max();
    measured(
        &format!(
            "slowest of {} checks ({rule}) at {} a second",
            asked.len(),
            Load::RATE
        ),
        slowest.unwrap(),
    );
    println!(
        "memory has grown by {grown} MiB, from {} MiB",
        before / 1024
    );
    assert!(grown < 100, "{grown} MiB");
    (asked, from, until)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_check_is_answered_by_the_rule_while_redis_stands_still_and_memory_stays_bounded() {
    let _turn = TURN.lock().await;
    for rule in ["allow", "deny"] {
        let redis = RedisServer::start();
        let (asked, from, until) = pause_under_load(rule, &redis).await;
        let mut by_rule = 0;
        // What Redis has to count in the end of each new user: the one session that was let in, or none.
        let mut expected = HashMap::new();
        for check in &asked {
            let answer = check.answer.as_ref();
            let answer = answer.unwrap_or_else(|| panic!("no answer: {check:?}"));
            let is_new = check.user.starts_with("new");
            if is_new {
                expected.insert(check.user.clone(), answer.is_allowed());
            }
            if answer.is_allowed() {
                let sure = from < check.asked_at && check.answered_at < until;
                assert!(!(sure && is_new && rule == "deny"), "{check:?}");
                by_rule += usize::from(sure && is_new);
                continue;
            }
            assert!(is_new && rule == "deny", "{check:?}");
            let said = (answer.kind, answer.code, answer.http);
            assert_eq!(said, ("error", 14, 503), "{check:?}");
            by_rule += 1;
        }
        println!("{by_rule} starts were decided by the rule ({rule})");
        assert!(by_rule > 0);
        let store = redis.store();
        let mut miscounted: Vec<String> = expected.keys().cloned().collect();
        let begun = Stopwatch::start();
        while !miscounted.is_empty() {
            assert!(begun.elapsed() < PATIENCE, "{rule}: {miscounted:?}");
            let counted = counted(&store, miscounted).await;
            let wrong = counted
                .into_iter()
                .filter(|(user, counted)| counted.len() != usize::from(expected[user]));
            miscounted = wrong.map(|(user, _)| user).collect();
        }
    }
}
