//! Properties of all HTTP requests, over real HTTP: CORS, request ids, limits in size and time, and
//! metrics.

use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Client, Method};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use testkit::api::Api;
use testkit::app::TestApp;
use testkit::streamgate::Streamgate;
use testkit::watch::PATIENCE;

const ONE: &str = "/v1/users/anna/sessions/p1";

/// What a browser is answered that asks, for a script of that origin, whether it may send that.
async fn preflight(app: &TestApp, path: &str, origin: &str) -> (u16, HeaderMap) {
    let request = Client::new()
        .request(Method::OPTIONS, app.url(path))
        .header("origin", origin)
        .header("access-control-request-method", "PUT")
        .header(
            "access-control-request-headers",
            "authorization,content-type",
        );
    let answer = request.send().await.expect("an answer");
    (answer.status().as_u16(), answer.headers().clone())
}

#[tokio::test]
async fn scripts_of_the_origins_that_are_named_may_ask_and_read() {
    let app = TestApp::plan()
        .limit(1)
        .origins(&["https://app.example", "http://[::1]:3000"])
        .start()
        .await;
    for path in [ONE, "/v1/release", "/?id=film"] {
        for origin in ["https://app.example", "http://[::1]:3000"] {
            let (status, headers) = preflight(&app, path, origin).await;
            assert_eq!(status, 200);
            assert_eq!(headers["access-control-allow-origin"], origin);
            let methods = headers["access-control-allow-methods"]
                .to_str()
                .expect("a text");
            assert!(
                ["GET", "PUT", "PATCH", "POST", "DELETE"]
                    .iter()
                    .all(|it| methods.contains(it))
            );
            assert_eq!(
                headers["access-control-allow-headers"],
                "authorization,content-type,last-event-id,x-request-id"
            );
            assert_eq!(headers["access-control-max-age"], "600");
        }
        let (_, headers) = preflight(&app, path, "https://evil.example").await;
        assert_eq!(headers["x-request-id"].len(), 32, "all answers have one");
        assert!(!headers.contains_key("access-control-allow-origin"));
    }
    // What an address knows can still be asked.
    let plain = Client::new()
        .request(Method::OPTIONS, app.url(ONE))
        .header("origin", "https://app.example");
    let plain = plain.send().await.expect("an answer");
    assert_eq!(
        (plain.status().as_u16(), &plain.headers()["allow"]),
        (
            204,
            &"GET,HEAD,PUT,DELETE,OPTIONS".parse().expect("a value")
        )
    );
    app.stop().await;
}

#[tokio::test]
async fn scripts_can_read_every_answer_and_its_headers() {
    let plan = TestApp::plan().limit(1);
    let app = plan.origins(&["https://app.example"]).start().await;
    let api = Api::of(&app).with("origin", "https://app.example");
    let started = api.put("anna", "p1", json!({})).await;
    // Refusals are read by scripts too.
    let full = api.put("anna", "p2", json!({})).await;
    full.is_problem(429, "full");
    let unknown = api.get("/v1/nothing").await;
    unknown.is_problem(404, "not_found");
    for told in [started, full, unknown] {
        assert_eq!(
            told.header("access-control-allow-origin"),
            "https://app.example"
        );
        let exposed = told.header("access-control-expose-headers");
        assert!(
            exposed.contains("retry-after") && exposed.contains("ratelimit-policy"),
            "{exposed}"
        );
        assert!(told.header("vary").contains("origin"), "{told:?}");
    }
    let evil = Api::of(&app)
        .with("origin", "https://evil.example")
        .get(ONE)
        .await;
    assert_eq!(evil.header("access-control-allow-origin"), "");
    app.stop().await;
}

