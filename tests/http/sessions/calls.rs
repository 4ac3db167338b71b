//! Each call and each of its answers.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use streamgate::config::Shown;
use streamgate::identity::Kind;

use streamgate::store::faulty::FaultyStore;
use testkit::api::{Api, on_both};
use testkit::app::TestApp;
use testkit::gateway_client::{Check, periodic};
use testkit::streams;
use testkit::watch::eventually;

use super::elsewhere;

#[tokio::test]
async fn a_playback_starts_goes_on_is_seen_and_is_released() {
    on_both(async |plan| {
        let app = plan.start().await;
        let api = Api::of(&app);
        let facts = json!({"device": "tv", "content": "film 7", "position": 12});
        let started = api.put("anna", "p1", facts).await;
        assert_eq!(started.status, 201, "{started:?}");
        assert_eq!(started.header("ratelimit"), "\"streams\";r=2");
        let policy = "\"streams\";q=3;qu=\"concurrent-requests\"";
        assert_eq!(started.header("ratelimit-policy"), policy);
        assert_eq!(started.header("content-type"), "application/json");
        let (began, ends) = (&started.body["started_at"], &started.body["expires_at"]);
        assert!(began.as_str() < ends.as_str(), "{started:?}");
        let mut expected = json!({
            "session": "p1", "kind": "playback", "device": "tv", "content": "film 7", "position": 12,
            "started_at": began, "expires_at": ends, "renew_after_seconds": 10, "active": 1, "limit": 3,
        });
        assert_eq!(started.body, expected);
        // A few milliseconds, so that the times differ.
        tokio::time::sleep(Duration::from_millis(5)).await;
        let goes_on = api.put("anna", "p1", json!({"position": 22})).await;
        assert_eq!(goes_on.status, 200, "{goes_on:?}");
        assert_eq!(goes_on.header("ratelimit"), "\"streams\";r=2");
        assert_eq!(goes_on.header("ratelimit-policy"), policy);
        assert!(goes_on.body["expires_at"].as_str() > ends.as_str(), "{goes_on:?}");
        expected["position"] = json!(22);
        expected["expires_at"] = goes_on.body["expires_at"].clone();
        assert_eq!(goes_on.body, expected);
        let path = "/v1/users/anna/sessions/p1";
        for told in ["renew_after_seconds", "active", "limit"] {
            expected.as_object_mut().expect("an object").remove(told);
        }
        assert_eq!(api.get(path).await.body, expected);
        let head = api.call(Method::HEAD, path, None).await;
        assert_eq!((head.status.as_u16(), head.header("content-type")), (200, "application/json"));
        let all = api.get("/v1/users/anna/sessions").await;
        let expected = json!({"user": "anna", "limit": 3, "active": 1, "can_start": true, "sessions": [expected]});
        assert_eq!((all.status.as_u16(), all.body), (200, expected));
        for _ in 0..2 {
            let released = api.delete(path).await;
            assert_eq!((released.status.as_u16(), released.body), (204, Value::Null));
        }
        api.get(path).await.is_problem(404, "not_live");
        assert!(api.live("anna").await.is_empty());
        let gone = api.put("anna", "p1", json!({})).await;
        gone.is_problem(410, "ended");
        assert_eq!((gone.header("retry-after"), gone.header("ratelimit")), ("", ""));
        assert_eq!(gone.body.get("displaced_by"), None);
        assert_eq!(app.metric("streamgate_releases_total{cause=\"hook\"}").await, 1);
        app.stop().await;
    })
    .await;
}

