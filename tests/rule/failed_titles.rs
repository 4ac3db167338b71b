//! A title that can't be played costs no slot, through a real Envoy with both of the shipped access
//! loggers.

use std::collections::BTreeSet;

use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};

use testkit::envoy_files::{CLUSTERS, at_mut};
use testkit::gateway::{Setup, context};
use testkit::port::ReservedPort;
use testkit::stack::Stack;
use testkit::streamgate::{Setting, Streamgate};
use testkit::viewers::{Answer, Viewers};
use testkit::watch::eventually;

/// What the backend has.
const FILM: &str = "/vod/demo/index.m3u8";

/// What it hasn't.
const MISSING: &str = "/vod/demo/missing.m3u8";

/// A file of an unreachable origin.
const DEAD: &str = "/dead/index.m3u8";

/// What Envoy answers itself with that status.
fn answers(status: u16) -> String {
    format!("/answers-{status}/index.m3u8")
}

/// The demo's Envoy, with a dead origin and routes that answer with a status of their own.
fn with_failures(setup: Setup, dead: &ReservedPort) -> Setup {
    let playbacks = || context(json!({"streamgate.session": "header:x-playback-session-id"}));
    let setup = setup.edit(|config| {
        let clusters = at_mut(config, CLUSTERS).as_array_mut().unwrap();
        let backend = clusters.iter().find(|cluster| cluster["name"] == "backend");
        let mut cluster = backend.unwrap().clone();
        cluster["name"] = "dead".into();
        clusters.push(cluster);
    });
    let setup = setup.cluster("dead", &[dead.address()]);
    let setup = setup.route(json!({
        "match": {"path_separated_prefix": "/dead"},
        "route": {"cluster": "dead", "timeout": "5s"},
        "typed_per_filter_config": playbacks(),
    }));
    [304, 403, 416, 500]
        .into_iter()
        .fold(setup, |setup, status| {
            setup.route(json!({
                "match": {"path_separated_prefix": format!("/answers-{status}")},
                "direct_response": {"status": status},
                "typed_per_filter_config": playbacks(),
            }))
        })
}

/// Everything that is needed to fail.
struct Scene {
    stack: Stack,
    _dead: ReservedPort,
}

