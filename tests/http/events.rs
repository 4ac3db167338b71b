//! `GET /v1/events`: what several instances tell one listener, in order; who may listen; and how a
//! stream of events ends.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use streamgate::clock::Stopwatch;
use streamgate::config::OutageRule;
use streamgate::store::faulty::{Fault, FaultyStore};
use testkit::api::Api;
use testkit::app::{Plan, TestApp, TokensFile};
use testkit::cluster::RedisCluster;
use testkit::gateway_client::{Check, Gateway};
use testkit::process::Process;
use testkit::redis::RedisServer;
use testkit::streamgate::{Streamgate, program, run};
use testkit::watch::{PATIENCE, eventually};

use super::access;

/// A stream of events, as a client reads it.
struct Followed {
    /// The answer.
    answer: reqwest::Response,
    /// What has come and isn't read yet.
    text: String,
}

impl Followed {
    /// Follows events, with these headers.
    async fn by(api: &Api<'_>, path: &str) -> Self {
        let answer = api.request(Method::GET, path).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        assert_eq!(answer.headers()["cache-control"], "no-store");
        let mut followed = Self {
            answer,
            text: String::new(),
        };
        // From the first comment on, nothing is missed.
        assert_eq!(followed.block().await.as_deref(), Some(":"));
        followed
    }

    /// What comes next, up to an empty line; none if the stream has ended.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let block = block.to_owned();
                self.text = rest.to_owned();
                return Some(block);
            }
            let chunk = timeout(PATIENCE, self.answer.chunk()).await;
            let chunk = chunk.expect("in time").ok().flatten()?;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// The next event; none if the stream has ended.
    async fn next(&mut self) -> Option<Value> {
        loop {
            let block = self.block().await?;
            let data = block.lines().find_map(|line| line.strip_prefix("data: "));
            if let Some(data) = data {
                let event: Value = serde_json::from_str(data).unwrap();
                let field = |name: &str, of: &str| {
                    format!("{name}: {}", event[of].as_str().unwrap_or_default())
                };
                let lines: Vec<_> = block.lines().collect();
                let mut heads = vec![field("event", "type")];
                if event.get("id").is_some() {
                    heads.insert(0, field("id", "id"));
                }
                assert_eq!(lines[..lines.len() - 1], heads);
                return Some(event);
            }
        }
    }

    /// The next events about sessions, each as `type session`.
    async fn sessions(&mut self, count: usize) -> Vec<String> {
        let mut seen = Vec::new();
        while seen.len() < count {
            let event = self.next().await.expect("an event");
            let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
            if event.get("session").is_some() {
                seen.push(format!("{} {}", text("type"), text("session")));
            }
        }
        seen
    }
}

/// Waits until both instances hear each other.
async fn hear_each_other(one: &Api<'_>, other: &Api<'_>, of_one: &mut Followed) {
    for attempt in 0.. {
        assert!(attempt < 200, "they never hear each other");
        for (api, name) in [(one, "one"), (other, "other")] {
            let id = format!("{name}-{attempt}");
            assert_eq!(api.put("probe", &id, json!({})).await.status, 201);
        }
        let last = format!("one-{attempt}");
        let mut has_heard_other = false;
        loop {
            let event = of_one.next().await.unwrap();
            let session = event["session"].as_str().unwrap_or_default();
            has_heard_other |= session.starts_with("other-");
            if session == last {
                break;
            }
        }
        if has_heard_other {
            return;
        }
    }
}

