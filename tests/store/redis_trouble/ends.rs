//! The end of a connection: by a server in good health it costs no start and is no outage; with the server itself it is known at once,
//! although nobody asks for anything.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use streamgate::config::{OutageRule, Topology};

use super::{Fault, LONG, Scene, by_each_rule, is_full};
use testkit::app::TestApp;
use testkit::gateway_client::{Check, Gateway};
use testkit::log::Log;
use testkit::redis::RedisServer;
use testkit::watch::eventually;

/// How long a call may wait for a connection that is being made: far longer than that takes on a busy machine.
const PATIENT: Duration = Duration::from_secs(10);

/// How often Redis closes our connections.
const TIMES: u32 = 4;

/// How many ask at once.
const AT_ONCE: u32 = 16;

/// What the log has at the beginning of an outage.
const OUTAGE: &str = "the store doesn't answer";

/// An app on a sound Redis, with one stream for everybody, and a gateway before it.
async fn app_on(server: &RedisServer, rule: OutageRule) -> (TestApp, Gateway) {
    let plan = TestApp::plan().limit(1).redis(&server.url(), PATIENT);
    let app = plan.outage(rule).start().await;
    let gateway = app.gateway().await;
    let first = gateway.check(Check::of_playback("anna", "first")).await;
    assert!(first.is_allowed(), "{first:?}");
    (app, gateway)
}

/// Has Redis close all our connections.
fn hang_up(server: &RedisServer) {
    assert!(server.run::<i64>(&["CLIENT", "KILL", "TYPE", "normal"]) > 0);
}

/// How many starts have had that outcome in the store.
async fn asked(app: &TestApp, outcome: &str) -> u64 {
    let labels = format!("{{operation=\"admit\",outcome=\"{outcome}\"}}");
    app.metric(&format!("streamgate_store_requests_total{labels}"))
        .await
}

#[tokio::test]
async fn a_connection_that_redis_closes_costs_no_start() {
    let (log, _guard) = Log::listen();
    by_each_rule(async |rule| {
        let server = RedisServer::start();
        let (app, gateway) = app_on(&server, rule).await;
        for time in 0..TIMES {
            hang_up(&server);
            let id = format!("second-{time}");
            let second = gateway.check(Check::of_playback("anna", &id)).await;
            assert!(is_full(&second, &["first"]), "{rule:?}: {second:?}");
        }
        for outcome in ["not_asked", "disconnected", "timeout"] {
            assert_eq!(asked(&app, outcome).await, 0, "{rule:?}: {outcome}");
        }
        drop(gateway);
        app.stop().await;
    })
    .await;
    assert_eq!(log.counts(OUTAGE), 0);
}

/// Starts stream after stream until told to stop; how many were not decided by Redis.
async fn start_on_and_on(gateway: &Gateway, number: u32, over: &Cell<bool>) -> u64 {
    let mut by_rule = 0;
    for stream in 0.. {
        if over.get() {
            break;
        }
        let name = format!("crowd-{number}-{stream}");
        let started = gateway.check(Check::of_playback(&name, "first")).await;
        let second = gateway.check(Check::of_playback(&name, "second")).await;
        by_rule += u64::from(!started.is_allowed());
        by_rule += u64::from(!is_full(&second, &["first"]));
    }
    by_rule
}

