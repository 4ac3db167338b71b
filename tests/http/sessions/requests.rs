//! Names, bodies and methods, right and wrong.

use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use streamgate::store::faulty::FaultyStore;
use testkit::api::{Api, Told, on_both};
use testkit::app::TestApp;
use testkit::gateway_client::Check;
use testkit::talk;

use super::was_not_asked;

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

/// Sends a request with its path unchanged, and returns the answer.
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
    // The gateway may use such a name; the hook reaches that user's sessions.
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
async fn a_malformed_body_is_answered_with_where() {
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
    // A missing body has no type that could be wrong.
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
