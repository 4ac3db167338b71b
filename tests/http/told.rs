//! What a refusal shows, at Envoy's door and over HTTP: the address that explains the problem, and
//! no more about other sessions than allowed.

use std::collections::BTreeSet;

use reqwest::{Client, Method, Url};
use serde_json::{Value, json};
use streamgate::config::Shown;
use streamgate::problem::Reason;

use testkit::api::Api;
use testkit::app::TestApp;
use testkit::gateway_client::Check;

/// The facts that may be shown, by their fields.
const FACTS: [(Shown, &str); 4] = [
    (Shown::Session, "session"),
    (Shown::Device, "device"),
    (Shown::Content, "content"),
    (Shown::StartedAt, "started_at"),
];

/// Some failures, and their problem documents.
async fn some_problems(app: &TestApp) -> Vec<Value> {
    let (api, gateway) = (Api::of(app), app.gateway().await);
    let mut told = vec![
        api.get("/nowhere").await.body,
        api.delete("/v1/release").await.body,
        api.get("/v1/users/%00/sessions").await.body,
        api.put("anna", &"p".repeat(9000), json!({})).await.body,
        api.get("/v1/users/anna/sessions/p9").await.body,
    ];
    let nobody = Check::of("anna", "r1").without("x-user-id");
    let malformed = Check::of_playback("anna", &"p".repeat(257));
    for check in [nobody, malformed] {
        told.push(gateway.check(check).await.body);
    }
    told
}

#[tokio::test]
async fn the_type_of_a_problem_leads_to_its_section_of_a_page_that_anybody_may_read() {
    let tokens = testkit::app::TokensFile::of("secret client\n");
    let app = TestApp::plan().tokens(&tokens).start().await;
    let base: Url = app.url("/v1/users/anna/sessions").parse().unwrap();
    let unauthorized = Api::of(&app).get("/v1/users/anna/sessions").await;
    let kind = unauthorized.body["type"].as_str().unwrap();
    assert_eq!(kind, "/v1/problems#unauthorized");
    let answer = Client::new().get(base.join(kind).unwrap()).send().await;
    let answer = answer.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "text/html; charset=utf-8");
    let policy = "default-src 'none'; style-src 'unsafe-inline'";
    assert_eq!(answer.headers()["content-security-policy"], policy);
    let page = answer.text().await.unwrap();
    for reason in Reason::ALL {
        let section = format!("<h3 id=\"{}\">", reason.as_str());
        assert_eq!(page.matches(&section).count(), 1, "{section}");
    }
    app.stop().await;
}

#[tokio::test]
async fn every_problem_of_both_doors_leads_to_the_page_that_is_configured() {
    for (page, expected) in [
        (None, "/v1/problems"),
        (
            Some("https://watch.example/help?x=1"),
            "https://watch.example/help?x=1",
        ),
    ] {
        let plan = TestApp::plan();
        let plan = match page {
            Some(page) => plan.problems(page),
            None => plan,
        };
        let app = plan.start().await;
        let told = some_problems(&app).await;
        for problem in &told {
            let reason = problem["reason"].as_str().unwrap();
            assert_eq!(problem["type"], format!("{expected}#{reason}"), "{problem}");
        }
        let reasons: BTreeSet<_> = told.iter().map(|it| it["reason"].as_str()).collect();
        assert_eq!(reasons.len(), told.len(), "{reasons:?}");
        app.stop().await;
    }
}

#[tokio::test]
async fn a_problem_has_no_body_for_head_wherever_it_leads() {
    let app = TestApp::plan()
        .problems("https://watch.example/help")
        .start()
        .await;
    let head = Client::new()
        .head(app.url("/nowhere"))
        .send()
        .await
        .unwrap();
    assert_eq!(head.status(), 404);
    assert_eq!(head.text().await.unwrap(), "");
    // The connection is still good: nothing was left on it.
    assert_eq!(Api::of(&app).get("/nowhere").await.status, 404);
    app.stop().await;
}

#[tokio::test]
async fn a_refusal_shows_what_it_may_of_others_and_no_more_at_both_doors() {
    let singles = FACTS.iter().map(|(shown, _)| vec![*shown]);
    let all = FACTS.iter().map(|(shown, _)| *shown).collect();
    for show in singles.chain([vec![], all]) {
        let app = TestApp::plan().limit(1).show(&show).start().await;
        let (api, gateway) = (Api::of(&app), app.gateway().await);
        let facts = json!({"device": "the-tv", "content": "the-film"});
        assert_eq!(api.put("anna", "p1", facts).await.status, 201);

        let over_http = api.put("anna", "p2", json!({})).await;
        let at_envoy = gateway.check(Check::of_playback("anna", "p2")).await;
        let small = api.with("authorization", "Basic YW5uYTo=");
        let small = small.call(Method::POST, "/?id=film", None).await;
        for told in [&over_http.body, &at_envoy.body, &small.body] {
            assert_eq!(told["reason"], "full");
            let holder = told["sessions"][0].as_object().unwrap();
            let fields: BTreeSet<_> = holder.keys().map(String::as_str).collect();
            let may = FACTS.iter().filter(|(shown, _)| show.contains(shown));
            assert_eq!(fields, may.map(|(_, field)| *field).collect(), "{show:?}");
            assert_eq!((&told["limit"], &told["active"]), (&json!(1), &json!(1)));
        }

        let taken = api.put("anna", "p3", json!({"takeover": "oldest"})).await;
        assert_eq!(taken.status, 201);
        let over_http = api.put("anna", "p1", json!({})).await;
        let at_envoy = gateway.check(Check::of_playback("anna", "p1")).await;
        for told in [&over_http.body, &at_envoy.body] {
            assert_eq!(told["reason"], "displaced");
            let by = show.contains(&Shown::Session);
            let by = by.then(|| json!({"session": "p3", "kind": "playback"}));
            assert_eq!(told.get("displaced_by"), by.as_ref(), "{show:?}");
        }
        app.stop().await;
    }
}
