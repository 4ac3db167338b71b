//! The small API over real HTTP, on both stores: a user's name, a video's id, four methods.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use streamgate::clock::{ManualClock, Timestamp};
use streamgate::config::OutageRule;

use streamgate::store::faulty::{Fault, FaultyStore};
use testkit::api::{Api, Told, on_both};
use testkit::app::TestApp;
use testkit::watch::eventually;

/// A user of the small API.
struct Viewer<'a> {
    api: Api<'a>,
    name: &'a str,
}

impl Viewer<'_> {
    async fn tells(&self, method: Method, video: &str, body: Option<Value>) -> Told {
        let path = format!("/?id={video}");
        let request = self.api.request(method, &path);
        let request = request.basic_auth(self.name, Some("any password"));
        Told::by(match body {
            Some(body) => request.json(&body),
            None => request,
        })
        .await
    }

    async fn asks(&self, method: Method, video: &str) -> (u16, Value) {
        let told = self.tells(method, video, None).await;
        (told.status.as_u16(), told.body)
    }
}

/// What a viewer is answered.
fn watch(can_watch: bool, count: u32) -> Value {
    json!({"canWatch": can_watch, "endpoint": null, "count": count})
}

#[tokio::test]
async fn a_video_is_asked_for_started_renewed_and_stopped() {
    on_both(async |plan| {
        let app = plan.limit(2).start().await;
        let anna = Viewer {
            api: Api::of(&app),
            name: "anna",
        };
        assert_eq!(anna.asks(Method::GET, "a").await, (200, watch(true, 0)));
        anna.tells(Method::PATCH, "a", None)
            .await
            .is_problem(404, "not_live");
        let started = anna.tells(Method::POST, "a", None).await;
        assert_eq!(
            (started.status.as_u16(), &started.body),
            (201, &watch(true, 1))
        );
        assert_eq!(started.header("ratelimit"), "\"streams\";r=1");
        // A client that doesn't know whether its start worked repeats it.
        assert_eq!(anna.asks(Method::POST, "a").await, (200, watch(true, 1)));
        let renewed = anna
            .tells(Method::PATCH, "a", Some(json!({"time": "1:02:03"})))
            .await;
        assert_eq!(
            (renewed.status.as_u16(), &renewed.body),
            (200, &watch(true, 1))
        );
        assert_eq!(anna.asks(Method::POST, "b").await, (201, watch(true, 2)));
        // A live video may continue; another one finds no slot.
        assert_eq!(anna.asks(Method::GET, "a").await, (200, watch(true, 2)));
        assert_eq!(anna.asks(Method::GET, "c").await, (200, watch(false, 2)));
        let full = anna.tells(Method::POST, "c", None).await;
        full.is_problem(429, "full");
        let holders = full.body["sessions"].as_array().expect("a list");
        assert_eq!(holders[0]["content"], "a", "what plays is the video");
        anna.tells(Method::PATCH, "c", None)
            .await
            .is_problem(404, "not_live");
        for _ in 0..2 {
            assert_eq!(anna.asks(Method::DELETE, "a").await, (204, Value::Null));
        }
        anna.tells(Method::PATCH, "a", None)
            .await
            .is_problem(404, "not_live");
        // A video can be watched again.
        assert_eq!(anna.asks(Method::POST, "a").await, (201, watch(true, 2)));
        app.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_video_is_one_of_its_user_s_streams_and_nobody_else_s() {
    on_both(async |plan| {
        let app = plan.limit(2).start().await;
        let api = Api::of(&app);
        let (anna, ben) = (
            Viewer {
                api: api.clone(),
                name: "anna",
            },
            Viewer {
                api: api.clone(),
                name: "ben",
            },
        );
        assert_eq!(api.put("anna", "film", json!({})).await.status, 201);
        // The playback of that name is another stream.
        assert_eq!(anna.asks(Method::POST, "film").await, (201, watch(true, 2)));
        assert_eq!(ben.asks(Method::GET, "film").await, (200, watch(true, 0)));
        anna.tells(Method::PATCH, "film", Some(json!({"time": "90"})))
            .await;
        let path = "/v1/users/anna/sessions/film";
        let video = api.get(&format!("{path}?kind=video")).await;
        assert_eq!(
            (&video.body["position"], &video.body["content"]),
            (&json!(90), &json!("film"))
        );
        assert_eq!(api.get(path).await.body["kind"], "playback");
        // Who takes its slot over stops it, and it hears of that.
        let taken = json!({"takeover": "film"});
        api.delete(path).await;
        assert_eq!(api.put("anna", "p2", json!({})).await.status, 201);
        assert_eq!(api.put("anna", "p3", taken).await.status, 201);
        anna.tells(Method::PATCH, "film", None)
            .await
            .is_problem(410, "displaced");
        app.stop().await;
    })
    .await;
}

#[tokio::test]
async fn an_endpoint_is_made_of_the_template_with_the_id_escaped() {
    let plan = TestApp::plan().endpoint("https://cdn.example/{id}/index.m3u8?x=1");
    let app = plan.start().await;
    let anna = Viewer {
        api: Api::of(&app),
        name: "anna",
    };
    for (asked, endpoint) in [
        ("film7", "https://cdn.example/film7/index.m3u8?x=1"),
        (
            "a%2Fb+c%26d",
            "https://cdn.example/a%2Fb%20c%26d/index.m3u8?x=1",
        ),
        ("%C3%A9", "https://cdn.example/%C3%A9/index.m3u8?x=1"),
        ("..%2F..", "https://cdn.example/..%2F../index.m3u8?x=1"),
    ] {
        for (method, status) in [
            (Method::GET, 200),
            (Method::POST, 201),
            (Method::PATCH, 200),
        ] {
            let told = anna.tells(method, asked, None).await;
            assert_eq!(
                (told.status.as_u16(), &told.body["endpoint"]),
                (status, &json!(endpoint))
            );
        }
        anna.asks(Method::DELETE, asked).await;
    }
    app.stop().await;
}

#[tokio::test]
async fn an_endpoint_is_null_where_there_is_no_template() {
    let app = TestApp::plan().start().await;
    let anna = Viewer {
        api: Api::of(&app),
        name: "anna",
    };
    for method in [Method::GET, Method::POST, Method::PATCH] {
        let told = anna.tells(method, "film7", None).await;
        let told = told.body.as_object().expect("an object");
        assert_eq!(told.get("endpoint"), Some(&Value::Null), "{told:?}");
    }
    app.stop().await;
}

#[tokio::test]
async fn a_user_s_name_may_have_a_colon_in_its_password_and_must_be_there() {
    let app = TestApp::plan().start().await;
    let api = Api::of(&app);
    for (encoded, status) in [
        ("YW5uYTo=", 200),     // anna:
        ("YW5uYTphOmI=", 200), // anna:a:b
        ("w6k6eA==", 200),     // é:x
        ("YW5uYQ==", 401),     // anna
        ("OnB3", 401),         // :pw
        ("//86eA==", 401),     // no UTF-8
        ("YW5uYTo", 401),      // padding is missing
        ("!", 401),
        ("", 401),
        ("YW4HbmE6eA==", 400), // a control character
    ] {
        let told = api
            .with("authorization", format!("Basic {encoded}"))
            .get("/?id=x")
            .await;
        assert_eq!(told.status, status, "{encoded}: {told:?}");
    }
    let told = api.get("/?id=x").await;
    told.is_problem(401, "unauthorized");
    let twice = api
        .with("authorization", "Basic YW5uYTo=")
        .with("authorization", "Basic YmVuOg==");
    twice.get("/?id=x").await.is_problem(401, "unauthorized");
    app.stop().await;
}

#[tokio::test]
async fn a_bad_video_or_time_is_400_with_the_reason() {
    let store = FaultyStore::new();
    let app = TestApp::plan().store(store.clone()).start().await;
    let api = Api::of(&app).with("authorization", "Basic YW5uYTo=");
    let long = format!("/?id={}", "x".repeat(257));
    for (path, named) in [
        ("/", "\"id\" is missing"),
        ("/?id=", "The id is empty"),
        ("/?id", "The id is empty"),
        ("/?id=a&id=b", "occurs twice"),
        ("/?id=a&plan=gold", "\"plan\" is unknown"),
        ("/?id=%00", "control character"),
        ("/?id=%ff", "not valid UTF-8"),
        (&long, "has 257 bytes"),
    ] {
        for method in [Method::GET, Method::POST, Method::PATCH, Method::DELETE] {
            let told = api.call(method, path, None).await;
            told.is_problem(400, "bad_request");
            let detail = told.body["detail"].as_str().expect("a text");
            assert!(detail.contains(named), "{path}: {detail}");
        }
    }
    for body in [
        json!({"time": "1:60"}),
        json!({"time": 60}),
        json!({"tme": "1:00"}),
        json!([]),
    ] {
        for method in [Method::POST, Method::PATCH] {
            let told = api.call(method, "/?id=x", Some(body.clone())).await;
            told.is_problem(400, "bad_request");
        }
    }
    for operation in ["admit", "renew", "release", "list"] {
        assert_eq!(store.calls(operation), 0, "{operation}");
    }
    app.stop().await;
}

#[tokio::test]
async fn in_an_outage_a_video_that_is_held_goes_on_and_an_unknown_one_is_503() {
    for rule in [OutageRule::Deny, OutageRule::Allow, OutageRule::Local] {
        let store = FaultyStore::new();
        let app = TestApp::plan()
            .outage(rule)
            .store(store.clone())
            .start()
            .await;
        let anna = Viewer {
            api: Api::of(&app),
            name: "anna",
        };
        assert_eq!(anna.asks(Method::POST, "a").await.0, 201);
        store.fails(&Fault::LosesCalls);
        assert_eq!(anna.asks(Method::PATCH, "a").await.0, 200, "{rule:?}");
        anna.tells(Method::PATCH, "b", None)
            .await
            .is_problem(503, "outage");
        anna.tells(Method::GET, "a", None)
            .await
            .is_problem(503, "outage");
        assert_eq!(anna.asks(Method::DELETE, "a").await.0, 202);
        store.fails(&Fault::None);
        eventually("it is stopped", async || {
            store.live("anna").await.is_empty()
        })
        .await;
        app.stop().await;
    }
}

#[tokio::test]
async fn a_video_that_the_store_has_forgotten_is_started_again() {
    let store = FaultyStore::new();
    let app = TestApp::plan().store(store.clone()).start().await;
    let anna = Viewer {
        api: Api::of(&app),
        name: "anna",
    };
    assert_eq!(anna.asks(Method::POST, "a").await.0, 201);
    store.sound.forget(|_| true);
    // It may also have been stopped through another instance, because the end of a video is not
    // remembered.
    let renewed = anna.tells(Method::PATCH, "a", None).await;
    renewed.is_problem(404, "not_live");
    assert_eq!(anna.asks(Method::POST, "a").await, (201, watch(true, 1)));
    app.stop().await;
}

#[tokio::test]
async fn through_a_long_outage_a_video_goes_on_and_holds_its_slot_where_a_rule_counts() {
    for rule in [OutageRule::Allow, OutageRule::Local] {
        let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_000_000)));
        let store = FaultyStore::at(clock.clone());
        let plan = TestApp::plan().limit(2).outage(rule).clock(clock.clone());
        let app = plan.store(store.clone()).start().await;
        let anna = Viewer {
            api: Api::of(&app),
            name: "anna",
        };
        assert_eq!(anna.asks(Method::POST, "before").await.0, 201);
        store.fails(&Fault::LosesCalls);
        assert_eq!(anna.asks(Method::POST, "during").await.0, 201, "{rule:?}");
        // Well beyond the lease of 30 s.
        for turn in 0..8 {
            clock.advance(Duration::from_secs(10));
            for video in ["before", "during"] {
                let told = anna.asks(Method::PATCH, video).await;
                assert_eq!(told.0, 200, "{rule:?} {video} in turn {turn}: {told:?}");
            }
            if rule == OutageRule::Local {
                let other = anna.tells(Method::POST, "other", None).await;
                other.is_problem(429, "full");
            }
        }
        store.fails(&Fault::None);
        eventually("the store is told", async || {
            let live = store.live("anna").await;
            live.len() == 2 && live.contains(&"during".to_owned())
        })
        .await;
        app.stop().await;
    }
}

