//! A port without tokens that a browser can reach: pages of other sites can neither act nor read
//! anything, and all other clients work as before. Over real HTTP, and with a real Chromium.

use reqwest::Method;
use serde_json::{Value, json};

use testkit::api::{Api, Told};
use testkit::app::{Plan, TestApp, TokensFile};
use testkit::chromium::{Chromium, Tab};
use testkit::watch::eventually;

/// Every call that acts or tells of users.
const CALLS: [(&str, &str); 14] = [
    ("GET", "/v1/users/anna/sessions"),
    ("HEAD", "/v1/users/anna/sessions"),
    ("POST", "/v1/users/anna/sessions"),
    ("DELETE", "/v1/users/anna/sessions"),
    ("GET", "/v1/users/anna/sessions/p1"),
    ("PUT", "/v1/users/anna/sessions/p1"),
    ("DELETE", "/v1/users/anna/sessions/p1"),
    ("POST", "/v1/release"),
    ("GET", "/v1/sessions"),
    ("HEAD", "/v1/events"),
    ("GET", "/?id=film"),
    ("POST", "/?id=film"),
    ("PATCH", "/?id=film"),
    ("DELETE", "/?id=film"),
];

/// What probes, scrapers and people look at.
const EXEMPT: [&str; 7] = [
    "/livez",
    "/readyz",
    "/metrics",
    "/openapi.json",
    "/v1/problems",
    // The console's files hold no data.
    "/console",
    "/console/app.js",
];

/// Headers by their names.
type Headers = &'static [(&'static str, &'static str)];

/// The headers of requests that no page of ours sends, and the errors.
const FOREIGN: [(Headers, &str); 6] = [
    (
        &[
            ("origin", "https://evil.test"),
            ("sec-fetch-site", "cross-site"),
        ],
        "http.cors_origins",
    ),
    (&[("origin", "null")], "http.cors_origins"),
    (&[("sec-fetch-site", "cross-site")], "http.cors_origins"),
    (
        &[("host", "evil.test"), ("origin", "http://evil.test")],
        "http.hosts",
    ),
    (
        &[
            ("host", "evil.test"),
            ("user-agent", "Mozilla/5.0 (X11; Linux x86_64)"),
        ],
        "http.hosts",
    ),
    // As Firefox sends it where a script has replaced the user agent.
    (
        &[
            ("host", "evil.test"),
            ("user-agent", "x"),
            ("accept-language", "de"),
        ],
        "http.hosts",
    ),
];

fn method(name: &str) -> Method {
    name.parse().unwrap()
}

/// Makes a call of the table with those headers, as anna where it asks who.
async fn make(api: &Api<'_>, (name, path): (&str, &str), headers: &[(&str, &str)]) -> Told {
    let mut request = api.request(method(name), path);
    if path.starts_with("/?") {
        request = request.basic_auth("anna", Some(""));
    }
    if path == "/v1/release" {
        request = request.json(&json!({"user": "anna", "session": "p1"}));
    }
    let request = headers.iter().fold(request, |request, (name, value)| {
        request.header(*name, *value)
    });
    Told::by(request).await
}

#[tokio::test]
async fn a_foreign_page_is_refused_each_call_and_told_what_to_do() {
    let app = TestApp::plan().start().await;
    let api = Api::of(&app);
    api.put("anna", "kept", json!({})).await;
    for (headers, expected) in FOREIGN {
        for call in CALLS {
            let told = make(&api, call, headers).await;
            if call.0 == "HEAD" {
                assert_eq!(told.status, 403, "{call:?} {headers:?}");
                continue;
            }
            told.is_problem(403, "forbidden");
            let detail = told.body["detail"].as_str().unwrap();
            assert!(detail.contains(expected), "{detail}");
        }
        for path in EXEMPT {
            let request = api.request(Method::GET, path);
            let request = headers.iter().fold(request, |request, (name, value)| {
                request.header(*name, *value)
            });
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status(), 200, "{path} {headers:?}");
        }
    }
    assert_eq!(api.live("anna").await, ["kept"]);
    app.stop().await;
}

#[tokio::test]
async fn what_is_no_page_of_another_site_goes_on_as_before() {
    let app = TestApp::plan()
        .origins(&["https://app.example"])
        .start()
        .await;
    let api = Api::of(&app);
    let own = app.url("");
    let own = own.trim_end_matches('/');
    let headers: [&[(&str, &str)]; 7] = [
        // A back end in another container, by any name.
        &[("host", "streamgate:8080")],
        &[
            ("host", "streamgate.tv.svc.cluster.local:8080"),
            ("user-agent", "python-requests/2.32"),
        ],
        // Node adds these itself.
        &[
            ("host", "streamgate:8080"),
            ("sec-fetch-mode", "cors"),
            ("accept-language", "*"),
        ],
        // A viewer whom the shipped `/v1/users` route lets through.
        &[
            ("host", "tv.example"),
            ("origin", "https://www.tv.example"),
            ("sec-fetch-site", "same-site"),
            ("x-streamgate-user", "anna"),
        ],
        // Somebody who types the address; a page of our own; one of an origin that is listed.
        &[
            ("sec-fetch-site", "none"),
            ("user-agent", "Mozilla/5.0 (X11; Linux x86_64)"),
        ],
        &[("origin", own), ("sec-fetch-site", "same-origin")],
        &[
            ("origin", "https://app.example"),
            ("sec-fetch-site", "cross-site"),
        ],
    ];
    for headers in headers {
        let is_viewer = headers.iter().any(|(name, _)| *name == "x-streamgate-user");
        for call in CALLS {
            let told = make(&api, call, headers).await;
            let operators = [
                ("GET", "/v1/sessions"),
                ("HEAD", "/v1/events"),
                ("DELETE", "/v1/users/anna/sessions"),
            ];
            let is_refused = told.status == 403;
            assert_eq!(
                is_refused,
                is_viewer && operators.contains(&call),
                "{call:?} {headers:?} {told:?}"
            );
        }
    }
    app.stop().await;
}

