//! The HTTP API on sessions over real HTTP: each call and each of its answers, on the embedded store and on a Redis; what races leave behind;
//! and what an outage leads to.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use streamgate::clock::{ManualClock, Timestamp};
use streamgate::config::{OutageRule, Shown};
use streamgate::identity::{Kind, SessionKey};
use streamgate::session::{Admission, PROVEN_AFTER};
use streamgate::store::{Store, StoreError};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use streamgate::store::faulty::{Fault, FaultyStore};
use testkit::api::{Api, Told, on_both};
use testkit::app::TestApp;
use testkit::gateway_client::{Check, periodic};
use testkit::streams;
use testkit::streams::refusing;
use testkit::talk;
use testkit::watch::eventually;

/// The store was asked nothing.
fn was_not_asked(store: &FaultyStore) {
    for operation in ["admit", "renew", "release", "list"] {
        assert_eq!(store.calls(operation), 0, "{operation}");
    }
}

/// Anna starts that at another instance, as the only one she may.
async fn elsewhere(store: &FaultyStore, key: &SessionKey) {
    let (user, start) = (streams::user("anna"), streams::start(key));
    let started = store.sound.admit(&user, &start, &refusing(1)).await;
    assert!(matches!(started, Ok(Admission::Admitted(_))), "{started:?}");
}

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
        // Whoever is above the limit by now goes on.
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
async fn whose_slot_is_taken_over_hears_of_it_at_its_next_request() {
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
        // Nobody has to give way to who is in already, or where there is room, or for one that is not there.
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
        // Who vouches for its end is proved wrong by its next sign of life.
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

#[tokio::test]
async fn names_are_any_text_that_can_be_escaped() {
    on_both(async |plan| {
        let app = plan.start().await;
        let api = Api::of(&app);
        let longest = "x".repeat(256);
        for (escaped, name) in [
            ("a%2Fb", "a/b"),
            ("a%252Fb", "a%2Fb"),
            ("%F0%9F%93%BA%C3%A9", "📺é"),
            ("a+b%20c", "a+b c"),
            ("%7Bsession%7D", "{session}"),
            (&longest, &longest),
        ] {
            let told = api.put(escaped, escaped, json!({"device": name})).await;
            assert_eq!(
                (told.status.as_u16(), &told.body["session"]),
                (201, &json!(name))
            );
            assert_eq!(api.live(escaped).await, [name]);
            let path = format!("/v1/users/{escaped}/sessions/{escaped}");
            assert_eq!(api.get(&path).await.body["device"], name);
            assert_eq!(api.delete(&path).await.status, 204, "{name}");
            assert!(api.live(escaped).await.is_empty(), "{name}");
        }
        app.stop().await;
    })
    .await;
}

/// Sends a request whose path is left as it is, and returns the answer.
async fn unparsed(app: &TestApp, method: &str, path: &str) -> talk::Told {
    let url = app.url("");
    let address = url.strip_prefix("http://").expect("an address");
    let mut connection = TcpStream::connect(address).await.expect("it is open");
    let request = format!("{method} {path} HTTP/1.1\r\nhost: streamgate\r\n\r\n");
    let sent = connection.write_all(request.as_bytes()).await;
    sent.expect("it is sent");
    talk::hear(&mut connection).await.expect("an answer")
}

#[tokio::test]
async fn a_name_that_url_parsers_remove_is_refused_in_an_address_alone() {
    let app = TestApp::plan().start().await;
    for name in [".", "..", "%2E%2e", ".%2E", "%2e"] {
        for (methods, path) in [
            (
                &["GET", "POST", "DELETE"][..],
                format!("/v1/users/{name}/sessions"),
            ),
            (
                &["GET", "PUT", "DELETE"],
                format!("/v1/users/{name}/sessions/s"),
            ),
            (
                &["GET", "PUT", "DELETE"],
                format!("/v1/users/u/sessions/{name}"),
            ),
        ] {
            for method in methods {
                let told = unparsed(&app, method, &path).await;
                assert_eq!(told.status, 400, "{method} {path}: {}", told.body);
                assert!(told.body.contains("/v1/release"), "{}", told.body);
            }
        }
    }
    let told = unparsed(&app, "PUT", "/v1/users/.../sessions/.a").await;
    assert_eq!(told.status, 201, "{}", told.body);
    // The gateway may name a user so; the hook reaches what is theirs.
    let gateway = app.gateway().await;
    let played = gateway.check(Check::of_playback("..", ".")).await;
    assert!(played.is_allowed(), "{played:?}");
    let ended = json!({"user": "..", "session": "."});
    let told = Api::of(&app)
        .call(Method::POST, "/v1/release", Some(ended))
        .await;
    assert_eq!(told.status, 204);
    let again = gateway.check(Check::of_playback("..", ".")).await;
    assert_eq!(again.reason(), "ended");
}

#[tokio::test]
async fn an_address_that_names_nobody_is_told_what_is_wrong_with_it() {
    let store = FaultyStore::new();
    let app = TestApp::plan().store(store.clone()).start().await;
    let api = Api::of(&app);
    let long = "x".repeat(257);
    for name in ["%ff", "a%00b", "%0A", "%7F", "%C2%85", &long] {
        for path in [
            format!("/v1/users/{name}/sessions"),
            format!("/v1/users/{name}/sessions/s"),
            format!("/v1/users/u/sessions/{name}"),
        ] {
            for method in [Method::GET, Method::DELETE] {
                api.call(method, &path, None)
                    .await
                    .is_problem(400, "bad_request");
            }
            let starts = if path.ends_with("/sessions") {
                Method::POST
            } else {
                Method::PUT
            };
            api.call(starts, &path, None)
                .await
                .is_problem(400, "bad_request");
        }
    }
    api.get("/v1/users//sessions")
        .await
        .is_problem(400, "bad_request");
    for query in ["kind=", "kind=film", "knd=video", "kind=video&kind=video"] {
        let path = format!("/v1/users/u/sessions/s?{query}");
        for method in [Method::GET, Method::PUT, Method::DELETE] {
            api.call(method, &path, None)
                .await
                .is_problem(400, "bad_request");
        }
    }
    for (method, path) in [
        (Method::GET, "/v1/users/u/sessions?kind=video"),
        (Method::POST, "/v1/users/u/sessions?kind=video"),
        (Method::DELETE, "/v1/users/u/sessions?kind=video"),
        (Method::POST, "/v1/release?kind=video"),
    ] {
        let told = api.call(method, path, None).await;
        told.is_problem(400, "bad_request");
        let detail = told.body["detail"].as_str().expect("a text");
        assert!(
            detail.contains("\"kind\" is unknown; allowed: none"),
            "{detail}"
        );
    }
    let of_video = "/v1/users/u/sessions/s?kind=video";
    api.call(Method::PUT, of_video, None)
        .await
        .is_problem(400, "bad_request");
    was_not_asked(&store);
    app.stop().await;
}

#[tokio::test]
async fn a_body_that_is_wrong_is_told_where() {
    let store = FaultyStore::new();
    let app = TestApp::plan().store(store.clone()).start().await;
    let api = Api::of(&app);
    let long = "x".repeat(257);
    let path = "/v1/users/u/sessions/s";
    for (body, named) in [
        (json!({"devise": "tv"}), "devise"),
        (json!({"device": 7}), "device"),
        (json!({"content": ["film"]}), "content"),
        (json!({"plan": {}}), "plan"),
        (json!({"position": "1:00"}), "position"),
        (json!({"position": -1}), "position"),
        (json!({"position": 1.5}), "position"),
        (json!({"takeover": ["p1"]}), "takeover"),
        (json!({"takeover": long}), "takeover"),
        (json!([]), "object"),
        (json!("p1"), "object"),
    ] {
        for (method, path) in [(Method::PUT, path), (Method::POST, "/v1/users/u/sessions")] {
            let told = api.call(method, path, Some(body.clone())).await;
            told.is_problem(400, "bad_request");
            let detail = told.body["detail"].as_str().expect("a text");
            assert!(detail.contains(named), "{body}: {detail}");
        }
    }
    was_not_asked(&store);
    app.stop().await;
}

#[tokio::test]
async fn a_fact_that_is_only_shown_stops_no_stream_and_is_counted() {
    let app = TestApp::plan().limit(1000).start().await;
    let api = Api::of(&app);
    let (long, path) = ("ä".repeat(200), "/v1/users/u/sessions");
    let cut = format!("{}…", "ä".repeat(126));
    // Half of a character, as a script leaves it that cuts a text at a number of UTF-16 units.
    let half = br#"{"device": "tv \ud83d", "content": "film"}"#.to_vec();
    let body = |json: Value| json.to_string().into_bytes();
    for (n, (body, device, content)) in [
        (
            body(json!({"device": long, "content": "film"})),
            Some(&*cut),
            Some("film"),
        ),
        (
            body(json!({"device": "tv", "content": "a\nb"})),
            Some("tv"),
            None,
        ),
        (half, None, Some("film")),
        (b"{\"device\": \"\xff\"}".to_vec(), None, None),
        (body(json!({"device": "", "content": null})), None, None),
    ]
    .into_iter()
    .enumerate()
    {
        let own = format!("{path}/s{n}");
        for (method, path) in [(Method::PUT, &*own), (Method::POST, path)] {
            let request = api.client.request(method, app.url(path));
            let request = request.header("content-type", "application/json");
            let told = Told::by(request.body(body.clone())).await;
            assert_eq!(told.status, 201, "{:?}", told.body);
            assert_eq!(told.body["device"].as_str(), device);
            assert_eq!(told.body["content"].as_str(), content);
        }
    }
    for (fact, loss, times) in [
        ("device", "shortened", 2),
        ("device", "left_out", 4),
        ("content", "shortened", 0),
        ("content", "left_out", 2),
    ] {
        let series = format!("streamgate_facts_lost_total{{fact=\"{fact}\",loss=\"{loss}\"}}");
        assert_eq!(app.metric(&series).await, times, "{series}");
    }
    app.stop().await;
}

#[tokio::test]
async fn a_body_is_json_and_called_so_and_not_too_large() {
    let store = FaultyStore::new();
    let app = TestApp::plan().store(store.clone()).start().await;
    let api = Api::of(&app);
    let path = "/v1/users/u/sessions/s";
    let put = |media_type: &'static str, body: Vec<u8>| {
        let request = api.client.put(app.url(path)).body(body);
        Told::by(request.header("content-type", media_type))
    };
    put("application/json", b"{\"takeover\": \"\xff\"}".to_vec())
        .await
        .is_problem(400, "bad_request");
    put("application/json", b"{".to_vec())
        .await
        .is_problem(400, "bad_request");
    put("application/json", vec![b' '; 512 * 1024 + 1])
        .await
        .is_problem(413, "too_large");
    for media_type in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/xml",
        "",
    ] {
        put(media_type, b"{}".to_vec())
            .await
            .is_problem(415, "unsupported_media_type");
    }
    was_not_asked(&store);
    // No body at all has no type that could be wrong.
    assert_eq!(put("text/plain", Vec::new()).await.status, 201);
    assert_eq!(
        put("Application/JSON; charset=utf-8", b"{}".to_vec())
            .await
            .status,
        200
    );
    app.stop().await;
}