#[tokio::test]
async fn a_displaced_video_is_told_so_and_starts_anew_as_soon_as_there_is_a_slot() {
    on_both(async |plan| {
        let app = plan.limit(1).start().await;
        let api = Api::of(&app);
        let anna = Viewer {
            api: api.clone(),
            name: "anna",
        };
        assert_eq!(anna.asks(Method::POST, "film").await.0, 201);
        let taken = api.put("anna", "p1", json!({"takeover": "film"})).await;
        assert_eq!(taken.status, 201, "{taken:?}");
        for method in [Method::PATCH, Method::POST] {
            assert_eq!(anna.asks(Method::GET, "film").await, (200, watch(false, 1)));
            let gone = anna.tells(method, "film", None).await;
            gone.is_problem(410, "displaced");
            assert_eq!(gone.body["displaced_by"]["session"], "p1");
        }
        api.delete("/v1/users/anna/sessions/p1").await;
        // It doesn't continue on its own; `can_watch` is true.
        assert_eq!(anna.asks(Method::GET, "film").await, (200, watch(true, 0)));
        let gone = anna.tells(Method::PATCH, "film", None).await;
        gone.is_problem(410, "displaced");
        assert_eq!(anna.asks(Method::POST, "film").await, (201, watch(true, 1)));
        assert_eq!(
            anna.asks(Method::PATCH, "film").await,
            (200, watch(true, 1))
        );
        // The same after an operator's end.
        api.delete("/v1/users/anna/sessions").await;
        let gone = anna.tells(Method::PATCH, "film", None).await;
        gone.is_problem(410, "operator");
        assert_eq!(anna.asks(Method::POST, "film").await, (201, watch(true, 1)));
        app.stop().await;
    })
    .await;
}