#[tokio::test]
async fn all_origins_may_ask_where_all_are_allowed_and_none_where_none_is_named() {
    let app = TestApp::plan().any_origin().start().await;
    let (status, headers) = preflight(&app, ONE, "https://any.example").await;
    assert_eq!(
        (status, &headers["access-control-allow-origin"]),
        (200, &"*".parse().expect("a value"))
    );
    app.stop().await;
    let app = TestApp::plan().start().await;
    let (status, headers) = preflight(&app, ONE, "https://any.example").await;
    assert_eq!(status, 204);
    assert!(!headers.contains_key("access-control-allow-origin"));
    app.stop().await;
}

#[tokio::test]
async fn each_answer_bears_the_request_s_id_its_client_s_or_one_made_here() {
    let app = TestApp::plan().start().await;
    let api = Api::of(&app);
    let longest = "x".repeat(128);
    for id in ["a", "0188f1a2-4b6c-7d8e-9f00-112233445566", &longest] {
        for path in [ONE, "/v1/nothing", "/v1/users/anna/sessions"] {
            let told = api.with("x-request-id", id).get(path).await;
            assert_eq!(told.header("x-request-id"), id);
        }
    }
    let longer = "x".repeat(129);
    let mut made = Vec::new();
    for id in ["", "a b", &longer] {
        let told = api.with("x-request-id", id).get(ONE).await;
        made.push(told.header("x-request-id").to_owned());
    }
    made.push(api.get(ONE).await.header("x-request-id").to_owned());
    made.sort();
    made.dedup();
    assert_eq!(made.len(), 4, "{made:?}");
    assert!(made.iter().all(|id| id.len() == 32), "{made:?}");
    app.stop().await;
}

#[tokio::test]
async fn a_refused_start_is_explained_in_the_log_by_its_request_s_id() {
    let settings = [("limits.default", "1"), ("limits.grace", "0s")];
    let streamgate = Streamgate::start(&settings).await;
    let client = Client::new();
    for id in ["p1", "p2"] {
        let url = format!("http://{}/v1/users/anna/sessions/{id}", streamgate.http);
        let request = client
            .put(url)
            .header("x-request-id", format!("complaint-{id}"));
        request.send().await.expect("an answer");
    }
    streamgate.says("a stream was refused").await;
    let log = streamgate.log();
    let lines: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("a stream was refused"))
        .collect();
    let [line] = lines[..] else { panic!("{log}") };
    for part in [
        r#""request.id":"complaint-p2""#,
        r#""user.id":"anna""#,
        r#""session.key":"playback:p2""#,
        r#""reason":"full""#,
        r#""count":1"#,
        r#""limit":1"#,
        "playback:p1",
    ] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
}

#[tokio::test]
async fn an_oversized_request_is_refused_as_too_large() {
    let app = TestApp::plan().start().await;
    let api = Api::of(&app);
    let address = format!("{ONE}?{}", "x".repeat(8 * 1024));
    api.get(&address).await.is_problem(414, "address_too_long");
    let headers = api.with("x-large", "x".repeat(16 * 1024)).get(ONE).await;
    headers.is_problem(431, "headers_too_large");
    let body = api
        .request(Method::PUT, ONE)
        .body(vec![b' '; 512 * 1024 + 1]);
    let body = body
        .header("content-type", "application/json")
        .send()
        .await
        .expect("an answer");
    assert_eq!(body.status(), 413);
    // Two of the longest names there are, escaped throughout, still fit.
    let name = "%C3%A9".repeat(128);
    let told = api.put(&name, &name, json!({})).await;
    assert_eq!(told.status, 201, "{told:?}");
    app.stop().await;
}

