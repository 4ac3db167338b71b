//! The limit of one user: set, shown, removed, and what starts make of it.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use streamgate::clock::{Clock, SystemClock};
use streamgate::config::OutageRule;
use streamgate::problem::rfc3339;

use streamgate::store::faulty::{Fault, FaultyStore};
use testkit::api::{Api, Told, on_both};
use testkit::app::TestApp;

/// Anna's limit.
const LIMIT: &str = "/v1/users/anna/limit";

/// Sets anna's limit.
async fn set(api: &Api<'_>, body: Value) -> Told {
    api.call(Method::PUT, LIMIT, Some(body)).await
}

/// A time, so far from now.
fn in_hours(hours: i64) -> String {
    let span = Duration::from_secs(hours.unsigned_abs() * 3600);
    let now = SystemClock::start().now();
    rfc3339(if hours < 0 {
        now.before(span)
    } else {
        now.after(span)
    })
}

#[tokio::test]
async fn a_limit_is_set_shown_and_removed_by_its_own_calls() {
    on_both(async |plan| {
        let app = plan.limit(1).limit_of_plan("gold", 4).start().await;
        let api = Api::of(&app);
        let configured = json!({"user": "anna", "limit": 1, "source": "default", "configured": 1});
        assert_eq!(api.get(LIMIT).await.body, configured);
        let gold = api.get(&format!("{LIMIT}?plan=gold")).await.body;
        assert_eq!(
            (&gold["limit"], &gold["source"]),
            (&json!(4), &json!("plan"))
        );

        let told = set(&api, json!({"limit": 2, "expires_in_seconds": 3600})).await;
        assert_eq!(told.status, 201, "{told:?}");
        assert_eq!(told.header("cache-control"), "no-store");
        assert_eq!(told.body["limit"], 2);
        assert!(told.body["expires_at"].as_str() > Some(&*in_hours(0)));
        assert_eq!(api.get(LIMIT).await.body, told.body);
        let on_gold = api.get(&format!("{LIMIT}?plan=gold")).await.body;
        assert_eq!(
            (
                &on_gold["limit"],
                &on_gold["source"],
                &on_gold["configured"]
            ),
            (&json!(2), &json!("override"), &json!(4))
        );

        let until = in_hours(90 * 24 - 1);
        let changed = set(&api, json!({"limit": 0, "expires_at": until})).await;
        assert_eq!(changed.status, 200, "{changed:?}");
        for _ in 0..2 {
            assert_eq!(api.delete(LIMIT).await.status, 204);
        }
        assert_eq!(api.get(LIMIT).await.body, configured);
        app.stop().await;
    })
    .await;
}

#[tokio::test]
async fn starts_and_lists_go_by_the_limit_that_was_set() {
    on_both(async |plan| {
        let app = plan.limit(1).start().await;
        let api = Api::of(&app);
        assert_eq!(set(&api, json!({"limit": 2})).await.status, 201);
        for (id, remaining) in [("p1", 1), ("p2", 0)] {
            let started = api.put("anna", id, json!({})).await;
            assert_eq!(
                (started.status.as_u16(), &started.body["limit"]),
                (201, &json!(2))
            );
            let policy = "\"streams\";q=2;qu=\"concurrent-requests\"";
            assert_eq!(started.header("ratelimit-policy"), policy);
            assert_eq!(
                started.header("ratelimit"),
                format!("\"streams\";r={remaining}")
            );
        }
        let refused = api.put("anna", "p3", json!({})).await;
        refused.is_problem(429, "full");
        assert_eq!(refused.body["limit"], 2);
        let policy = "\"streams\";q=2;qu=\"concurrent-requests\"";
        assert_eq!(refused.header("ratelimit-policy"), policy);
        let listed = api.get("/v1/users/anna/sessions").await.body;
        assert_eq!(
            (&listed["limit"], &listed["active"], &listed["can_start"]),
            (&json!(2), &json!(2), &json!(false))
        );
        // Nobody else's.
        assert_eq!(api.put("ben", "p1", json!({})).await.body["limit"], 1);

        assert_eq!(set(&api, json!({"limit": 0})).await.status, 200);
        let banned = api.put("anna", "p3", json!({"takeover": "oldest"})).await;
        banned.is_problem(429, "full");
        assert_eq!(
            (&banned.body["limit"], banned.header("retry-after")),
            (&json!(0), "")
        );
        assert_eq!(
            api.put("anna", "p1", json!({})).await.status,
            200,
            "it goes on"
        );

        assert_eq!(api.delete(LIMIT).await.status, 204);
        let full = api.put("anna", "p3", json!({})).await;
        assert_eq!(full.body["limit"], 1, "{full:?}");
        app.stop().await;
    })
    .await;
}