#[tokio::test]
async fn a_method_that_an_address_does_not_know_is_405_with_those_that_it_does() {
    let app = TestApp::plan().start().await;
    let api = Api::of(&app);
    let (all, one) = ("/v1/users/anna/sessions", "/v1/users/anna/sessions/p1");
    let (known, known_of_one) = (
        "GET,HEAD,POST,DELETE,OPTIONS",
        "GET,HEAD,PUT,DELETE,OPTIONS",
    );
    for (method, path, allowed) in [
        (Method::PUT, all, known),
        (Method::POST, one, known_of_one),
        (Method::PATCH, one, known_of_one),
        (Method::GET, "/v1/release", "POST,OPTIONS"),
        (Method::DELETE, "/v1/sessions", "GET,HEAD,OPTIONS"),
        (Method::PUT, "/", "GET,HEAD,POST,PATCH,DELETE,OPTIONS"),
    ] {
        let told = api.call(method, path, None).await;
        told.is_problem(405, "method_not_allowed");
        assert_eq!(told.header("allow"), allowed, "{path}");
        let asked = Client::new().request(Method::OPTIONS, app.url(path));
        let told = asked.send().await.expect("an answer");
        assert_eq!(
            (told.status().as_u16(), &told.headers()["allow"]),
            (204, &allowed.parse().expect("a value"))
        );
    }
    for path in [
        "/v1/users",
        "/v1/users/anna",
        "/v1/users/anna/sessions/",
        "/v1/users/anna/sessions/p1/x",
    ] {
        api.get(path).await.is_problem(404, "not_found");
    }
    app.stop().await;
}

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
        // Who comes back over the API finds what the gateway has told, and tells what the gateway can't.
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
        // Who holds a lease goes on, whatever the rule.
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
    eventually("it can start anew", async || {
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
    store.sound.forget_all();
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

#[tokio::test]
async fn what_a_client_has_written_is_repeated_to_it_in_short() {
    let app = TestApp::plan().start().await;
    let api = Api::of(&app);
    let long = "\u{7f}".repeat(100_000);
    let release = json!({"user": "a", "session": "b", "kind": long});
    for (method, path, body) in [
        (Method::POST, "/v1/release", release),
        (
            Method::PUT,
            "/v1/users/a/sessions/b",
            json!({long.clone(): 1}),
        ),
    ] {
        let told = api.call(method, path, Some(body)).await;
        told.is_problem(400, "bad_request");
        let detail = told.body["detail"].as_str().expect("a text");
        assert!(
            detail.chars().count() < 500 && detail.ends_with('…'),
            "{detail}"
        );
    }
    app.stop().await;
}