#[tokio::test]
async fn a_body_that_does_not_come_is_waited_for_so_long_and_no_longer() {
    let app = TestApp::plan()
        .request_timeout(Duration::from_millis(100))
        .start()
        .await;
    let address = app.url("").trim_start_matches("http://").to_owned();
    let mut stalled = TcpStream::connect(&address).await.expect("it listens");
    let head = format!(
        "PUT {ONE} HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\ncontent-type: application/json\r\n\r\n{{"
    );
    stalled
        .write_all(head.as_bytes())
        .await
        .expect("it is sent");
    let mut told = String::new();
    let reading = tokio::time::timeout(PATIENCE, stalled.read_to_string(&mut told));
    reading.await.expect("it ends").expect("a text");
    let lower = told.to_ascii_lowercase();
    assert!(
        lower.starts_with("http/1.1 408 request timeout\r\n"),
        "{told}"
    );
    assert!(
        lower.contains("\"reason\":\"too_slow\"") && lower.contains("\r\nconnection: close\r\n"),
        "{told}"
    );
    // Nothing was started for it, and others are served.
    assert!(Api::of(&app).live("anna").await.is_empty());
    app.stop().await;
}

/// The answer to these bytes, until the other side closes.
async fn raw(app: &TestApp, request: &str) -> String {
    let address = app.url("").trim_start_matches("http://").to_owned();
    let mut socket = TcpStream::connect(&address).await.expect("it listens");
    socket
        .write_all(request.as_bytes())
        .await
        .expect("it is sent");
    let mut told = String::new();
    let reading = tokio::time::timeout(PATIENCE, socket.read_to_string(&mut told));
    reading.await.expect("it ends").expect("a text");
    told
}

#[tokio::test]
async fn a_request_has_one_host_and_says_how_long_it_is_before_it_is_read() {
    let app = TestApp::plan().start().await;
    for hosts in ["", "host: a\r\nhost: b\r\n"] {
        let told = raw(
            &app,
            &format!("GET {ONE} HTTP/1.1\r\n{hosts}connection: close\r\n\r\n"),
        )
        .await;
        assert!(told.starts_with("HTTP/1.1 400 "), "{told}");
        assert!(told.contains("one Host header"), "{told}");
    }
    let told = raw(&app, &format!("GET {ONE} HTTP/1.0\r\n\r\n")).await;
    assert!(told.starts_with("HTTP/1.0 404 "), "{told}");
    let large = format!(
        "PUT {ONE} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 600000\r\nexpect: 100-continue\r\n\r\n"
    );
    let told = raw(&app, &large).await;
    assert!(told.starts_with("HTTP/1.1 413 "), "{told}");
    app.stop().await;
}

#[tokio::test]
async fn requests_are_counted_by_what_was_asked_and_what_came_of_it() {
    let app = TestApp::plan().limit(1).start().await;
    let api = Api::of(&app);
    let video = api.with("authorization", "Basic YW5uYTo=");
    for (told, call, outcome) in [
        (api.put("anna", "p1", json!({})).await, "start", "ok"),
        (api.put("anna", "p2", json!({})).await, "start", "refused"),
        (
            api.put("anna", "p2", json!({"x": 1})).await,
            "start",
            "invalid",
        ),
        (api.get("/v1/users/anna/sessions").await, "user", "ok"),
        (api.get(ONE).await, "session", "ok"),
        (api.get("/v1/sessions").await, "list", "ok"),
        (video.get("/?id=x").await, "video", "ok"),
        (api.get("/?id=x").await, "video", "denied"),
        (
            video.call(Method::POST, "/?id=x", None).await,
            "start_video",
            "refused",
        ),
        (
            video.call(Method::PATCH, "/?id=x", None).await,
            "renew_video",
            "invalid",
        ),
        (video.delete("/?id=x").await, "release_video", "ok"),
        (api.delete(ONE).await, "release", "ok"),
        (api.put("anna", "p1", json!({})).await, "start", "ended"),
        (api.delete("/v1/users/anna/sessions").await, "end_all", "ok"),
    ] {
        let series =
            format!("streamgate_http_requests_total{{call=\"{call}\",outcome=\"{outcome}\"}}");
        assert_eq!(app.metric(&series).await, 1, "{series}: {told:?}");
    }
    app.stop().await;
}