#[tokio::test]
async fn under_load_a_closed_connection_costs_what_was_under_way() {
    let (log, _guard) = Log::listen();
    by_each_rule(async |rule| {
        let server = Arc::new(RedisServer::start());
        let (app, gateway) = app_on(&server, rule).await;
        let over = Cell::new(false);
        let load = (0..AT_ONCE).map(|number| start_on_and_on(&gateway, number, &over));
        let trouble = async {
            for _ in 0..TIMES {
                let before = asked(&app, "ok").await;
                eventually("all of them are decided again", async || {
                    asked(&app, "ok").await >= before + u64::from(AT_ONCE)
                })
                .await;
                let server = Arc::clone(&server);
                let closing = tokio::task::spawn_blocking(move || hang_up(&server));
                closing.await.unwrap();
            }
            over.set(true);
        };
        let (by_rule, ()) = tokio::join!(join_all(load), trouble);
        // The answer to what was under way is lost, and nothing else is.
        let under_way = u64::from(AT_ONCE * TIMES);
        let lost = asked(&app, "disconnected").await;
        assert!(lost <= under_way, "{rule:?}: {lost} answers were lost");
        for outcome in ["not_asked", "timeout"] {
            assert_eq!(asked(&app, outcome).await, 0, "{rule:?}: {outcome}");
        }
        // Where the first of a user was denied or put off, the second isn't one too many.
        let by_rule: u64 = by_rule.into_iter().sum();
        assert!(by_rule <= 2 * lost, "{rule:?}: {by_rule} for {lost}");
        drop(gateway);
        app.stop().await;
    })
    .await;
    assert_eq!(log.counts(OUTAGE), 0);
}

/// What an instance says of its store follows that, while nobody asks for anything.
async fn an_idle_instance_knows_of(fault: Fault) {
    an_idle_instance_knows_of_in(Topology::Standalone, fault).await;
}

/// The same where that Redis is arranged so.
async fn an_idle_instance_knows_of_in(topology: Topology, fault: Fault) {
    by_each_rule(async |rule| {
        let scene = Scene::open(topology, fault, rule, (LONG, LONG)).await;
        scene.strike().await;
        // A look at the store every five seconds would show it after twenty at the earliest.
        scene.rule_is_in_force().await;
        let told = scene.readiness().await;
        assert!(!scene.says_up(&told), "{told}");
        assert!(!scene.shows_up().await);
        scene.mend().await;
        scene.is_up().await;
        scene.close().await;
    })
    .await;
}

#[tokio::test]
async fn an_idle_instance_knows_that_redis_is_gone_and_back() {
    an_idle_instance_knows_of(Fault::Killed).await;
}

#[tokio::test]
async fn an_idle_instance_knows_that_the_wire_is_cut() {
    an_idle_instance_knows_of(Fault::Cut).await;
}

#[tokio::test]
async fn an_idle_instance_knows_that_the_wire_is_silent() {
    an_idle_instance_knows_of(Fault::Stall).await;
}

#[tokio::test]
async fn an_idle_instance_knows_that_redis_stands_still() {
    an_idle_instance_knows_of(Fault::Paused).await;
}

#[tokio::test]
async fn an_idle_instance_knows_that_redis_wants_a_password() {
    an_idle_instance_knows_of(Fault::Password).await;
}

#[tokio::test]
async fn an_idle_instance_knows_that_answers_come_too_late() {
    an_idle_instance_knows_of(Fault::Slow).await;
}

#[tokio::test]
async fn an_idle_instance_knows_of_the_trouble_of_a_shard() {
    for fault in [
        Fault::Killed,
        Fault::Cut,
        Fault::Stall,
        Fault::Paused,
        Fault::Password,
        Fault::Slow,
    ] {
        an_idle_instance_knows_of_in(Topology::Cluster, fault).await;
    }
}

#[tokio::test]
async fn a_redis_that_shuts_down_politely_is_known_to_be_gone() {
    by_each_rule(async |rule| {
        let server = Arc::new(RedisServer::start());
        let (app, gateway) = app_on(&server, rule).await;
        let up = async || app.metric("streamgate_store_up ").await == 1;
        let ending = Arc::clone(&server);
        let shutting = tokio::task::spawn_blocking(move || {
            // Nobody is left to answer.
            drop(ending.try_run::<()>(&["SHUTDOWN", "NOSAVE"]));
            ending.stop();
        });
        shutting.await.unwrap();
        eventually("it is known", async || !up().await).await;
        let starting = Arc::clone(&server);
        let starting = tokio::task::spawn_blocking(move || starting.restart());
        starting.await.unwrap();
        eventually("it is back", async || up().await).await;
        let again = gateway.check(Check::of_playback("ben", "first")).await;
        assert!(again.is_allowed(), "{rule:?}: {again:?}");
        drop(gateway);
        app.stop().await;
    })
    .await;
}