#[tokio::test]
async fn an_id_that_is_made_here_is_where_the_answer_says() {
    on_both(async |plan| {
        let app = plan.limit(2).start().await;
        let api = Api::of(&app);
        let mut ids = Vec::new();
        for (user, escaped) in [
            ("anna", "anna"),
            ("anna", "anna"),
            ("b/é ?", "b%2F%C3%A9%20%3F"),
        ] {
            let path = format!("/v1/users/{escaped}/sessions");
            let told = api
                .call(Method::POST, &path, Some(json!({"device": "tv"})))
                .await;
            assert_eq!(
                (told.status.as_u16(), &told.body["device"]),
                (201, &json!("tv"))
            );
            let id = told.body["session"].as_str().expect("an id").to_owned();
            assert!(
                id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()),
                "{id}"
            );
            assert_eq!(told.header("location"), format!("{path}/{id}"));
            let again = api.call(Method::PUT, told.header("location"), None).await;
            assert_eq!(
                (again.status.as_u16(), &again.body["device"]),
                (200, &json!("tv"))
            );
            assert_eq!(api.get(&path).await.body["user"], user);
            ids.push(id);
        }
        assert_ne!(ids[0], ids[1]);
        let full = api
            .call(Method::POST, "/v1/users/anna/sessions", None)
            .await;
        full.is_problem(429, "full");
        assert_eq!(full.header("location"), "");
        app.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_full_limit_is_told_with_who_holds_it_and_what_to_do() {
    on_both(async |plan| {
        let plan = plan.limit(1).limit_of_plan("gold", 2);
        let app = plan.show(&[Shown::Session, Shown::Device]).start().await;
        let api = Api::of(&app);
        api.put("anna", "p1", json!({"device": "tv", "content": "film"}))
            .await;
        let all = api.get("/v1/users/anna/sessions").await;
        assert_eq!(all.body["can_start"], false);
        let full = api.put("anna", "p2", json!({"plan": "unknown"})).await;
        full.is_problem(429, "full");
        assert_eq!(
            full.body["sessions"],
            json!([{"session": "p1", "device": "tv"}])
        );
        assert_eq!(
            (&full.body["limit"], &full.body["active"]),
            (&json!(1), &json!(1))
        );
        assert_eq!(full.header("ratelimit"), "\"streams\";r=0");
        assert_eq!(
            full.header("ratelimit-policy"),
            "\"streams\";q=1;qu=\"concurrent-requests\""
        );
        let seconds: u64 = full.header("retry-after").parse().expect("seconds");
        assert!((1..=10).contains(&seconds), "{seconds}");
        let gold = api.put("anna", "p2", json!({"plan": "gold"})).await;
        assert_eq!(
            (gold.status.as_u16(), &gold.body["limit"]),
            (201, &json!(2))
        );
        assert_eq!(gold.header("ratelimit"), "\"streams\";r=0");
        // A stream above the limit continues.
        let first = api.put("anna", "p1", json!({})).await;
        assert_eq!(
            (first.status.as_u16(), &first.body["active"]),
            (200, &json!(2))
        );
        assert_eq!(first.header("ratelimit"), "\"streams\";r=0");
        app.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_displaced_session_is_refused_at_its_next_request() {
    on_both(async |plan| {
        let app = plan.limit(2).start().await;
        let (api, gateway) = (Api::of(&app), app.gateway().await);
        for id in ["p1", "p2"] {
            assert_eq!(api.put("anna", id, json!({})).await.status, 201);
            assert!(
                gateway
                    .check(Check::of_playback("anna", id))
                    .await
                    .is_allowed()
            );
        }
        for (id, takeover, displaced) in [("p3", "p2", "p2"), ("p4", "oldest", "p1")] {
            let took = api.put("anna", id, json!({"takeover": takeover})).await;
            assert_eq!(
                (took.status.as_u16(), &took.body["active"]),
                (201, &json!(2))
            );
            let refused = gateway.check(Check::of_playback("anna", displaced)).await;
            assert_eq!((refused.http, refused.reason()), (429, "displaced"));
            let gone = api
                .put("anna", displaced, json!({"takeover": "oldest"}))
                .await;
            gone.is_problem(410, "displaced");
            let by = json!({"session": id, "kind": "playback"});
            assert_eq!(gone.body["displaced_by"], by);
        }
        assert_eq!(api.live("anna").await, ["p3", "p4"]);
        // No stream gives way to one that is in already, or while there is room, or for a session
        // that doesn't exist.
        assert_eq!(
            api.put("anna", "p3", json!({"takeover": "p4"}))
                .await
                .status,
            200
        );
        api.put("anna", "p5", json!({"takeover": "p9"}))
            .await
            .is_problem(429, "full");
        api.delete("/v1/users/anna/sessions/p3").await;
        assert_eq!(
            api.put("anna", "p5", json!({"takeover": "p4"}))
                .await
                .status,
            201
        );
        assert_eq!(api.live("anna").await, ["p4", "p5"]);
        app.stop().await;
    })
    .await;
}

#[tokio::test]
async fn what_runs_inside_the_gateway_is_neither_taken_over_nor_ended() {
    on_both(async |plan| {
        let app = plan.limit(2).start().await;
        let (api, gateway) = (Api::of(&app), app.gateway().await);
        let running = gateway.check(Check::of("anna", "r1")).await;
        assert!(running.is_allowed());
        assert_eq!(api.put("anna", "p1", json!({})).await.status, 201);
        let refused = api.put("anna", "p2", json!({"takeover": "r1"})).await;
        refused.is_problem(409, "not_stoppable");
        let (request, playback) = (
            json!({"session": "r1", "kind": "request"}),
            json!({"session": "p1", "kind": "playback"}),
        );
        for ended in [json!([playback]), json!([])] {
            let told = api.delete("/v1/users/anna/sessions").await;
            let expected = json!({"ended": ended, "not_stoppable": [request]});
            assert_eq!((told.status.as_u16(), told.body), (200, expected));
        }
        assert_eq!(
            app.metric("streamgate_releases_total{cause=\"operator\"}")
                .await,
            1
        );
        api.put("anna", "p1", json!({}))
            .await
            .is_problem(410, "operator");
        let path = "/v1/users/anna/sessions/r1";
        api.get(path).await.is_problem(404, "not_live");
        assert_eq!(
            api.delete(path).await.status,
            204,
            "a playback that nobody knows"
        );
        let of_request = format!("{path}?kind=request");
        assert_eq!(api.get(&of_request).await.body["kind"], "request");
        // The next sign of life refutes a caller that reported its end.
        for _ in 0..2 {
            assert_eq!(api.delete(&of_request).await.status, 204);
            api.get(&of_request).await.is_problem(404, "not_live");
        }
        let mut log = gateway.access_log().await;
        log.send(vec![periodic("r1", &running)]);
        eventually("it counts again", async || api.live("anna").await == ["r1"]).await;
        app.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_takeover_finds_a_video_by_its_id_too() {
    let store = FaultyStore::new();
    let app = TestApp::plan().limit(1).store(store.clone()).start().await;
    elsewhere(&store, &streams::key(Kind::Video, "film")).await;
    let told = Api::of(&app)
        .put("anna", "p1", json!({"takeover": "film"}))
        .await;
    assert_eq!(
        (told.status.as_u16(), &told.body["active"]),
        (201, &json!(1))
    );
    assert_eq!(store.live("anna").await, ["p1"]);
    app.stop().await;
}
