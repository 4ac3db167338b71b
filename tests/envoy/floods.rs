//! Floods: how much memory, and how much of others' room, one user or very many can take; on the
//! embedded store and on a Redis.
//!
//! For one user at most 64 ends are remembered and at most 32 streams above the limit are put back,
//! so at most that many are held, whatever the doors receive. (`src/outbox/tests.rs` shows that a
//! flood of one user's ends leaves others their room in the outbox.) `make bench-memory` measures
//! the same with a million.

use reqwest::Method;
use serde_json::json;
use streamgate::config::OutageRule;

use streamgate::store::faulty::{Fault, FaultyStore};
use testkit::api::{Api, on_both};
use testkit::app::TestApp;
use testkit::flood::{forged, many_users, one_user, releases};
use testkit::gateway_client::{Check, abandoned};
use testkit::redis::RedisServer;
use testkit::watch::eventually;

/// How many a flood has that is run with all other tests.
const FLOOD: usize = 5_000;

#[tokio::test]
async fn of_one_user_32_ends_of_unknown_sessions_are_remembered() {
    on_both(async |plan| {
        let app = plan.limit(1000).start().await;
        let (api, gateway) = (Api::of(&app), app.gateway().await);
        let ended = json!({"user": "anna", "session": "a1"});
        let told = api.call(Method::POST, "/v1/release", Some(ended)).await;
        assert_eq!(told.status, 204);
        for list in releases("mallory", 300) {
            let told = api.call(Method::POST, "/v1/release", Some(list)).await;
            assert_eq!(told.status, 204);
        }
        let mut log = gateway.access_log().await;
        let ids = (0..300).map(|n| format!("r{n}"));
        log.send(ids.map(|id| abandoned("mallory", &id)).collect());
        log.finish().await;
        eventually("all is told", async || {
            app.metric("streamgate_releaser_pending").await == 0
        })
        .await;
        let mut remembered = 0;
        for n in 0..300 {
            for check in [
                Check::of("mallory", &format!("r{n}")),
                Check::of_playback("mallory", &format!("p{n}")),
            ] {
                let answer = gateway.check(check).await;
                let has_ended = answer.reason() == "ended";
                assert!(has_ended || answer.is_allowed(), "{answer:?}");
                remembered += usize::from(has_ended);
            }
        }
        assert_eq!(remembered, 32);
        let annas = gateway.check(Check::of_playback("anna", "a1")).await;
        assert_eq!(annas.reason(), "ended", "hers is remembered still");
        app.stop().await;
    })
    .await;
}

#[tokio::test]
async fn in_an_outage_no_more_of_one_user_is_held_than_could_be_put_back() {
    let store = FaultyStore::new();
    let plan = TestApp::plan()
        .outage(OutageRule::Allow)
        .store(store.clone());
    let app = plan.start().await;
    let gateway = app.gateway().await;
    let first = gateway.check(Check::of("mallory", "r0")).await;
    let annas = gateway.check(Check::of_playback("anna", "a1")).await;
    assert!(first.is_allowed() && annas.is_allowed());
    store.fails(&Fault::LosesCalls);
    let mut log = gateway.access_log().await;
    for n in 0..1000 {
        // Whether each is let in is the outage rule's to say.
        gateway
            .check(Check::of_playback("mallory", &format!("p{n}")))
            .await;
        log.send(vec![forged(&first, &format!("f{n}"))]);
    }
    log.finish().await;
    eventually("they are counted", async || {
        app.metric("streamgate_sessions_held ").await > 30
    })
    .await;
    let held = app.metric("streamgate_sessions_held ").await;
    assert!(held <= 3 + 32 + 1, "{held}, with anna's");
    store.fails(&Fault::None);
    eventually("the store is told", async || {
        app.metric("streamgate_sessions_owed ").await == 0
            && app.metric("streamgate_releaser_pending").await == 0
    })
    .await;
    assert!(store.live("mallory").await.len() <= 3 + 32);
    assert_eq!(store.live("anna").await, ["a1"]);
    app.stop().await;
}

#[tokio::test]
async fn a_user_takes_little_memory_be_there_many_of_them() {
    many_users("embedded store", FLOOD, None).await;
    many_users("Redis", FLOOD, Some(&RedisServer::start())).await;
}

#[tokio::test]
async fn one_user_with_very_many_ids_takes_bounded_memory() {
    one_user("embedded store", FLOOD, None).await;
    one_user("Redis", FLOOD, Some(&RedisServer::start())).await;
}
