//! The way from `/` to the console, which clients of the small API don't take, and the guide to problems.

use reqwest::Method;
use serde_json::json;

use testkit::api::Api;
use testkit::app::TestApp;
use testkit::axe::assert_no_barriers;
use testkit::chromium::Chromium;

/// What Chromium sends.
const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

#[tokio::test]
async fn a_browser_is_led_from_the_root_to_the_console_and_other_clients_are_not() {
    let app = TestApp::plan().start().await;
    let api = Api::of(&app);
    for path in ["/", "/?"] {
        let asked = api.with("accept", BROWSER).request(Method::GET, path);
        let page = asked.send().await.unwrap();
        assert_eq!(
            (page.status().as_u16(), page.url().path()),
            (200, "/console")
        );
        assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
        assert!(page.text().await.unwrap().contains("<h1>streamgate</h1>"));
    }
    for accept in ["*/*", "application/json"] {
        let told = api.with("accept", accept).get("/").await;
        told.is_problem(400, "bad_request");
    }
    let browser = api.with("accept", BROWSER);
    browser
        .get("/?id=film")
        .await
        .is_problem(401, "unauthorized");
    browser
        .get("/?video=film")
        .await
        .is_problem(400, "bad_request");
    let post = browser.call(Method::POST, "/", Some(json!({}))).await;
    post.is_problem(400, "bad_request");
    app.stop().await;
}

#[tokio::test]
async fn the_pages_lead_on_and_back_and_the_guide_has_no_barriers() {
    let app = TestApp::plan().start().await;
    let chromium = Chromium::start().await;
    let tab = chromium.open(&app.url("/console"), "").await;
    let links = "[...document.querySelectorAll('footer a')].map((it) => it.href)";
    let links = tab.evaluate(links).await.unwrap();
    let links = links.as_array().unwrap();
    assert!(links.len() >= 4, "{links:?}");
    for link in links {
        let answer = reqwest::get(link.as_str().unwrap()).await.unwrap();
        assert_eq!(answer.status(), 200, "{link}");
    }

    tab.go(&app.url("/v1/problems#full")).await;
    assert_no_barriers(&tab).await;
    for (text, lead_to) in [
        ("Contents", "/v1/problems#contents"),
        ("Console", "/console"),
    ] {
        let press = format!("[...document.links].find((it) => it.text === '{text}').click()");
        tab.evaluate(&press).await;
        tab.is_at(&app.url(lead_to)).await;
    }
    app.stop().await;
}
