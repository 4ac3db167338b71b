//! The HTTP doors over real HTTP: the release hook, the answers to probes and Prometheus, and the
//! form of errors.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what fails here fails its test"
)]

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};
use streamgate::clock::ManualClock;
use streamgate::config::OutageRule;
use streamgate::store::faulty::{Fault, FaultyStore};
use streamgate::store::{Shard, Store, StoreError};
use testkit::app::TestApp;
use testkit::gateway_client::{Check, periodic};
use testkit::streams;
use testkit::watch::eventually;

/// A release that is sent as JSON.
fn release(app: &TestApp) -> RequestBuilder {
    Client::new().post(app.url("/v1/release"))
}

/// The problem that an answer tells, with its status and media type checked.
async fn problem(answer: Response, status: u16) -> Value {
    assert_eq!(answer.status(), status, "{answer:?}");
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    assert_eq!(answer.headers()["cache-control"], "no-store");
    let told: Value = answer.json().await.unwrap();
    assert_eq!(told["status"], status, "{told}");
    let reason = told["reason"].as_str().unwrap();
    assert_eq!(told["type"], format!("/v1/problems#{reason}"));
    told
}

#[tokio::test]
async fn a_release_is_one_or_a_list_as_json_or_as_a_beacon_s_text() {
    let store = FaultyStore::new();
    let app = TestApp::plan().limit(1).store(store.clone()).start().await;
    let gateway = app.gateway().await;
    let one = json!({"user": "anna", "session": "p1"});
    let list = json!([one, {"user": "ben", "session": "p1", "kind": "playback"}]);
    for (media_type, body) in [
        (Some("application/json"), &one),
        (Some("application/json; charset=utf-8"), &list),
        (Some("Application/JSON"), &one),
        (Some("text/plain;charset=UTF-8"), &one),
        (Some("text/plain"), &list),
        (None, &one),
    ] {
        // A playback's id can't be used again once it has ended; so each turn has its own.
        let id = format!("p-{media_type:?}-{}", body.is_array());
        assert!(
            gateway
                .check(Check::of_playback("anna", &id))
                .await
                .is_allowed()
        );
        let body = body.to_string().replace("p1", &id.replace('"', "\\\""));
        let mut request = release(&app).body(body);
        if let Some(media_type) = media_type {
            request = request.header("content-type", media_type);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 204, "{media_type:?}");
        assert_eq!(store.live("anna").await, [""; 0], "{media_type:?}");
        let again = gateway.check(Check::of_playback("anna", &id)).await;
        assert_eq!(again.reason(), "ended");
    }
    let hook = app
        .metric("streamgate_releases_total{cause=\"hook\"}")
        .await;
    assert_eq!(hook, 6);
    app.stop().await;
}

#[tokio::test]
async fn a_release_can_be_repeated_and_may_name_an_unknown_session() {
    let app = TestApp::plan().start().await;
    for body in [
        json!({"user": "a", "session": "s"}),
        json!([]),
        json!([{"user": "a", "session": "s"}]),
    ] {
        for _ in 0..2 {
            let answer = release(&app).json(&body).send().await.unwrap();
            assert_eq!(answer.status(), 204);
            assert_eq!(answer.bytes().await.unwrap(), "");
        }
    }
}

#[tokio::test]
async fn a_vouched_end_of_a_request_is_proved_wrong_by_its_next_sign_of_life() {
    let store = FaultyStore::at(Arc::new(ManualClock::default()));
    let app = TestApp::plan().store(store.clone()).start().await;
    let gateway = app.gateway().await;
    let answer = gateway.check(Check::of("anna", "r1")).await;
    let body = json!({"user": "anna", "session": "r1", "kind": "request"});
    assert_eq!(
        release(&app).json(&body).send().await.unwrap().status(),
        204
    );
    assert_eq!(store.live("anna").await, [""; 0]);
    let mut log = gateway.access_log().await;
    log.send(vec![periodic("r1", &answer)]);
    eventually("it counts again", async || {
        store.live("anna").await == ["r1"]
    })
    .await;
    app.stop().await;
}

