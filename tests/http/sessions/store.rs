//! What the store is asked, and what its outage leads to.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use streamgate::clock::{ManualClock, Timestamp};
use streamgate::config::OutageRule;
use streamgate::session::PROVEN_AFTER;
use streamgate::store::StoreError;

use streamgate::store::faulty::{Fault, FaultyStore};
use testkit::api::Api;
use testkit::app::TestApp;
use testkit::streams;
use testkit::watch::eventually;

use super::elsewhere;

#[tokio::test]
async fn in_an_outage_the_rule_says_what_a_start_is_told() {
    for (rule, second) in [
        (OutageRule::Deny, 503),
        (OutageRule::Allow, 201),
        (OutageRule::Local, 429),
    ] {
        let store = FaultyStore::new();
        let plan = TestApp::plan().limit(1).outage(rule).store(store.clone());
        let app = plan.start().await;
        let api = Api::of(&app);
        assert_eq!(api.put("anna", "p1", json!({})).await.status, 201);
        store.fails(&Fault::LosesCalls);
        // A session with a lease continues under each rule.
        let goes_on = api.put("anna", "p1", json!({"position": 7})).await;
        assert_eq!(
            (goes_on.status.as_u16(), &goes_on.body["position"]),
            (200, &json!(7))
        );
        let told = api.put("anna", "p2", json!({})).await;
        assert_eq!(told.status, second, "{rule:?}: {told:?}");
        for path in ["/v1/users/anna/sessions", "/v1/users/anna/sessions/p1"] {
            let unseen = api.get(path).await;
            unseen.is_problem(503, "outage");
            assert_eq!(unseen.header("retry-after"), "1");
        }
        if rule == OutageRule::Deny {
            told.is_problem(503, "outage");
            assert_eq!(told.header("retry-after"), "1");
        }
        api.delete("/v1/users/anna/sessions")
            .await
            .is_problem(503, "outage");
        let released = api.delete("/v1/users/anna/sessions/p1").await;
        assert_eq!(
            (released.status.as_u16(), released.body),
            (202, Value::Null)
        );
        store.fails(&Fault::None);
        let left: &[&str] = if rule == OutageRule::Allow {
            &["p2"]
        } else {
            &[]
        };
        eventually("it is told when the store is back", async || {
            store.live("anna").await == left
        })
        .await;
        api.put("anna", "p1", json!({}))
            .await
            .is_problem(410, "ended");
        app.stop().await;
    }
}

#[tokio::test]
async fn a_takeover_by_the_local_rule_reaches_the_store_when_it_is_back() {
    let store = FaultyStore::new();
    let plan = TestApp::plan()
        .limit(1)
        .outage(OutageRule::Local)
        .store(store.clone());
    let app = plan.start().await;
    let api = Api::of(&app);
    assert_eq!(api.put("anna", "p1", json!({})).await.status, 201);
    store.fails(&Fault::LosesCalls);
    assert_eq!(
        api.put("anna", "p2", json!({"takeover": "p1"}))
            .await
            .status,
        201
    );
    store.fails(&Fault::None);
    eventually("it is told", async || store.live("anna").await == ["p2"]).await;
    app.stop().await;
}

#[tokio::test]
async fn a_start_that_was_not_allowed_and_took_place_unheard_is_taken_back() {
    let store = FaultyStore::new();
    let plan = TestApp::plan()
        .outage(OutageRule::Deny)
        .store(store.clone());
    let app = plan.start().await;
    let api = Api::of(&app);
    store.fails_at("admit", Fault::LosesAnswers);
    api.put("anna", "p1", json!({}))
        .await
        .is_problem(503, "outage");
    store.fails(&Fault::None);
    eventually("it is taken back", async || {
        store.calls("release") > 0 && store.live("anna").await.is_empty()
    })
    .await;
    eventually("it can start again", async || {
        api.put("anna", "p1", json!({})).await.status == 201
    })
    .await;
    app.stop().await;
}

#[tokio::test]
async fn a_store_that_will_never_understand_is_503() {
    let store = FaultyStore::new();
    let app = TestApp::plan()
        .outage(OutageRule::Deny)
        .store(store.clone())
        .start()
        .await;
    let api = Api::of(&app);
    store.fails(&Fault::Errs(StoreError::Protocol("what?".to_owned())));
    let path = "/v1/users/anna/sessions/p1";
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let told = api.call(method, path, None).await;
        told.is_problem(503, "outage");
        assert_eq!(told.header("retry-after"), "1");
    }
    app.stop().await;
}

#[tokio::test]
async fn a_heartbeat_asks_the_store_once_and_is_never_answered_from_memory() {
    let store = FaultyStore::new();
    let app = TestApp::plan().store(store.clone()).start().await;
    let api = Api::of(&app);
    for n in 1..=5 {
        let told = api.put("anna", "p1", json!({})).await;
        assert_eq!(told.status, if n == 1 { 201 } else { 200 });
        assert_eq!((store.calls("admit"), store.calls("renew")), (n, 0));
    }
    app.stop().await;
}

#[tokio::test]
async fn a_heartbeat_is_not_refused_by_a_store_that_has_forgotten_its_session() {
    let clock = Arc::new(ManualClock::default());
    let store = FaultyStore::at(clock.clone());
    let plan = TestApp::plan().limit(1).clock(clock.clone());
    let app = plan.store(store.clone()).start().await;
    let api = Api::of(&app);
    assert_eq!(api.put("anna", "p1", json!({})).await.status, 201);
    // The heartbeat shows that it plays.
    clock.advance(PROVEN_AFTER);
    assert_eq!(api.put("anna", "p1", json!({})).await.status, 200);
    store.sound.forget(|_| true);
    elsewhere(&store, &streams::playback("p2")).await;
    let goes_on = api.put("anna", "p1", json!({"position": 7})).await;
    assert_eq!(
        (goes_on.status.as_u16(), &goes_on.body["active"]),
        (200, &json!(2))
    );
    assert_eq!(goes_on.body["position"], 7);
    app.stop().await;
}

#[tokio::test]
async fn through_a_long_outage_heartbeats_keep_the_slot_that_the_local_rule_counts() {
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_000_000)));
    let store = FaultyStore::at(clock.clone());
    let plan = TestApp::plan().limit(1).outage(OutageRule::Local);
    let app = plan.clock(clock.clone()).store(store.clone()).start().await;
    let api = Api::of(&app);
    assert_eq!(api.put("anna", "p1", json!({})).await.status, 201);
    store.fails(&Fault::LosesCalls);
    for turn in 0..8 {
        clock.advance(Duration::from_secs(9));
        let other = api.put("anna", "p2", json!({})).await;
        other.is_problem(429, "full");
        let goes_on = api.put("anna", "p1", json!({})).await;
        assert_eq!(goes_on.status, 200, "in turn {turn}: {goes_on:?}");
    }
    store.fails(&Fault::None);
    app.stop().await;
}
