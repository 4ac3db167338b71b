//! An outage in the midst of viewers: those who are watching notice nothing, newcomers get what the rule has, and once it is over all
//! is as before, what was let in and what was released meanwhile included.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::json;
use streamgate::clock::Stopwatch;
use streamgate::config::{OutageRule, Topology};
use streamgate::store::Store;
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{
    Fault, LONG, Scene, TIMEOUT, by_each_rule, counted, is_full, is_unavailable, lasting_store,
    plan,
};
use testkit::app::TestApp;
use testkit::gateway_client::{Answer, Check, Gateway, end};
use testkit::streams::user;
use testkit::watch::{eventually, measured};

/// The lease of a playback in the midst of whose viewers the store is out.
const LEASE: Duration = Duration::from_secs(12);

/// How long it is out: so long that some viewers come into the last third of their lease, and less than two thirds of it, with the second
/// that a new connection may be waited for.
const OUTAGE: Duration = Duration::from_millis(5500);

/// How many are watching.
const VIEWERS: u32 = 8;

/// How long after the one before it each began, so that the first is about to be renewed when the last has begun.
const APART: Duration = Duration::from_millis(450);

/// How often each asks.
const INTERVAL: Duration = Duration::from_millis(200);

/// What has become of those who asked.
#[derive(Debug, Default)]
struct Asked {
    /// How many did.
    times: u32,
    /// The longest that one took.
    longest: Duration,
    /// What those were told who were not let in, and when that was, by the clock of the test.
    refused: Vec<(Duration, Answer)>,
}

impl Asked {
    /// Asks.
    async fn ask(&mut self, gateway: &Gateway, clock: &Stopwatch, check: Check) -> Answer {
        let waiting = Stopwatch::start();
        let answer = gateway.check(check).await;
        self.longest = self.longest.max(waiting.elapsed());
        self.times += 1;
        if !answer.is_allowed() {
            self.refused.push((clock.elapsed(), answer.clone()));
        }
        answer
    }
}

/// The name of a viewer, and of what they watch.
fn viewer(number: u32) -> (String, String) {
    // Two by two they are one user's.
    (format!("viewer-{}", number / 2), format!("film-{number}"))
}

/// Begins to watch, and once all do, goes on until told to stop.
async fn watch(
    gateway: Gateway,
    clock: Stopwatch,
    number: u32,
    (all, over): (Arc<Barrier>, CancellationToken),
) -> Asked {
    tokio::time::sleep(APART * number).await;
    let ((name, id), mut asked) = (viewer(number), Asked::default());
    let begin = || Check::of_playback(&name, &id);
    while !gateway.check(begin()).await.is_allowed() {
        // A busy machine may keep even a sound Redis from answering in time.
    }
    // Who waits for the others watches meanwhile.
    let mut waiting = pin!(all.wait());
    while timeout(INTERVAL, &mut waiting).await.is_err() {
        gateway.check(begin()).await;
    }
    while !over.is_cancelled() {
        asked
            .ask(&gateway, &clock, Check::of_playback(&name, &id))
            .await;
        tokio::time::sleep(INTERVAL).await;
    }
    asked
}

/// How much later than asked for a sleep ends at worst: what the machine keeps everybody waiting for, until told to stop.
async fn lag(over: CancellationToken) -> Duration {
    let (pause, mut longest) = (Duration::from_millis(5), Duration::ZERO);
    while !over.is_cancelled() {
        let sleeping = Stopwatch::start();
        tokio::time::sleep(pause).await;
        longest = longest.max(sleeping.elapsed().saturating_sub(pause));
    }
    longest
}

/// Waits until Redis counts all viewers; how long the first lease of theirs still lasts.
async fn first_lease(scene: &Scene) -> Duration {
    let store = lasting_store(&scene.server);
    let mut first = LEASE;
    for number in 0..VIEWERS {
        let (name, id) = viewer(number);
        let left = eventually("the viewer is counted", async || {
            let listing = store.list(&user(&name)).await.unwrap();
            let mut sessions = listing.sessions.iter();
            let session = sessions.find(|session| session.key.id.as_str() == id)?;
            let ends = session.expires_at.as_millis();
            Some(ends.saturating_sub(listing.taken_at.as_millis()))
        });
        first = first.min(Duration::from_millis(left.await));
    }
    first
}

