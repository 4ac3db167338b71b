//! The operator's list over real HTTP, on both stores: pages that lead through everything that is live.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::{Value, json};

use streamgate::store::faulty::{Fault, FaultyStore};
use testkit::api::{Api, Told, on_both};
use testkit::app::TestApp;
use testkit::gateway_client::Check;

/// Follows the pages to the end; all sessions as `user/session`, and how many pages there were.
async fn follow(api: &Api<'_>, size: usize) -> (BTreeSet<String>, usize) {
    let (mut found, mut pages) = (BTreeSet::new(), 0);
    let mut path = format!("/v1/sessions?limit={size}");
    loop {
        let told = api.get(&path).await;
        assert_eq!(told.status, 200, "{told:?}");
        pages += 1;
        assert!(pages < 2000, "there is an end");
        for session in told.body["sessions"].as_array().expect("a list") {
            let text = |name: &str| session[name].as_str().expect("a text").to_owned();
            assert!(text("started_at") < text("expires_at"));
            found.insert(format!("{}/{}", text("user"), text("session")));
        }
        let Value::String(next) = &told.body["next"] else {
            assert_eq!(told.header("link"), "");
            return (found, pages);
        };
        path = format!("/v1/sessions?limit={size}&cursor={next}");
        assert_eq!(told.header("link"), format!("<{path}>; rel=\"next\""));
    }
}

#[tokio::test]
async fn following_the_pages_shows_every_session() {
    on_both(async |plan| {
        let app = plan.start().await;
        let (api, gateway) = (Api::of(&app), app.gateway().await);
        let empty = api.get("/v1/sessions").await;
        assert_eq!(
            (empty.status.as_u16(), empty.body),
            (200, json!({"sessions": []}))
        );
        let mut expected = BTreeSet::new();
        for user in 0..120 {
            let starts = (0..user % 4).map(async |session| {
                let user = format!("user-{user}");
                let told = api
                    .put(&user, &format!("p{session}"), json!({"device": "tv"}))
                    .await;
                assert_eq!(told.status, 201);
                format!("{user}/p{session}")
            });
            expected.extend(join_all(starts).await);
        }
        assert!(gateway.check(Check::of("a/{b}%", "r1")).await.is_allowed());
        expected.insert("a/{b}%/r1".to_owned());
        for size in [1, 10, 100, 1000] {
            let (found, pages) = follow(&api, size).await;
            assert_eq!(found, expected, "pages of {size}");
            if size >= 10 {
                assert!(
                    pages <= 1 + 2 * expected.len() / size + 20,
                    "{pages} pages of {size}"
                );
            }
        }
        app.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_page_shows_a_session_as_its_user_s_own_list_does() {
    let app = TestApp::plan().start().await;
    let api = Api::of(&app);
    api.put(
        "anna",
        "p1",
        json!({"device": "tv", "content": "film", "position": 7}),
    )
    .await;
    let mut session = api.get("/v1/users/anna/sessions/p1").await.body;
    session["user"] = json!("anna");
    let page = api.get("/v1/sessions").await;
    assert_eq!(page.body, json!({"sessions": [session]}));
    app.stop().await;
}

#[tokio::test]
async fn a_bad_page_cursor_is_400_and_an_outage_503() {
    let store = FaultyStore::new();
    let app = TestApp::plan().store(store.clone()).start().await;
    let api = Api::of(&app);
    for (query, named) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=-1", "limit"),
        ("limit=", "limit"),
        ("cursor=x", "cursor"),
        ("cursor=", "cursor"),
        ("cursor=1.%21", "cursor"),
        ("cursr=1", "\"cursr\" is unknown"),
        ("limit=1&limit=1", "twice"),
    ] {
        let told: Told = api.get(&format!("/v1/sessions?{query}")).await;
        told.is_problem(400, "bad_request");
        let detail = told.body["detail"].as_str().expect("a text");
        assert!(detail.contains(named), "{query}: {detail}");
    }
    assert_eq!(store.calls("page"), 0);
    store.fails(&Fault::LosesCalls);
    let told = api.get("/v1/sessions").await;
    told.is_problem(503, "outage");
    assert_eq!(told.header("retry-after"), "1");
    app.stop().await;
}