#[tokio::test]
async fn a_bad_request_gets_a_problem_and_changes_nothing() {
    let store = FaultyStore::new();
    let app = TestApp::plan().store(store.clone()).start().await;
    let good = json!({"user": "anna", "session": "p1"});
    for (body, reason) in [
        ("", "bad_request"),
        ("{", "bad_request"),
        ("null", "bad_request"),
        ("[null]", "bad_request"),
        ("{\"user\": \"\u{0}\", \"session\": \"s\"}", "bad_request"),
        ("{\"user\": 1, \"session\": \"s\"}", "bad_request"),
        ("{\"user\": \"a\", \"session\": \"s\"} x", "bad_request"),
        (
            &json!([good, {"user": "anna", "session": ""}]).to_string(),
            "bad_request",
        ),
        (&json!(vec![&good; 101]).to_string(), "bad_request"),
    ] {
        let sent = release(&app).body(body.to_owned()).send().await.unwrap();
        assert_eq!(problem(sent, 400).await["reason"], reason, "{body}");
    }
    let sent = release(&app).body(&b"{\"user\": \"\xff\", \"session\": \"s\"}"[..]);
    problem(sent.send().await.unwrap(), 400).await;
    let deep = "[".repeat(100_000);
    problem(release(&app).body(deep).send().await.unwrap(), 400).await;
    let huge = release(&app).body(" ".repeat(512 * 1024 + 1));
    let told = problem(huge.send().await.unwrap(), 413).await;
    assert_eq!(told["reason"], "too_large");
    for media_type in ["application/xml", "multipart/form-data", "", "text/plainer"] {
        let sent = release(&app).body(good.to_string());
        let sent = sent
            .header("content-type", media_type)
            .send()
            .await
            .unwrap();
        let told = problem(sent, 415).await;
        assert_eq!(told["reason"], "unsupported_media_type", "{media_type}");
    }
    assert_eq!(store.calls("release"), 0);
    app.stop().await;
}

#[tokio::test]
async fn an_unknown_address_is_404_and_an_unknown_method_405_with_those_that_are_known() {
    let app = TestApp::plan().start().await;
    let client = Client::new();
    for path in [
        "/v1",
        "/v1/release/",
        "/v1/release/x",
        "/readyz/",
        "/METRICS",
        "/%ff",
    ] {
        let told = problem(client.get(app.url(path)).send().await.unwrap(), 404).await;
        assert_eq!(told["reason"], "not_found", "{path}");
    }
    for (method, path, allowed) in [
        (Method::GET, "/v1/release", "POST,OPTIONS"),
        (Method::DELETE, "/v1/release", "POST,OPTIONS"),
        (Method::POST, "/livez", "GET,HEAD,OPTIONS"),
        (Method::PUT, "/readyz", "GET,HEAD,OPTIONS"),
        (Method::DELETE, "/metrics", "GET,HEAD,OPTIONS"),
    ] {
        let sent = client
            .request(method.clone(), app.url(path))
            .send()
            .await
            .unwrap();
        assert_eq!(sent.headers()["allow"], allowed, "{method} {path}");
        assert_eq!(problem(sent, 405).await["reason"], "method_not_allowed");
    }
    for path in ["/livez", "/readyz", "/metrics"] {
        let head = client.head(app.url(path)).send().await.unwrap();
        let got = client.get(app.url(path)).send().await.unwrap();
        assert_eq!(head.status(), 200, "{path}");
        assert_eq!(
            head.headers()["content-type"],
            got.headers()["content-type"]
        );
        assert_eq!(head.bytes().await.unwrap(), "", "{path}");
    }
    app.stop().await;
}

#[tokio::test]
async fn a_release_in_an_outage_is_accepted_and_done_once_the_store_is_back() {
    for (rule, word) in [
        (OutageRule::Allow, "allow"),
        (OutageRule::Deny, "deny"),
        (OutageRule::Local, "local"),
    ] {
        let store = FaultyStore::new();
        let plan = TestApp::plan().outage(rule).store(store.clone());
        let app = plan.start().await;
        let gateway = app.gateway().await;
        for id in ["p1", "p2"] {
            let check = Check::of_playback("anna", id);
            assert!(gateway.check(check).await.is_allowed());
        }
        store.fails(&Fault::LosesCalls);
        let list = json!([
            {"user": "anna", "session": "p1"},
            {"user": "anna", "session": "unknown"},
        ]);
        for _ in 0..3 {
            let sent = release(&app).json(&list).send().await.unwrap();
            assert_eq!(sent.status(), 202);
        }
        let ready = app.get("/readyz").await;
        assert_eq!(ready.status(), 200);
        let told: Value = ready.json().await.unwrap();
        assert_eq!(
            (&told["ready"], &told["phase"]),
            (&json!(true), &json!("serving"))
        );
        let store_told = &told["store"];
        let trouble = store_told["trouble"].as_str().unwrap();
        assert!(trouble.contains("no answer within 50ms"), "{told}");
        assert_eq!(store_told["outage_rule"], word, "{told}");
        assert_eq!(app.metric("streamgate_store_up").await, 0);
        let in_force = format!("streamgate_outage_rule{{rule=\"{word}\"}}");
        assert_eq!(app.metric(&in_force).await, 1);
        assert_eq!(store.live("anna").await, ["p1", "p2"]);
        store.fails(&Fault::None);
        eventually("it is released", async || {
            store.live("anna").await == ["p2"]
        })
        .await;
        let sent = release(&app).json(&list).send().await.unwrap();
        assert_eq!(sent.status(), 204);
        let told: Value = app.get("/readyz").await.json().await.unwrap();
        assert_eq!(told["store"], json!({"up": true}));
        assert_eq!(app.metric("streamgate_store_up").await, 1);
        assert_eq!(app.metric(&in_force).await, 0);
        app.stop().await;
    }
}

