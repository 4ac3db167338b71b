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

#[tokio::test]
async fn everybodys_sessions_are_listed_filtered_and_ended() {
    let app = TestApp::plan().start().await;
    let url = app.url("");
    put(&app, "anna", "p1", json!({"content": "film-7"})).await;
    put(&app, "ben", "p2", json!({"device": "tv"})).await;
    let gateway = app.gateway().await;
    assert!(gateway.check(Check::of("ben", "r1")).await.is_allowed());
    let listed = async |filter: &[&str]| {
        let args = [&["sessions", "--json", "--url", &url], filter].concat();
        let (code, out, errors) = run(&args, &[]).await;
        assert_eq!((code, errors.as_str()), (0, ""));
        let lines = out.lines().map(|line| serde_json::from_str(line).unwrap());
        let mut ids: Vec<String> = lines
            .map(|line: Value| format!("{} {}", line["user"], line["session"]).replace('"', ""))
            .collect();
        ids.sort_unstable();
        ids
    };
    assert_eq!(listed(&[]).await, ["anna p1", "ben p2", "ben r1"]);
    assert_eq!(listed(&["--content", "film-7"]).await, ["anna p1"]);
    assert_eq!(listed(&["--device", "tv"]).await, ["ben p2"]);
    assert_eq!(listed(&["--kind", "request"]).await, ["ben r1"]);
    assert!(listed(&["--kind", "video"]).await.is_empty());
    let (code, out, _) = run(&["sessions", "--url", &url], &[]).await;
    assert_eq!(code, 0);
    assert_eq!(cells(out.lines().next().unwrap())[..2], ["USER", "KIND"]);
    assert_eq!(out.lines().count(), 4, "{out}");

    // What runs inside Envoy can't be ended from here.
    let all = [
        "release",
        "--all",
        "ben",
        "--message",
        "Stopped.",
        "--url",
        &url,
    ];
    let ended = run(&all, &[]).await;
    let told = "playback p2: ended\nrequest r1: runs inside Envoy and can't be ended from here\n";
    assert_ended(&ended, 1, told, "");
    let refused = reqwest::Client::new().put(app.url("/v1/users/ben/sessions/p2"));
    let refused: Value = refused.send().await.unwrap().json().await.unwrap();
    assert_eq!(refused["message"], "Stopped.");
    let one = ["release", "anna", "p1", "--message", "Gone.", "--url", &url];
    assert_ended(&run(&one, &[]).await, 0, "playback p1: released\n", "");
    let none = run(&["release", "--all", "anna", "--url", &url], &[]).await;
    assert_ended(&none, 0, "no live session\n", "");
}

#[tokio::test]
async fn a_limit_is_shown_set_and_removed() {
    let (store, app) = app_on_a_faulty_store().await;
    let url = app.url("");
    let limit = async |args: &[&str]| {
        let args = [&["limit", "--url", &url, "anna"], args].concat();
        run(&args, &[]).await
    };
    let default = "anna: 3 streams, the default\n";
    assert_ended(&limit(&[]).await, 0, default, "");
    let set = "anna: 0 streams, set by an operator, expires in 7d 0h; configured: 3\n";
    assert_ended(&limit(&["0", "--for", "7d 30m"]).await, 0, set, "");
    assert_ended(&limit(&[]).await, 0, set, "");
    let (code, out, _) = limit(&["--json"]).await;
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &told["source"]), (0, &json!("override")));
    let past = limit(&["1", "--until", "2020-01-15T08:00:00Z"]).await;
    assert_eq!((past.0, past.1.as_str()), (2, ""));
    assert!(past.2.contains("must be later than now"), "{}", past.2);
    let removed = "anna: the configured limit applies\n";
    assert_ended(&limit(&["--remove"]).await, 0, removed, "");
    assert_ended(&limit(&[]).await, 0, default, "");
    store.fails(&Fault::LosesCalls);
    assert_eq!(limit(&["1"]).await.0, 3);
}

#[tokio::test]
async fn top_shows_who_is_watching_and_says_what_it_cannot_show() {
    let app = TestApp::plan().start().await;
    let url = app.url("");
    put(&app, "anna", "p1", json!({"content": "film-7"})).await;
    // Standard output is no terminal here, so it looks once.
    let (code, out, errors) = run(&["top", "--url", &url], &[]).await;
    assert_eq!((code, errors.as_str()), (0, ""), "{out}");
    assert!(out.starts_with("streamgate top  http://"), "{out}");
    assert!(
        out.contains("streams 1, users 1, at their limit 0"),
        "{out}"
    );
    assert!(out.contains("anna  playback  p1"), "{out}");
    assert!(!out.contains('\x1b'), "{out:?}");
    app.stop().await;
    let (code, out, _) = run(&["top", "--once", "--url", &url], &[]).await;
    assert_eq!(code, 3);
    assert!(out.contains("no numbers: no answer from"), "{out}");
}