/// Lets a user start and stop at two instances in turn, and reads all of it, in order, at one.
async fn both_in_one_stream(plan: impl Fn() -> Plan) {
    let (a, b) = (
        plan().limit(10_000).start().await,
        plan().limit(10_000).start().await,
    );
    let (one, other) = (Api::of(&a), Api::of(&b));
    let mut followed = Followed::by(&one, "/v1/events").await;
    hear_each_other(&one, &other, &mut followed).await;
    let mut of_user = Followed::by(&one, "/v1/events?user=anna").await;
    let mut expected = Vec::new();
    for round in 0..20 {
        let id = format!("p{round}");
        let path = format!("/v1/users/anna/sessions/{id}");
        let (starts, ends) = if round % 2 == 0 {
            (&one, &other)
        } else {
            (&other, &one)
        };
        assert_eq!(
            starts
                .put("anna", &id, json!({"device": "tv"}))
                .await
                .status,
            201
        );
        assert_eq!(ends.delete(&path).await.status, 204);
        expected.extend([format!("started {id}"), format!("ended {id}")]);
    }
    assert_eq!(of_user.sessions(expected.len()).await, expected);
    drop((followed, of_user));
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn events_of_two_instances_on_one_redis_come_in_order() {
    let redis = RedisServer::start();
    let url = redis.url();
    both_in_one_stream(|| TestApp::plan().redis(&url, PATIENCE)).await;
}

#[tokio::test]
async fn events_of_two_instances_on_a_cluster_come_in_order() {
    let cluster = RedisCluster::start();
    let urls = cluster.urls();
    both_in_one_stream(|| TestApp::plan().cluster(&urls, PATIENCE)).await;
}

#[tokio::test]
async fn without_the_right_to_a_channel_a_stream_says_that_it_lacks_others() {
    let redis = RedisServer::start();
    let all = ["ACL", "SETUSER", "gate", "on", ">secret", "~*", "+@all"];
    redis.run::<String>(&[&all[..], &["-@pubsub", "resetchannels"]].concat());
    let url = redis.url_as("gate", "secret");
    let app = TestApp::plan().redis(&url, PATIENCE).start().await;
    let api = Api::of(&app);
    // Its first listener hears that once the store has been asked, and later ones at once.
    for session in ["p1", "p2"] {
        let mut followed = Followed::by(&api, "/v1/events").await;
        let gap = followed.next().await.unwrap();
        assert_eq!(gap["type"], "gap");
        let why = gap["detail"].as_str().unwrap();
        let told = "the events of other instances don't come, because the store refuses that: ";
        assert!(why.starts_with(told) && why.contains("NOPERM"), "{why}");
        // Everything else works, this instance's own events too.
        assert_eq!(api.put("anna", session, json!({})).await.status, 201);
        let expected = format!("started {session}");
        assert_eq!(followed.sessions(1).await, [expected]);
    }
    assert_eq!(app.metric("streamgate_store_up ").await, 1);
    app.stop().await;
}

/// The event's members of these names.
fn members(event: &Value, names: &[&str]) -> Value {
    names.iter().map(|name| event[*name].clone()).collect()
}

#[tokio::test]
async fn each_event_about_a_session_says_what_happened() {
    let app = TestApp::plan().limit(1).start().await;
    let api = Api::of(&app);
    let mut followed = Followed::by(&api, "/v1/events").await;
    let facts = json!({"device": "tv", "content": "film-7"});
    assert_eq!(api.put("anna", "p1", facts).await.status, 201);
    let started = followed.next().await.unwrap();
    let names = ["type", "user", "session", "kind", "device", "content"];
    let expected = json!(["started", "anna", "p1", "playback", "tv", "film-7"]);
    assert_eq!(members(&started, &names), expected);
    let gateway = app.gateway().await;
    let check = gateway.check(Check::of_playback("anna", "p2")).await;
    assert!(!check.is_allowed());
    let refused = followed.next().await.unwrap();
    let told = members(&refused, &["type", "session", "reason"]);
    assert_eq!(told, json!(["refused", "p2", "full"]));
    let takeover = json!({"takeover": "oldest"});
    assert_eq!(api.put("anna", "p3", takeover).await.status, 201);
    let displaced = followed.next().await.unwrap();
    let told = members(&displaced, &["type", "session", "by"]);
    assert_eq!(told, json!(["displaced", "p1", "p3"]));
    assert_eq!(followed.sessions(1).await, ["started p3"]);
    api.delete("/v1/users/anna/sessions/p3").await;
    let ended = followed.next().await.unwrap();
    let told = members(&ended, &["type", "session", "cause"]);
    assert_eq!(told, json!(["ended", "p3", "released"]));
    drop(followed);
    app.stop().await;
}

#[tokio::test]
async fn an_operator_is_named_by_the_label_of_the_token() {
    let file = TokensFile::of("hunter2 operator;label=night-shift\n");
    let app = TestApp::plan().tokens(&file).start().await;
    let api = Api::of(&app).with_token("hunter2");
    let mut followed = Followed::by(&api, "/v1/events").await;
    assert_eq!(api.put("anna", "p1", json!({})).await.status, 201);
    assert_eq!(api.delete("/v1/users/anna/sessions").await.status, 200);
    let mut told = Vec::new();
    for _ in 0..3 {
        let event = followed.next().await.unwrap();
        told.push(members(&event, &["type", "user", "cause", "by", "detail"]));
    }
    told.sort_by_key(ToString::to_string);
    let expected = [
        json!(["ended", "anna", "operator", null, null]),
        json!([
            "operator_call",
            "anna",
            null,
            "night-shift",
            "ended all sessions"
        ]),
        json!(["started", "anna", null, null, null]),
    ];
    assert_eq!(told, expected);
    drop(followed);
    app.stop().await;
}

#[tokio::test]
async fn an_outage_has_a_beginning_and_an_end() {
    let store = FaultyStore::new();
    let plan = TestApp::plan().outage(OutageRule::Deny);
    let app = plan.store(store.clone()).start().await;
    let api = Api::of(&app);
    let mut followed = Followed::by(&api, "/v1/events").await;
    store.fails(&Fault::LosesCalls);
    api.put("anna", "p1", json!({})).await;
    while followed.next().await.unwrap()["type"] != "outage_begun" {
        api.put("anna", "p1", json!({})).await;
    }
    store.fails(&Fault::None);
    while followed.next().await.unwrap()["type"] != "outage_over" {}
    drop(followed);
    app.stop().await;
}

#[tokio::test]
async fn a_client_continues_after_a_break() {
    let app = TestApp::plan().limit(10).start().await;
    let api = Api::of(&app);
    let mut followed = Followed::by(&api, "/v1/events").await;
    api.put("anna", "p1", json!({})).await;
    let first = followed.next().await.unwrap();
    drop(followed);
    api.put("anna", "p2", json!({})).await;
    let last = api.with("last-event-id", first["id"].as_str().unwrap());
    let mut again = Followed::by(&last, "/v1/events").await;
    assert_eq!(again.sessions(1).await, ["started p2"]);
    let unknown = api.with("last-event-id", "7");
    let mut lost = Followed::by(&unknown, "/v1/events").await;
    assert_eq!(lost.next().await.unwrap()["type"], "gap");
    drop((again, lost));
    app.stop().await;
}

#[tokio::test]
async fn only_operators_of_all_users_may_listen() {
    let file = TokensFile::of(&format!(
        "{}old-token operator;expires=2020-01-01T00:00:00Z\n",
        access::TOKENS
    ));
    let app = TestApp::plan().tokens(&file).start().await;
    let open = Api::of(&app);
    for (name, headers) in access::CALLERS {
        let api = headers
            .iter()
            .fold(open.clone(), |api, (name, value)| api.with(name, *value));
        if name == "operator" {
            drop(Followed::by(&api, "/v1/events").await);
            continue;
        }
        let told = api.get("/v1/events").await;
        match name {
            "nobody" | "wrong" | "basic" => told.is_problem(401, "unauthorized"),
            _ => told.is_problem(403, "forbidden"),
        }
    }
    let expired = open.with_token("old-token").get("/v1/events").await;
    expired.is_problem(401, "unauthorized");
    assert_eq!(
        expired.body["detail"],
        "The token has expired. Use a new one."
    );
    assert!(expired.header("www-authenticate").contains("invalid_token"));
    let api = open.with_token("operator-token");
    for query in ["?user=", "?user=%00", "?user=a&user=b", "?who=anna"] {
        let told = api.get(&format!("/v1/events{query}")).await;
        told.is_problem(400, "bad_request");
    }
    app.stop().await;
}

#[tokio::test]
async fn a_stream_outlives_the_time_limit_of_requests_and_ends_with_the_instance() {
    let limit = Duration::from_millis(100);
    let app = TestApp::plan().request_timeout(limit).start().await;
    let api = Api::of(&app);
    let mut followed = Followed::by(&api, "/v1/events").await;
    tokio::time::sleep(limit * 3).await;
    api.put("anna", "p1", json!({})).await;
    assert_eq!(followed.sessions(1).await, ["started p1"]);
    assert_eq!(app.metric("streamgate_event_listeners ").await, 1);
    app.ask_to_stop();
    assert_eq!(followed.next().await, None);
    app.stopped().await.expect("nothing hinders the drain");
}

#[tokio::test]
async fn a_listener_that_has_left_is_forgotten() {
    let app = TestApp::plan().start().await;
    let api = Api::of(&app);
    drop(Followed::by(&api, "/v1/events").await);
    eventually("it is forgotten", async || {
        app.metric("streamgate_event_listeners ").await == 0
    })
    .await;
    app.stop().await;
}

/// How long the checks of one round last.
const ROUND: Duration = Duration::from_secs(5);

/// The time of checks while starts are told, in microseconds: the median and the 99th percentile.
pub(super) async fn check_times(gateway: &Gateway, round: usize) -> (u128, u128) {
    let began = Stopwatch::start();
    let checks = async {
        let mut times = Vec::new();
        while began.elapsed() < ROUND {
            let asked = Stopwatch::start();
            gateway.check(Check::of_playback("ben", "p")).await;
            times.push(asked.elapsed().as_micros());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        times.sort_unstable();
        (times[times.len() / 2], times[times.len() * 99 / 100])
    };
    let starts = async {
        let mut number = 0;
        while began.elapsed() < ROUND {
            number += 1;
            let user = format!("user-{round}-{number}");
            gateway.check(Check::of_playback(&user, "p")).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::join!(Box::pin(checks), Box::pin(starts)).0
}

/// Prints what a crowd of listeners costs checks and memory, in a process of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: STREAMGATE_TEST_LISTENERS says how many"]
async fn a_crowd_of_listeners_costs_checks_little() {
    let count = std::env::var_os("STREAMGATE_TEST_LISTENERS");
    let count: usize = count.map_or(1_000, |count| count.to_str().unwrap().parse().unwrap());
    let streamgate = Streamgate::start(&[]).await;
    let gateway = Gateway::connect(streamgate.grpc).await;
    let mut readers = JoinSet::new();
    for round in 0..3 {
        let (median, late) = check_times(&gateway, 2 * round).await;
        let memory = streamgate.memory().0 / 1024;
        println!("measured no listeners: median {median} us, p99 {late} us, {memory} MiB");
        for _ in 0..count {
            let mut stream = TcpStream::connect(streamgate.http).await.unwrap();
            stream
                .write_all(b"GET /v1/events HTTP/1.1\r\nhost: localhost\r\n\r\n")
                .await
                .unwrap();
            readers.spawn(async move {
                let mut buffer = vec![0; 4096];
                while let Ok(1..) = stream.read(&mut buffer).await {}
            });
        }
        let listeners = "streamgate_event_listeners";
        let all = count as f64;
        streamgate
            .metric_becomes(listeners, &[], |now| now == all)
            .await;
        let (median, late) = check_times(&gateway, 2 * round + 1).await;
        let memory = streamgate.memory().0 / 1024;
        println!("measured {count} listeners: median {median} us, p99 {late} us, {memory} MiB");
        readers.shutdown().await;
        streamgate
            .metric_becomes(listeners, &[], |now| now == 0.0)
            .await;
    }
}

#[tokio::test]
async fn the_command_shows_events_until_it_is_stopped() {
    let app = TestApp::plan().start().await;
    let url = app.url("");
    let mut shown = Process::start("events", program(&["events", "--url", &url], &[]));
    eventually("it listens", async || {
        app.metric("streamgate_event_listeners ").await == 1
    })
    .await;
    Api::of(&app)
        .put("anna", "p1", json!({"device": "tv"}))
        .await;
    let line = "started     anna  p1  playback  device=tv\n";
    let find = |text: &str| text.contains(line).then_some(());
    shown.says("the start", find).await;
    shown.kill().await;
    app.stop().await;
    let refused = run(&["events", "--url", &url], &[]).await;
    assert_eq!(refused.0, 3, "nothing listens there any more: {refused:?}");
}