#[tokio::test]
async fn the_shards_that_are_out_are_named_and_the_instance_stays_ready() {
    let masters = [1, 2, 3].map(|number| Shard::master(&format!("10.0.0.{number}:6379")));
    let store = FaultyStore::new();
    store.is_owned_by(&masters);
    let below = Arc::clone(&store);
    let app = TestApp::plan()
        .limit(2)
        .outage(OutageRule::Deny)
        .store(below);
    let app = app.start().await;
    let gateway = app.gateway().await;
    let store_told = async || {
        let ready = app.get("/readyz").await;
        assert_eq!(ready.status(), 200);
        let told: Value = ready.json().await.unwrap();
        assert_eq!(told["ready"], true, "{told}");
        told["store"].clone()
    };
    let all_well = json!({"up": true, "shards": {"known": 3, "up": 3, "troubles": []}});
    eventually("all shards answer", async || store_told().await == all_well).await;
    store.shard_fails(&masters[1], Fault::LosesCalls);
    let users: Vec<String> = (0..60).map(|number| format!("user-{number}")).collect();
    for user in &users {
        let answer = gateway.check(Check::of_playback(user, "p1")).await;
        let is_out = store.shard_of(&streams::user(user)) == masters[1];
        assert_eq!(answer.is_allowed(), !is_out, "{user}");
    }
    let told = store_told().await;
    assert_eq!(
        (&told["up"], &told["outage_rule"]),
        (&json!(true), &json!("deny"))
    );
    let troubles = json!([{"shard": "10.0.0.2:6379", "trouble": "no answer within 50ms"}]);
    let shards = json!({"known": 3, "up": 2, "troubles": troubles});
    assert_eq!(told["shards"], shards);
    assert!(told["trouble"].as_str().unwrap().contains("10.0.0.2:6379"));
    for (metric, value) in [
        ("streamgate_store_up", 1),
        ("streamgate_store_shards ", 3),
        ("streamgate_store_shards_out", 1),
    ] {
        assert_eq!(app.metric(metric).await, value, "{metric}");
    }
    store.shard_fails(&masters[1], Fault::None);
    eventually("all shards answer", async || store_told().await == all_well).await;
    for user in &users {
        let answer = gateway.check(Check::of_playback(user, "p2")).await;
        assert!(answer.is_allowed(), "{user}");
    }
    app.stop().await;
}

#[tokio::test]
async fn a_release_that_the_store_will_never_understand_is_503() {
    let store = FaultyStore::new();
    let app = TestApp::plan().store(store.clone()).start().await;
    let error = StoreError::Protocol("what?".to_owned());
    store.fails_at("release", Fault::Errs(error));
    let body = json!({"user": "anna", "session": "p1"});
    let sent = release(&app).json(&body).send().await.unwrap();
    assert_eq!(sent.headers()["retry-after"], "1");
    assert_eq!(problem(sent, 503).await["reason"], "outage");
    app.stop().await;
}

#[tokio::test]
async fn readiness_ends_with_the_first_request_to_stop_and_liveness_does_not() {
    let grace = Duration::from_secs(10);
    let app = TestApp::plan().drain(grace, grace * 2).start().await;
    assert_eq!(app.get("/livez").await.status(), 200);
    app.ask_to_stop();
    eventually("it isn't ready", async || {
        app.get("/readyz").await.status() == 503
    })
    .await;
    let told: Value = app.get("/readyz").await.json().await.unwrap();
    assert_eq!(
        (&told["ready"], &told["phase"]),
        (&json!(false), &json!("draining"))
    );
    assert_eq!(app.get("/livez").await.status(), 200);
    app.cut_short();
    assert!(app.stopped().await.is_err(), "it was cut short");
}

#[tokio::test]
async fn metrics_are_in_the_text_format_and_name_nobody() {
    let app = TestApp::plan().limit(0).start().await;
    let gateway = app.gateway().await;
    gateway
        .check(Check::of("anna-the-user", "r1-the-session"))
        .await;
    let metrics = app.get("/metrics").await;
    assert_eq!(
        metrics.headers()["content-type"],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let text = metrics.text().await.unwrap();
    for series in [
        "# TYPE streamgate_checks_total counter",
        "streamgate_checks_total{decision=\"deny\",reason=\"full\"} 1",
        "streamgate_check_duration_seconds_bucket{le=\"+Inf\"} 1",
        "streamgate_check_duration_seconds_count 1",
        "streamgate_store_requests_total{operation=\"admit\",outcome=\"ok\"} 1",
        "streamgate_store_up 1",
        "streamgate_build_info{version=",
        "streamgate_access_log_entries_total{type=\"end\",outcome=\"release\"} 0",
        "streamgate_releases_total{cause=\"access_log\"} 0",
    ] {
        assert!(text.contains(series), "no {series} in {text}");
    }
    assert!(!text.contains("anna") && !text.contains("r1-the"), "{text}");
    app.stop().await;
}