impl Scene {
    async fn start(settings: &[Setting<'_>]) -> Self {
        let dead = ReservedPort::reserve();
        let mut all = vec![
            ("limits.grace", "0s"),
            ("leases.playback", "1h"),
            ("leases.request", "1h"),
        ];
        all.extend(settings);
        let stack = Stack::start_with(&all, |setup| with_failures(setup, &dead)).await;
        Self { stack, _dead: dead }
    }

    fn viewers(&self) -> &Viewers {
        &self.stack.viewers
    }

    fn streamgate(&self) -> &Streamgate {
        &self.stack.streamgate
    }

    /// A request of a user's playback.
    fn asks(&self, user: &str, id: &str, path: &str) -> RequestBuilder {
        let request = self.viewers().http1(user, path);
        request.header("x-playback-session-id", id)
    }

    /// The ids of a user's live sessions.
    async fn live(&self, user: &str) -> Vec<String> {
        let path = format!("/v1/users/{user}/sessions");
        let url = format!("http://{}{path}", self.streamgate().http);
        let told: Value = reqwest::get(url).await.unwrap().json().await.unwrap();
        let sessions = told["sessions"].as_array().unwrap().iter();
        let ids = sessions.map(|session| session["session"].as_str().unwrap().to_owned());
        ids.collect()
    }

    /// Waits until just these are live.
    async fn live_become(&self, user: &str, ids: &[&str]) {
        let what = format!("{ids:?} of {user} are live");
        eventually(&what, async || self.live(user).await == ids).await;
    }

    /// Asks for an unavailable title until the answer is that error, rather than a full limit.
    async fn fails(&self, user: &str, id: &str, path: &str, status: u16) {
        let what = format!("{path} is {status} for {user}");
        eventually(&what, async || {
            let refusal = self.viewers().refused(self.asks(user, id, path)).await;
            let is_ours = ["full", "displaced"].contains(&refusal.reason());
            assert!(is_ours || refusal.status == status, "{refusal}");
            (!is_ours).then_some(())
        })
        .await;
    }

    /// A film that can be had.
    async fn plays(&self, user: &str, id: &str) {
        let playing = self.viewers().let_in(self.asks(user, id, FILM)).await;
        assert_eq!(playing.session, id);
        assert!(playing.rest().await > 0);
    }

    /// The ends of requests that have been heard of, each from both loggers.
    async fn ends_heard(&self) -> f64 {
        let name = "streamgate_access_log_entries_total";
        self.streamgate().metric(name, &[("type", "end")]).await
    }

    /// Waits until both loggers have reported that many further ends of requests, and the store
    /// knows them.
    async fn hears_ends(&self, before: f64, requests: f64) {
        let name = "streamgate_access_log_entries_total";
        let enough = |heard: f64| heard >= before + 2.0 * requests;
        let streamgate = self.streamgate();
        streamgate
            .metric_becomes(name, &[("type", "end")], enough)
            .await;
        let told = |pending: f64| pending == 0.0;
        streamgate
            .metric_becomes("streamgate_releaser_pending", &[], told)
            .await;
    }
}

#[tokio::test]
async fn a_missing_title_and_a_dead_origin_leave_no_slot_taken() {
    let scene = Scene::start(&[]).await;
    let failures = [
        (MISSING.to_owned(), 404),
        (DEAD.to_owned(), 503),
        (answers(403), 403),
        (answers(416), 416),
        (answers(500), 500),
    ];
    for (number, (path, status)) in failures.into_iter().enumerate() {
        let user = format!("user-{number}");
        let before = scene.ends_heard().await;
        for id in ["p1", "p2", "p3", "p4"] {
            scene.fails(&user, id, &path, status).await;
        }
        scene.hears_ends(before, 4.0).await;
        assert_eq!(scene.live(&user).await, [""; 0], "{path}");
        // The same ids can be used for what can be had: nothing of them was ever ended.
        for id in ["p1", "p2", "p9"] {
            scene.plays(&user, id).await;
        }
        let live = scene.live(&user).await;
        assert_eq!(live, ["p1", "p2", "p9"], "{path}");
    }
}

#[tokio::test]
async fn a_takeover_for_a_title_that_fails_ends_nobody() {
    // More than the budget would let in: a token that was spent in vain comes back.
    const TRIES: usize = 10;
    let scene = Scene::start(&[("limits.default", "1")]).await;
    for (user, path, status) in [("alice", MISSING, 404), ("bob", DEAD, 503)] {
        scene.plays(user, "mine").await;
        for number in 0..TRIES {
            let id = format!("p{number}");
            let request = scene.asks(user, &id, path);
            let request = request.header("x-streamgate-takeover", "oldest");
            let failed = scene.viewers().refused(request).await;
            assert_eq!(failed.status, status, "{failed}");
            scene.live_become(user, &[]).await;
            scene.plays(user, "mine").await;
            assert_eq!(scene.live(user).await, ["mine"]);
        }
    }
}

#[tokio::test]
async fn a_404_in_the_middle_of_a_playback_frees_nothing() {
    let scene = Scene::start(&[("limits.default", "1")]).await;
    for (user, status, request) in [
        ("plain", 200, scene.asks("plain", "p1", FILM)),
        (
            "range",
            206,
            scene.asks("range", "p1", FILM).header("range", "bytes=0-9"),
        ),
        ("cached", 304, scene.asks("cached", "p1", &answers(304))),
    ] {
        let before = scene.ends_heard().await;
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::from_u16(status).unwrap());
        drop(answer.bytes().await);
        scene.hears_ends(before, 1.0).await;
        let before = scene.ends_heard().await;
        let missing = scene
            .viewers()
            .refused(scene.asks(user, "p1", MISSING))
            .await;
        assert_eq!(missing.status, 404, "{missing}");
        scene.hears_ends(before, 1.0).await;
        assert_eq!(scene.live(user).await, ["p1"]);
        let full = scene.viewers().refused(scene.asks(user, "p2", FILM)).await;
        assert_eq!((full.status.as_u16(), full.reason()), (429, "full"));
        assert_eq!(full.holders(), BTreeSet::from(["p1"]));
    }
}

/// A player that tries again with the id that failed is let in as if nothing had been.
#[tokio::test]
async fn a_retry_with_the_same_id_starts_anew() {
    let scene = Scene::start(&[("limits.default", "1")]).await;
    for _ in 0..5 {
        let before = scene.ends_heard().await;
        scene.fails("alice", "p1", MISSING, 404).await;
        scene.hears_ends(before, 1.0).await;
        assert_eq!(scene.live("alice").await, [""; 0]);
    }
    let before = scene.ends_heard().await;
    match scene.viewers().ask(scene.asks("alice", "p1", FILM)).await {
        Answer::LetIn(playing) => assert!(playing.rest().await > 0),
        Answer::Refused(refusal) => panic!("{refusal}"),
    }
    scene.hears_ends(before, 1.0).await;
    assert_eq!(scene.live("alice").await, ["p1"]);
}