#[tokio::test]
async fn the_small_api_and_a_heartbeat_go_by_the_limit_that_was_set() {
    on_both(async |plan| {
        let app = plan.limit(1).start().await;
        let api = Api::of(&app);
        assert_eq!(set(&api, json!({"limit": 2})).await.status, 201);
        for (method, status) in [(Method::POST, 201), (Method::PATCH, 200)] {
            let told = Told::by(
                api.request(method, "/?id=film")
                    .basic_auth("anna", Some("")),
            )
            .await;
            assert_eq!(told.status, status, "{told:?}");
            assert_eq!(told.header("ratelimit"), "\"streams\";r=1");
        }
        let watch = api.request(Method::GET, "/?id=other");
        let told = Told::by(watch.basic_auth("anna", Some(""))).await;
        assert_eq!(told.body["canWatch"], true, "{told:?}");
        // It renews, and never starts, whatever the limit.
        let other = api.request(Method::PATCH, "/?id=other");
        let told = Told::by(other.basic_auth("anna", Some(""))).await;
        told.is_problem(404, "not_live");
        app.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_limit_that_cannot_be_set_says_why() {
    let store = FaultyStore::new();
    let app = TestApp::plan().store(store.clone()).start().await;
    let api = Api::of(&app);
    for (body, expected) in [
        (json!({}), "\"limit\" is missing"),
        (json!({"limit": 1001}), "0 to 1000"),
        (json!({"limit": 1, "expires_at": "soon"}), "a time in UTC"),
        (
            json!({"limit": 1, "expires_in_seconds": 7_776_001}),
            "90 days",
        ),
        (
            json!({"limit": 1, "expires_at": in_hours(-1)}),
            "later than now",
        ),
        (
            json!({"limit": 1, "expires_at": in_hours(91 * 24)}),
            "at most 90 days ahead",
        ),
        (json!({"limt": 1}), "unknown field `limt`"),
    ] {
        let told = set(&api, body.clone()).await;
        told.is_problem(400, "bad_request");
        let detail = told.body["detail"].as_str().unwrap_or_default();
        assert!(detail.contains(expected), "{body} gave {detail}");
    }
    for path in [
        "/v1/users/anna/limit?plan=a&plan=b",
        "/v1/users/anna/limit?x=1",
    ] {
        api.get(path).await.is_problem(400, "bad_request");
    }
    let csv = api
        .request(Method::PUT, LIMIT)
        .header("content-type", "text/csv");
    let told = Told::by(csv.body("limit\n1\n")).await;
    told.is_problem(415, "unsupported_media_type");
    let told = api.call(Method::POST, LIMIT, None).await;
    told.is_problem(405, "method_not_allowed");
    let viewer = api.with("x-streamgate-user", "anna");
    set(&viewer, json!({"limit": 9}))
        .await
        .is_problem(403, "forbidden");
    assert_eq!(store.calls("override_limit"), 0);
    app.stop().await;
}

#[tokio::test]
async fn in_an_outage_the_configured_limit_applies_and_the_other_is_unknown() {
    let store = FaultyStore::new();
    let plan = TestApp::plan().limit(1).outage(OutageRule::Local);
    let app = plan.store(store.clone()).start().await;
    let api = Api::of(&app);
    assert_eq!(set(&api, json!({"limit": 2})).await.status, 201);
    assert_eq!(api.put("anna", "p1", json!({})).await.status, 201);
    store.fails(&Fault::LosesCalls);
    let refused = api.put("anna", "p2", json!({})).await;
    refused.is_problem(429, "full");
    assert_eq!(refused.body["limit"], 1);
    for told in [
        set(&api, json!({"limit": 3})).await,
        api.get(LIMIT).await,
        api.delete(LIMIT).await,
    ] {
        told.is_problem(503, "outage");
    }
    store.fails(&Fault::None);
    app.stop().await;
}
