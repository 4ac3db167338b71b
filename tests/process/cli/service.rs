//! Against the service itself: what holds a user's slots, and giving them back.

use std::sync::Arc;

use serde_json::{Value, json};
use streamgate::config::OutageRule;

use super::assert_ended;
use streamgate::store::faulty::{Fault, FaultyStore};
use testkit::app::TestApp;
use testkit::gateway_client::Check;
use testkit::streamgate::run;
use testkit::watch::eventually;

/// Starts a playback; the names are escaped already.
async fn put(app: &TestApp, user: &str, session: &str, body: Value) {
    let url = app.url(&format!("/v1/users/{user}/sessions/{session}"));
    let answer = reqwest::Client::new().put(url).json(&body).send().await;
    assert_eq!(answer.unwrap().status(), 201);
}

/// A store that can fail, and an app that doesn't let in what it can't count.
async fn app_on_a_faulty_store() -> (Arc<FaultyStore>, TestApp) {
    let store = FaultyStore::new();
    let plan = TestApp::plan()
        .outage(OutageRule::Deny)
        .store(store.clone());
    (store, plan.start().await)
}

#[tokio::test]
async fn a_viewers_sessions_are_shown_and_given_back() {
    let app = TestApp::plan().start().await;
    let url = app.url("");
    let body = json!({"device": "tv", "content": "film-7", "position": 3725});
    put(&app, "anna", "p1", body).await;
    let gateway = app.gateway().await;
    assert!(gateway.check(Check::of("anna", "r1")).await.is_allowed());

    let (code, out, errors) = run(&["sessions", "anna", "--url", &url], &[]).await;
    assert_eq!((code, errors.as_str()), (0, ""));
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[..2], ["anna: 2 of 3 streams in use", ""], "{out}");
    let mut rows: Vec<Vec<&str>> = lines[2..].iter().map(|line| cells(line)).collect();
    rows[1..].sort_unstable();
    let named: Vec<_> = rows.iter().map(|row| &row[..5]).collect();
    assert_eq!(
        named,
        [
            ["KIND", "SESSION", "DEVICE", "CONTENT", "POSITION"],
            ["playback", "p1", "tv", "film-7", "1:02:05"],
            ["request", "r1", "-", "-", "-"],
        ]
    );
    for row in &rows[1..] {
        assert!(
            row[5].ends_with(" ago") && row[6].starts_with("in "),
            "{row:?}"
        );
    }

    let args = ["release", "anna", "p1", "never-there", "--url", &url];
    let released = run(&args, &[]).await;
    let told = "playback p1: released\nplayback never-there: released\n";
    assert_ended(&released, 0, told, "");
    // The environment says where it is, and a kind may be named.
    let args = ["release", "--kind", "request", "anna", "r1"];
    let released = run(&args, &[("STREAMGATE_URL", &url)]).await;
    assert_ended(&released, 0, "request r1: released\n", "");
    let none = run(&["sessions", "anna", "--url", &url], &[]).await;
    assert_ended(&none, 0, "anna: 0 of 3 streams in use\n", "");
}

/// The cells of a line.
fn cells(line: &str) -> Vec<&str> {
    let cells = line.split("  ").map(str::trim);
    cells.filter(|cell| !cell.is_empty()).collect()
}

#[tokio::test]
async fn json_is_what_the_api_says() {
    let app = TestApp::plan().start().await;
    let url = app.url("");
    put(&app, "anna", "p1", json!({})).await;
    let told = app.get("/v1/users/anna/sessions").await.text().await;
    let args = ["sessions", "anna", "--json", "--url", &url];
    let shown = run(&args, &[]).await;
    assert_ended(&shown, 0, &format!("{}\n", told.unwrap()), "");
    let args = ["release", "anna", "p1", "p2", "--json", "--url", &url];
    let released = run(&args, &[]).await;
    let told = "{\"session\":\"p1\",\"kind\":\"playback\",\"outcome\":\"released\"}\n\
                {\"session\":\"p2\",\"kind\":\"playback\",\"outcome\":\"released\"}\n";
    assert_ended(&released, 0, told, "");
}

#[tokio::test]
async fn any_name_reaches_the_service_as_it_is() {
    let app = TestApp::plan().start().await;
    let url = app.url("/");
    let (user, session) = ("a/b?c#d%e \"é\"@映画", "-x/../%2F&kind=video ;+");
    put(
        &app,
        "a%2Fb%3Fc%23d%25e%20%22%C3%A9%22%40%E6%98%A0%E7%94%BB",
        "-x%2F..%2F%252F%26kind%3Dvideo%20%3B%2B",
        json!({}),
    )
    .await;
    let sessions = ["sessions", "--url", &url, user];
    let (code, out, errors) = run(&sessions, &[]).await;
    assert_eq!((code, errors.as_str()), (0, ""));
    assert!(out.starts_with(&format!("{user}: 1 of 3 ")), "{out}");
    assert!(out.contains(&format!("playback  {session}  ")), "{out}");
    let released = run(&["release", "--url", &url, user, "--", session], &[]).await;
    assert_ended(&released, 0, &format!("playback {session}: released\n"), "");
    let (_, out, _) = run(&sessions, &[]).await;
    assert_eq!(out, format!("{user}: 0 of 3 streams in use\n"));
}

#[tokio::test]
async fn in_an_outage_a_release_is_accepted_and_a_question_is_not_answered() {
    let (store, app) = app_on_a_faulty_store().await;
    let url = app.url("");
    put(&app, "anna", "p1", json!({})).await;
    store.fails(&Fault::LosesCalls);
    let unseen = run(&["sessions", "anna", "--url", &url], &[]).await;
    let detail = "503 (outage): The streams of this account can't be counted right now. Try again in a moment.";
    assert_ended(&unseen, 3, "", &format!("streamgate: anna: {detail}\n"));
    let released = run(&["release", "anna", "p1", "--url", &url], &[]).await;
    let told = "playback p1: accepted: it will be released when the store is back\n";
    assert_ended(&released, 0, told, "");
    let args = ["release", "anna", "p1", "--json", "--url", &url];
    let (code, out, _) = run(&args, &[]).await;
    assert_eq!(code, 0);
    assert!(out.ends_with("\"outcome\":\"accepted\"}\n"), "{out}");
    store.fails(&Fault::None);
    eventually("it is released", async || {
        store.live("anna").await.is_empty()
    })
    .await;
}
