//! An outage in the midst of viewers: those who are watching notice nothing, newcomers get what the rule has, and once it is over all
//! is as before, what was let in and what was released meanwhile included.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::json;
use streamgate::clock::Stopwatch;
use streamgate::config::Outage;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Fault, LONG, Scene, TIMEOUT, by_each_rule, counted, is_full, is_unavailable};
use crate::support::app::PATIENCE;
use crate::support::gateway_client::{Answer, Check, Gateway, end};
use crate::support::watch::{measured, until};

/// The lease of a playback in the midst of whose viewers the store is out.
const LEASE: Duration = Duration::from_secs(9);

/// How long it is out: with the second that a new connection may be waited for, less than two thirds of that.
const OUTAGE: Duration = Duration::from_millis(4500);

/// How many are watching.
const VIEWERS: u32 = 8;

/// How long after the one before it each began, so that the first is about to be renewed when the last has begun.
const APART: Duration = Duration::from_millis(300);

/// How often each asks.
const INTERVAL: Duration = Duration::from_millis(100);

/// What has become of those who asked.
#[derive(Debug, Default)]
struct Asked {
    /// How many did.
    times: u32,
    /// The longest that one took.
    longest: Duration,
    /// What those were told who were not let in.
    refused: Vec<Answer>,
}

impl Asked {
    /// Asks.
    async fn ask(&mut self, gateway: &Gateway, check: Check) -> Answer {
        let waiting = Stopwatch::start();
        let answer = gateway.check(check).await;
        self.longest = self.longest.max(waiting.elapsed());
        self.times += 1;
        if !answer.is_allowed() {
            self.refused.push(answer.clone());
        }
        answer
    }
}

/// The name of a viewer, and of what they watch.
fn viewer(number: u32) -> (String, String) {
    // Two by two they are one user's.
    (format!("viewer-{}", number / 2), format!("film-{number}"))
}

/// Watches until told to stop.
async fn watch(gateway: Gateway, number: u32, over: CancellationToken) -> Asked {
    tokio::time::sleep(APART * number).await;
    let ((name, id), mut asked) = (viewer(number), Asked::default());
    while !over.is_cancelled() {
        asked.ask(&gateway, Check::of_playback(&name, &id)).await;
        tokio::time::sleep(INTERVAL).await;
    }
    asked
}

/// Comes again and again with a new stream, as somebody new and as `crowd`, until the outage is over.
async fn come(scene: &Scene) -> Asked {
    let (mut asked, outage) = (Asked::default(), Stopwatch::start());
    let mut taken: Vec<String> = Vec::new();
    while outage.elapsed() < OUTAGE {
        let id = format!("new-{}", asked.times);
        let new = asked
            .ask(&scene.gateway, Check::of_playback(&id, &id))
            .await;
        let crowded = asked
            .ask(&scene.gateway, Check::of_playback("crowd", &id))
            .await;
        let holders: Vec<&str> = taken.iter().map(String::as_str).collect();
        let as_it_should = match scene.rule {
            Outage::Allow => new.is_allowed() && crowded.is_allowed(),
            Outage::Deny => is_unavailable(&new) && is_unavailable(&crowded),
            Outage::Local if holders.len() == 2 => new.is_allowed() && is_full(&crowded, &holders),
            Outage::Local => new.is_allowed() && crowded.is_allowed(),
        };
        assert!(
            as_it_should,
            "{:?} {:?}: {new:?} {crowded:?}",
            scene.fault, scene.rule
        );
        if crowded.is_allowed() {
            taken.push(id);
        }
        tokio::time::sleep(INTERVAL / 2).await;
    }
    asked
}

/// An outage in the midst of viewers.
async fn viewers_notice_nothing_while(fault: Fault) {
    by_each_rule(async |rule| {
        let scene = Scene::open(fault, rule, (LONG, LEASE)).await;
        let (over, mut viewers) = (CancellationToken::new(), JoinSet::new());
        for number in 0..VIEWERS {
            viewers.spawn(watch(scene.gateway.clone(), number, over.clone()));
        }
        tokio::time::sleep(APART * VIEWERS).await;
        scene.strike().await;
        let came = come(&scene).await;
        scene.mend().await;
        let took = scene.is_normal().await;
        scene.owes_nothing().await;
        over.cancel();
        let mut longest = came.longest;
        for watched in viewers.join_all().await {
            let refused = watched.refused.first();
            assert!(refused.is_none(), "{fault:?} {rule:?}: {refused:?}");
            assert!(watched.times >= 20, "{}", watched.times);
            longest = longest.max(watched.longest);
        }
        measured(
            &format!("longest check, {fault:?}, {rule:?}, {TIMEOUT:?} allowed:"),
            longest,
        );
        measured(&format!("back to normal after {fault:?}, {rule:?}:"), took);
        assert!(longest < TIMEOUT * 2, "{fault:?} {rule:?}: {longest:?}");
        let store = scene.server.store();
        for number in 0..VIEWERS {
            let (name, id) = viewer(number);
            let counted = counted(&store, &name).await;
            assert!(
                counted.contains(&id),
                "{fault:?} {rule:?} {id}: {counted:?}"
            );
        }
        // Whoever wasn't let in hasn't left anything, whatever became of what was asked.
        for number in (0..came.times).step_by(2) {
            let id = format!("new-{number}");
            let counted = counted(&store, &id).await.len();
            assert_eq!(
                counted,
                usize::from(rule != Outage::Deny),
                "{fault:?} {rule:?} {id}"
            );
        }
        scene.close().await;
    })
    .await;
}

#[tokio::test]
async fn viewers_notice_nothing_while_the_wire_stalls() {
    viewers_notice_nothing_while(Fault::Stall).await;
}

#[tokio::test]
async fn viewers_notice_nothing_while_the_wire_is_cut() {
    viewers_notice_nothing_while(Fault::Cut).await;
}

#[tokio::test]
async fn viewers_notice_nothing_while_answers_come_too_late() {
    viewers_notice_nothing_while(Fault::Slow).await;
}

#[tokio::test]
async fn viewers_notice_nothing_while_redis_is_gone_and_comes_back_empty() {
    viewers_notice_nothing_while(Fault::Killed).await;
}
