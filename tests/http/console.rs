//! The console's page in a real Chromium: who gets in, what it keeps of a token, what it shows, and
//! that it has no barriers. With Envoy in front it is in `e2e/console.rs`.

use std::time::Duration;

use reqwest::redirect::Policy;
use serde_json::json;

use testkit::api::Api;
use testkit::app::{Plan, TestApp, TokensFile};
use testkit::axe::assert_no_barriers;
use testkit::chromium::{Chromium, Tab};
use testkit::console::{click, count, is_gone, row, shows, types};

const TOKENS: &str =
    "for-support operator\nfor-a-back-end client\nfor-annas-helper operator anna\n";

/// What the console may load and call.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

#[tokio::test]
async fn the_console_s_files_are_open_to_all_and_load_nothing_from_elsewhere() {
    let file = TokensFile::of(TOKENS);
    let app = TestApp::plan().tokens(&file).start().await;
    let page = app.get("/console").await.text().await.unwrap();
    let links = page.split("=\"console/").skip(1);
    let files: Vec<_> = links.filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(files, ["console.css", "app.js"]);
    let paths = files.iter().map(|file| format!("/console/{file}"));
    for path in std::iter::once("/console".to_owned()).chain(paths) {
        let answer = app.get(&path).await;
        assert_eq!(answer.status(), 200, "{path}");
        for (name, value) in [
            ("content-security-policy", POLICY),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-cache"),
        ] {
            assert_eq!(answer.headers()[name], value, "{path}");
        }
    }
    let api = Api::of(&app);
    for path in [
        "/console/",
        "/console/mod.rs",
        "/console/%61pp.js",
        "/console/a/app.js",
    ] {
        api.get(path).await.is_problem(404, "not_found");
    }
    app.stop().await;
}

#[tokio::test]
async fn the_way_from_the_root_leads_to_the_console_by_a_relative_address() {
    let app = TestApp::plan().start().await;
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(Policy::none());
    let asked = client.build().unwrap().get(app.url("/"));
    let answer = asked.header("accept", "text/html").send().await.unwrap();
    let location = &answer.headers()["location"];
    assert_eq!(
        (answer.status().as_u16(), location),
        (303, &"console".parse().unwrap())
    );
    app.stop().await;
}

/// An app whose sessions outlive a test without a heartbeat.
fn lasting() -> Plan {
    TestApp::plan().leases(Duration::from_secs(15), Duration::from_secs(300))
}

/// Shows a token to the page.
async fn sign_in(tab: &Tab<'_>, token: &str) {
    types(tab, "#token", token).await;
    click(tab, "#sign-in button").await;
}

#[tokio::test]
async fn only_an_operator_s_token_opens_it_and_the_page_alone_keeps_it() {
    let file = TokensFile::of(TOKENS);
    let app = lasting().tokens(&file).start().await;
    let api = Api::of(&app).with_token("for-support");
    api.put("anna", "p1", json!({"content": "film-7"})).await;
    let chromium = Chromium::start().await;
    let tab = chromium.open(&app.url("/console"), "").await;
    shows(&tab, "#signing-in", "Token needed").await;
    assert_no_barriers(&tab).await;
    for (token, told) in [
        ("nobody-knows-this", "is not known here"),
        ("for-a-back-end", "may not see all users"),
        ("for-annas-helper", "may not see all users"),
        ("no token", "This is no token"),
    ] {
        sign_in(&tab, token).await;
        shows(&tab, "#sign-in-error", told).await;
        assert_eq!(count(&tab, "[data-session]").await, 0, "{token}");
    }
    sign_in(&tab, "for-support").await;
    row(&tab, "p1").await;
    let kept = "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href, document.body.innerHTML])";
    let kept = tab.evaluate(kept).await.unwrap();
    assert!(!kept.as_str().unwrap().contains("for-support"), "{kept}");

    // A token that is no longer good closes it, and what it showed is gone.
    file.write("another operator\n");
    shows(&tab, "#sign-in-error", "is not known here").await;
    assert_eq!(count(&tab, "[data-session]").await, 0);
    sign_in(&tab, "another").await;
    row(&tab, "p1").await;
    click(&tab, "#sign-out").await;
    shows(&tab, "#signing-in", "Token needed").await;
    sign_in(&tab, "another").await;
    row(&tab, "p1").await;
    tab.reload().await;
    shows(&tab, "#signing-in", "Token needed").await;
    app.stop().await;
}