#[tokio::test]
async fn with_tokens_the_token_decides() {
    let file = TokensFile::of("back-end client\n");
    let app = TestApp::plan().tokens(&file).start().await;
    let api = Api::of(&app).with_token("back-end");
    for (headers, _) in FOREIGN {
        let told = make(&api, ("PUT", "/v1/users/anna/sessions/p1"), headers).await;
        assert!([200, 201].contains(&told.status.as_u16()), "{told:?}");
    }
    app.stop().await;
}

/// Whether a script in the page may make a call, and read the answer: its status, or that there is
/// none to read.
async fn fetches(tab: &Tab<'_>, url: &str, options: &Value) -> Value {
    let script = format!(
        "window.told = undefined; fetch({}, {options}).then((it) => window.told = it.status, () => window.told = 'nothing'); 1",
        json!(url)
    );
    tab.evaluate(&script).await.expect("there is a page");
    eventually("the page is answered", async || {
        let told = tab.evaluate("window.told").await?;
        (!told.is_null()).then_some(told)
    })
    .await
}

/// Starts an app, with a session of anna's.
async fn watched(plan: Plan) -> TestApp {
    let app = plan.start().await;
    Api::of(&app).put("anna", "p1", json!({})).await;
    app
}

#[tokio::test]
async fn a_page_in_chromium_whose_name_leads_here_neither_sees_nor_acts() {
    let app = watched(TestApp::plan()).await;
    let rules = "--host-resolver-rules=MAP evil.test 127.0.0.1,MAP streams.test 127.0.0.1";
    let chromium = Chromium::start_with(&[rules]).await;
    let calls = [
        ("/v1/users/anna/sessions", json!({"method": "GET"})),
        (
            "/v1/sessions",
            json!({"method": "GET", "referrerPolicy": "no-referrer"}),
        ),
        ("/v1/users/anna/sessions", json!({"method": "POST"})),
        ("/v1/users/anna/sessions/p1", json!({"method": "DELETE"})),
    ];
    let evil = app.url("/livez").replace("127.0.0.1", "evil.test");
    let tab = chromium.open(&evil, "").await;
    for (path, options) in &calls {
        assert_eq!(fetches(&tab, path, options).await, 403, "{path} {options}");
    }
    assert_eq!(Api::of(&app).live("anna").await, ["p1"]);
    // By a name of this machine's own, the same page may.
    tab.go(&app.url("/livez").replace("127.0.0.1", "localhost"))
        .await;
    assert_eq!(fetches(&tab, calls[0].0, &calls[0].1).await, 200);
    tab.close().await;
    app.stop().await;

    let app = watched(TestApp::plan().hosts(&["streams.test"])).await;
    let known = app.url("/livez").replace("127.0.0.1", "streams.test");
    let tab = chromium.open(&known, "").await;
    for ((path, options), expected) in calls.iter().zip([200, 200, 201, 204]) {
        assert_eq!(
            fetches(&tab, path, options).await,
            expected,
            "{path} {options}"
        );
    }
    tab.close().await;
    app.stop().await;
}

#[tokio::test]
async fn a_page_of_another_origin_in_chromium_acts_only_where_it_is_listed() {
    let elsewhere = TestApp::plan().start().await;
    let page = elsewhere.url("/livez");
    let chromium = Chromium::start().await;
    // The same machine by another port, which is the same site, and by another name, which is
    // another one.
    for page in [page.clone(), page.replace("127.0.0.1", "localhost")] {
        let app = watched(TestApp::plan()).await;
        let tab = chromium.open(&page, "").await;
        let blind = json!({"method": "POST", "mode": "no-cors"});
        let hook = json!({"method": "POST", "mode": "no-cors", "body": r#"{"user": "anna", "session": "p1"}"#});
        for (path, options) in [("/v1/users/anna/sessions", blind), ("/v1/release", hook)] {
            // An answer that can't be read has no status.
            let told = fetches(&tab, &app.url(path), &options).await;
            assert_eq!(told, 0, "{path} {options}");
        }
        assert_eq!(Api::of(&app).live("anna").await, ["p1"], "{page}");
        app.stop().await;

        let origin = page.trim_end_matches("/livez");
        let app = watched(TestApp::plan().origins(&[origin])).await;
        for (method, expected) in [("GET", 200), ("POST", 201)] {
            let url = app.url("/v1/users/anna/sessions");
            let told = fetches(&tab, &url, &json!({"method": method})).await;
            assert_eq!(told, expected, "{page} {method}");
        }
        tab.close().await;
        app.stop().await;
    }
    elsewhere.stop().await;
}