/// Comes again and again with a new stream, as somebody new and as `crowd`, until the outage is over.
async fn come(scene: &Scene) -> Asked {
    let (mut asked, outage) = (Asked::default(), Stopwatch::start());
    let mut taken: Vec<String> = Vec::new();
    while outage.elapsed() < OUTAGE {
        let id = format!("new-{}", asked.times);
        let new = asked
            .ask(&scene.gateway, &outage, Check::of(&id, &id))
            .await;
        let crowded = asked
            .ask(&scene.gateway, &outage, Check::of("crowd", &id))
            .await;
        let holders: Vec<&str> = taken.iter().map(String::as_str).collect();
        let as_it_should = match scene.rule {
            OutageRule::Deny => is_unavailable(&new) && is_unavailable(&crowded),
            OutageRule::Local if holders.len() == 2 => {
                new.is_allowed() && is_full(&crowded, &holders)
            }
            OutageRule::Allow | OutageRule::Local => new.is_allowed() && crowded.is_allowed(),
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

/// Redis counts all viewers, and of those who came so many in number whom the rule has let in.
async fn is_counted(scene: &Scene, came: u32) {
    let case = format!("{:?} {:?}", scene.fault, scene.rule);
    let store = lasting_store(&scene.server);
    for number in 0..VIEWERS {
        let (name, id) = viewer(number);
        let counted = counted(&store, &name).await;
        assert!(counted.contains(&id), "{case} {id}: {counted:?}");
    }
    // Whoever wasn't let in hasn't left anything, whatever became of what was asked.
    for number in (0..came).step_by(2) {
        let id = format!("new-{number}");
        let counted = counted(&store, &id).await.len();
        assert_eq!(
            counted,
            usize::from(scene.rule != OutageRule::Deny),
            "{case} {id}"
        );
    }
}

/// An outage in the midst of viewers.
async fn viewers_notice_nothing_while(fault: Fault) {
    viewers_notice_nothing_in(Topology::Standalone, fault).await;
}

/// The same where that Redis is arranged so.
async fn viewers_notice_nothing_in(topology: Topology, fault: Fault) {
    by_each_rule(async |rule| {
        let scene = Scene::open(topology, fault, rule, (LONG, LEASE)).await;
        let (over, mut viewers) = (CancellationToken::new(), JoinSet::new());
        let (clock, all) = (
            Stopwatch::start(),
            Arc::new(Barrier::new(VIEWERS as usize + 1)),
        );
        for number in 0..VIEWERS {
            viewers.spawn(watch(
                scene.gateway.clone(),
                clock,
                number,
                (Arc::clone(&all), over.clone()),
            ));
        }
        let mut lagging = JoinSet::new();
        lagging.spawn(lag(over.clone()));
        all.wait().await;
        let noticeable = first_lease(&scene).await + clock.elapsed();
        scene.strike().await;
        let came = come(&scene).await;
        scene.mend().await;
        let took = scene.is_normal().await;
        scene.owes_nothing().await;
        over.cancel();
        let mut longest = came.longest;
        for watched in viewers.join_all().await {
            // Nobody is promised more than their lease, which a busy machine may not renew in time.
            let refused = watched.refused.first().filter(|(at, _)| *at < noticeable);
            assert!(refused.is_none(), "{fault:?} {rule:?}: {refused:?}");
            assert!(watched.times >= 10, "{}", watched.times);
            longest = longest.max(watched.longest);
        }
        let lag = lagging.join_next().await.unwrap().unwrap();
        let case = format!("{fault:?}, {rule:?}");
        measured(
            &format!("longest check of a call within {TIMEOUT:?}, {case}:"),
            longest,
        );
        measured(&format!("longest lag of the machine, {case}:"), lag);
        measured(&format!("back to normal, {case}:"), took);
        is_counted(&scene, came.times).await;
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

#[tokio::test]
async fn viewers_notice_nothing_while_their_shard_stalls() {
    viewers_notice_nothing_in(Topology::Cluster, Fault::Stall).await;
}

#[tokio::test]
async fn viewers_notice_nothing_while_their_shard_is_gone_and_comes_back_empty() {
    viewers_notice_nothing_in(Topology::Cluster, Fault::Killed).await;
}

/// Releases a playback through the hook; the status that it answers with.
async fn release(app: &TestApp, name: &str, id: &str) -> StatusCode {
    let body = json!({"user": name, "session": id});
    let hook = reqwest::Client::new().post(app.url("/v1/release"));
    hook.json(&body).send().await.unwrap().status()
}

/// Nina asks again and again with a playback that stays, until told to stop.
async fn stay(gateway: Gateway, over: CancellationToken) -> Asked {
    let (mut asked, clock) = (Asked::default(), Stopwatch::start());
    while !over.is_cancelled() {
        asked
            .ask(&gateway, &clock, Check::of_playback("nina", "stays"))
            .await;
        tokio::time::sleep(INTERVAL).await;
    }
    asked
}

/// Another instance sees what this one does.
async fn is_known_elsewhere(scene: &Scene) {
    let case = format!("{:?} {:?}", scene.fault, scene.rule);
    let plan = plan(scene.topology, &scene.proxy.url(), LONG / 10);
    let other = plan.start().await;
    let elsewhere = other.gateway().await;
    let store = lasting_store(&scene.server);
    assert_eq!(counted(&store, "lee").await, [""; 0], "{case}");
    let before = elsewhere.check(Check::of_playback("lee", "before")).await;
    assert_eq!(before.reason(), "ended", "{case}");
    let left = elsewhere.check(Check::of_playback("nina", "left")).await;
    if scene.rule == OutageRule::Deny {
        // It was not let in, and so it has not ended either.
        assert!(left.is_allowed(), "{case}: {left:?}");
    } else {
        assert_eq!(left.reason(), "ended", "{case}");
        let next = elsewhere.check(Check::of_playback("nina", "next")).await;
        assert!(next.is_allowed(), "{case}: {next:?}");
        // A busy machine may not answer within the deadline of the first.
        let third = elsewhere.check(Check::of_playback("nina", "third")).await;
        assert!(is_full(&third, &["stays", "next"]), "{case}: {third:?}");
    }
    drop(elsewhere);
    other.stop().await;
}

/// What is let in, or isn't, while Redis may well have done what it was asked, and what is released meanwhile: how it stands afterwards.
async fn nothing_is_forgotten_after(fault: Fault) {
    nothing_is_forgotten_in(Topology::Standalone, fault).await;
}

/// The same where that Redis is arranged so.
async fn nothing_is_forgotten_in(topology: Topology, fault: Fault) {
    by_each_rule(async |rule| {
        let scene = Scene::open(topology, fault, rule, (LONG, LONG)).await;
        let (gateway, let_in) = (&scene.gateway, rule != OutageRule::Deny);
        let playback = |id: &str| gateway.check(Check::of_playback("nina", id));
        let before = Check::of_playback("lee", "before");
        scene.counts("lee", before, "before").await;
        let request = Check::of("lee", "request");
        let before = scene.counts("lee", request, "request").await;
        scene.strike().await;
        // Each of the first is asked of Redis, whose answers are lost.
        let first = playback("left").await;
        assert_eq!(
            (first.is_allowed(), is_unavailable(&first)),
            (let_in, !let_in)
        );
        assert_eq!(release(&scene.app, "lee", "before").await, 202);
        let mut log = gateway.access_log().await;
        log.send(vec![end("request", &before)]);
        assert_eq!(log.finish().await, 0);
        if let_in {
            assert_eq!(release(&scene.app, "nina", "left").await, 202);
        }
        let (over, mut staying) = (CancellationToken::new(), JoinSet::new());
        staying.spawn(stay(scene.gateway.clone(), over.clone()));
        scene.rule_is_in_force().await;
        scene.mend().await;
        scene.is_normal().await;
        scene.owes_nothing().await;
        over.cancel();
        let stayed = staying.join_next().await.unwrap().unwrap();
        let refused = u32::try_from(stayed.refused.len()).unwrap();
        assert!(
            if let_in { refused == 0 } else { refused > 0 },
            "{stayed:?}"
        );

        is_known_elsewhere(&scene).await;
        scene.close().await;
    })
    .await;
}

#[tokio::test]
async fn nothing_is_forgotten_after_answers_came_too_late() {
    nothing_is_forgotten_after(Fault::Slow).await;
}

#[tokio::test]
async fn nothing_is_forgotten_after_the_wire_has_stalled() {
    nothing_is_forgotten_after(Fault::Stall).await;
}

#[tokio::test]
async fn nothing_is_forgotten_after_answers_of_a_shard_came_too_late() {
    nothing_is_forgotten_in(Topology::Cluster, Fault::Slow).await;
}