#[tokio::test]
async fn a_foreign_name_gets_the_page_but_no_data_and_no_frame() {
    let app = TestApp::plan().start().await;
    Api::of(&app).put("anna", "p1", json!({})).await;
    let rules = "--host-resolver-rules=MAP evil.test 127.0.0.1";
    let chromium = Chromium::start_with(&[rules]).await;
    let evil = app.url("/console").replace("127.0.0.1", "evil.test");
    let tab = chromium.open(&evil, "").await;
    shows(&tab, "#sign-in-error", "http.hosts").await;
    assert_eq!(count(&tab, "[data-session]").await, 0);

    let elsewhere = TestApp::plan().start().await;
    tab.go(&elsewhere.url("/livez")).await;
    let frame = format!(
        "window.framed = null; {{ const it = document.createElement('iframe'); it.onload = () => window.framed = 'loaded'; it.src = {}; document.body.append(it); }}",
        json!(app.url("/console"))
    );
    tab.evaluate(&frame).await;
    // Chromium shows its own page in place of one that may not be framed.
    let is_blocked =
        "window.framed === 'loaded' && document.querySelector('iframe').contentDocument === null";
    testkit::watch::eventually("the frame is blocked", async || {
        (tab.evaluate(is_blocked).await? == true).then_some(())
    })
    .await;
    assert_eq!(Api::of(&app).live("anna").await, ["p1"]);
    tab.close().await;
    elsewhere.stop().await;
    app.stop().await;
}

#[tokio::test]
async fn names_are_shown_as_text_whatever_is_in_them() {
    let app = lasting().start().await;
    let nasty = "<img src=x onerror=alert(1)>\u{202e}&amp;";
    let api = Api::of(&app);
    let body = json!({"device": nasty, "content": "</td><script>document.title='owned'</script>"});
    let url = "/v1/users/%3Cb%3Eanna%3C%2Fb%3E/sessions/%22%3E%3Csvg%20onload=alert(1)%3E";
    let told = api.call(reqwest::Method::PUT, url, Some(body)).await;
    assert_eq!(told.status, 201, "{told:?}");
    let chromium = Chromium::start().await;
    let tab = chromium.open(&app.url("/console"), "").await;
    shows(&tab, "#sessions", nasty).await;
    assert_eq!(
        count(
            &tab,
            "#sessions img, #sessions script, #sessions svg, #sessions b"
        )
        .await,
        0
    );
    // All the way to its end by a click.
    click(&tab, "#sessions [data-session] button.danger").await;
    click(&tab, "#ending-do").await;
    is_gone(&tab, "#sessions [data-session]").await;
    assert_eq!(
        tab.evaluate("document.title").await.unwrap(),
        "streamgate console"
    );
    app.stop().await;
}

#[tokio::test]
async fn neither_of_its_looks_has_a_barrier_and_old_data_looks_old() {
    let app = lasting().start().await;
    let api = Api::of(&app);
    for id in ["p1", "p2", "p3"] {
        let body = json!({"device": "Living room TV", "content": "Evening news"});
        api.put("anna", id, body).await;
    }
    let chromium = Chromium::start().await;
    let tab = chromium.open(&app.url("/console"), "").await;
    row(&tab, "p3").await;
    types(&tab, "#look-up-user", "anna").await;
    click(&tab, "#look-up-form button").await;
    shows(&tab, "#user", "Living room TV").await;
    tab.evaluate("document.querySelectorAll('details').forEach((it) => { it.open = true; })")
        .await;
    for view in ["Cards", "Table"] {
        tab.press(view).await;
        row(&tab, "p3").await;
        assert_no_barriers(&tab).await;
    }
    click(&tab, "#user button.danger").await;
    shows(&tab, "#ending", "End p").await;
    assert_no_barriers(&tab).await;
    click(&tab, "#ending-leave").await;
    assert_eq!(api.live("anna").await, ["p1", "p2", "p3"]);

    app.stop().await;
    shows(&tab, "#connection", "Not connected").await;
    shows(&tab, "#stale", "Last update").await;
    assert_no_barriers(&tab).await;
}
