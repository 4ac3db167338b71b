//! Calls at the same time, and clients that hang up.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::{Client, Method};
use serde_json::json;
use streamgate::clock::ManualClock;

use streamgate::store::faulty::FaultyStore;
use testkit::api::{Api, on_both};
use testkit::app::TestApp;
use testkit::gateway_client::Check;
use testkit::watch::eventually;

#[tokio::test]
async fn a_playback_of_the_api_and_of_the_gateway_is_the_same_one() {
    on_both(async |plan| {
        let app = plan.limit(1).start().await;
        let (api, gateway) = (Api::of(&app), app.gateway().await);
        assert_eq!(
            api.put("anna", "p1", json!({"position": 5})).await.status,
            201
        );
        for _ in 0..2 {
            let check = Check::of_playback("anna", "p1").header("x-device-id", "tv");
            assert!(gateway.check(check).await.is_allowed());
        }
        assert_eq!(
            gateway
                .check(Check::of_playback("anna", "p2"))
                .await
                .reason(),
            "full"
        );
        // A client that returns over the API finds what the gateway reported, and reports what the
        // gateway can't.
        let goes_on = api.put("anna", "p1", json!({"position": 9})).await;
        assert_eq!(
            (goes_on.status.as_u16(), &goes_on.body["active"]),
            (200, &json!(1))
        );
        assert_eq!(
            (&goes_on.body["device"], &goes_on.body["position"]),
            (&json!("tv"), &json!(9))
        );
        assert_eq!(
            api.get("/v1/users/anna/sessions/p1").await.body["position"],
            9
        );
        api.delete("/v1/users/anna/sessions/p1").await;
        assert_eq!(
            gateway
                .check(Check::of_playback("anna", "p1"))
                .await
                .reason(),
            "ended"
        );
        app.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_hundred_starts_of_one_playback_at_once_one_starts_it() {
    on_both(async |plan| {
        let app = plan.start().await;
        let api = Api::of(&app);
        let told = join_all((0..200).map(|_| api.put("anna", "p1", json!({})))).await;
        let mut counted = HashMap::new();
        for told in &told {
            *counted.entry(told.status.as_u16()).or_insert(0) += 1;
            assert_eq!(told.body["active"], 1, "{told:?}");
        }
        assert_eq!(counted, HashMap::from([(201, 1), (200, 199)]));
        app.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn takeovers_that_race_are_bounded_and_leave_as_many_live_as_the_limit() {
    on_both(async |plan| {
        let app = plan.limit(3).start().await;
        let api = Api::of(&app);
        let takeovers = (0..100).map(async |number| {
            let id = format!("p{number}");
            let told = api.put("anna", &id, json!({"takeover": "oldest"})).await;
            assert!(told.body["active"].as_u64() <= Some(3), "{told:?}");
            assert!(api.live("anna").await.len() <= 3);
            if told.status == 201 {
                return 1;
            }
            told.is_problem(429, "full");
            assert!(told.headers.contains_key("retry-after"), "{told:?}");
            0
        });
        let started: usize = join_all(takeovers).await.into_iter().sum();
        // Three find a slot, and three and five may displace.
        assert_eq!(started, 3 + 3 + 5);
        assert_eq!(api.live("anna").await.len(), 3);
        app.stop().await;
    })
    .await;
}

#[tokio::test]
async fn who_hangs_up_cuts_nothing_off_and_an_app_that_stops_waits_for_it() {
    let store = FaultyStore::at(Arc::new(ManualClock::default()));
    let app = TestApp::plan().store(store.clone()).start().await;
    store.hold();
    let put = Client::new().put(app.url("/v1/users/anna/sessions/p1"));
    let sent = put.timeout(Duration::from_millis(100)).send().await;
    assert!(sent.is_err_and(|error| error.is_timeout()));
    store.asked("admit", 1).await;
    app.ask_to_stop();
    tokio::time::sleep(Duration::from_millis(100)).await;
    store.let_go();
    app.stop().await;
    assert_eq!(
        store.live("anna").await,
        ["p1"],
        "it has started, and stays"
    );
}

#[tokio::test]
async fn a_hook_s_list_is_done_to_its_end_though_its_client_has_hung_up() {
    let store = FaultyStore::new();
    let app = TestApp::plan().limit(50).store(store.clone()).start().await;
    let api = Api::of(&app);
    let mut list = Vec::new();
    for number in 0..20 {
        let id = format!("p{number}");
        assert_eq!(api.put("anna", &id, json!({})).await.status, 201);
        list.push(json!({"user": "anna", "session": id}));
    }
    store.hold();
    let hook = api.request(Method::POST, "/v1/release").json(&list).send();
    let hung_up = tokio::time::timeout(Duration::from_secs(20), async {
        tokio::select! {
            answer = hook => panic!("{answer:?} came too early"),
            () = store.asked("release", 1) => {}
        }
    });
    hung_up.await.expect("the first is asked for");
    store.let_go();
    eventually("all are released", async || {
        store.live("anna").await.is_empty()
    })
    .await;
    app.stop().await;
}
