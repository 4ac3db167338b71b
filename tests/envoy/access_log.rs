//! The access log door over real HTTP/2: how entries change sessions, in any order and state, and
//! that none is lost.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::data::accesslog::v3::{AccessLogType, HttpAccessLogEntry};
use prost::Message;
use streamgate::clock::ManualClock;
use tokio::task::JoinSet;

use streamgate::store::faulty::{Fault, FaultyStore};
use testkit::app::TestApp;
use testkit::gateway_client::{
    Check, LogStream, abandoned, answered, end, entry, message, periodic,
};
use testkit::watch::eventually;

/// A store whose clock stands still, so that no lease runs out.
fn timeless() -> Arc<FaultyStore> {
    FaultyStore::at(Arc::new(ManualClock::default()))
}

#[tokio::test]
async fn the_end_of_a_stream_frees_its_slot_and_can_be_told_twice() {
    let app = TestApp::plan().limit(1).store(timeless()).start().await;
    let gateway = app.gateway().await;
    let first = gateway.check(Check::of("anna", "r1")).await;
    let (mut fast, mut durable) = (gateway.access_log().await, gateway.access_log().await);
    fast.send(vec![end("r1", &first)]);
    eventually("the next stream gets in", async || {
        gateway.check(Check::of("anna", "r2")).await.is_allowed()
    })
    .await;
    durable.send(vec![periodic("r1", &first), end("r1", &first)]);
    assert_eq!((fast.finish().await, durable.finish().await), (0, 0));
    assert_eq!(app.entries("end", "release").await, 2);
    assert_eq!(app.entries("periodic", "superseded").await, 1);
    assert_eq!(
        gateway.check(Check::of("anna", "r3")).await.reason(),
        "full"
    );
    app.stop().await;
}

#[tokio::test]
async fn an_end_that_overtakes_its_own_start_keeps_it_from_taking_a_slot() {
    let store = timeless();
    let app = TestApp::plan().store(store.clone()).start().await;
    let gateway = app.gateway().await;
    let mut log = gateway.access_log().await;
    log.send(vec![abandoned("anna", "r1")]);
    log.finish().await;
    store.asked("release", 1).await;
    let late = gateway.check(Check::of("anna", "r1")).await;
    assert_eq!((late.http, late.reason()), (429, "ended"));
    assert_eq!(late.header("retry-after"), None);
    assert_eq!(store.live("anna").await, [""; 0]);
}

#[tokio::test]
async fn a_stream_that_outlives_its_lease_is_counted_once_by_whatever_shows_it() {
    let clock = Arc::new(ManualClock::default());
    let store = FaultyStore::at(clock.clone());
    let plan = TestApp::plan().limit(9).store(store.clone());
    let app = plan.clock(clock.clone()).start().await;
    let gateway = app.gateway().await;
    let lapses = async |noticed_by: &str| {
        let series = format!("streamgate_leases_lapsed_total{{noticed_by=\"{noticed_by}\"}}");
        app.metric(&series).await
    };
    let [seen, ended, in_time] = ["seen", "ended", "in-time"];
    let mut answers = Vec::new();
    for id in [seen, ended, in_time] {
        answers.push(gateway.check(Check::of("anna", id)).await);
    }
    let playback = gateway.check(Check::of_playback("ben", "p1")).await;
    let log = async |entries| {
        let mut log = gateway.access_log().await;
        log.send(entries);
        assert_eq!(log.finish().await, 0);
    };
    // Each end comes twice, from the fast logger and from the durable one.
    log(vec![end(in_time, &answers[2])]).await;
    store.asked("release", 1).await;
    log(vec![end(in_time, &answers[2])]).await;
    log(vec![abandoned("anna", "never-let-in")]).await;
    store.asked("release", 3).await;
    clock.advance(Duration::from_secs(40));
    log(vec![
        periodic(seen, &answers[0]),
        periodic("any", &playback),
    ])
    .await;
    store.asked("renew", 2).await;
    log(vec![end(ended, &answers[1])]).await;
    store.asked("release", 4).await;
    log(vec![end(ended, &answers[1])]).await;
    log(vec![end(seen, &answers[0])]).await;
    store.asked("release", 6).await;
    eventually("both are counted", async || {
        (lapses("periodic").await, lapses("end").await) == (1, 1)
    })
    .await;
    app.stop().await;
}

#[tokio::test]
async fn a_periodic_entry_renews_and_puts_back_what_the_store_forgot() {
    let clock = Arc::new(ManualClock::default());
    let store = FaultyStore::at(clock.clone());
    let plan = TestApp::plan().limit(1).store(store.clone());
    let app = plan.clock(clock.clone()).start().await;
    let gateway = app.gateway().await;
    let request = gateway.check(Check::of("anna", "r1")).await;
    let playback = gateway.check(Check::of_playback("ben", "p1")).await;
    let mut log = gateway.access_log().await;
    for n in 1..=3 {
        clock.advance(Duration::from_secs(14));
        log.send(vec![periodic("r1", &request), periodic("any", &playback)]);
        store.asked("renew", 2 * n).await;
        eventually("both count", async || {
            store.live("anna").await.len() + store.live("ben").await.len() == 2
        })
        .await;
    }
    clock.advance(Duration::from_secs(60));
    assert!(store.live("anna").await.is_empty());
    assert!(gateway.check(Check::of("anna", "r2")).await.is_allowed());
    log.send(vec![periodic("r1", &request)]);
    eventually("the stream counts, above the limit", async || {
        store.live("anna").await == ["r2", "r1"]
    })
    .await;
    log.finish().await;
    app.stop().await;
}

#[tokio::test]
async fn the_end_of_a_request_is_not_the_end_of_its_playback() {
    let store = timeless();
    let app = TestApp::plan().store(store.clone()).start().await;
    let gateway = app.gateway().await;
    let answer = gateway.check(Check::of_playback("anna", "p1")).await;
    app.plays(&gateway, &answer).await;
    assert_eq!(app.entries("end", "played").await, 1);
    // It plays, so that a request of it has failed means nothing.
    let mut log = gateway.access_log().await;
    log.send(vec![answered("any", &answer, 404)]);
    log.finish().await;
    assert_eq!(app.entries("end", "ignored").await, 1);
    app.stop().await;
    assert_eq!(store.live("anna").await, ["p1"]);
}

#[tokio::test]
async fn odd_entries_are_counted_and_change_nothing() {
    let store = timeless();
    let app = TestApp::plan().store(store.clone()).start().await;
    let gateway = app.gateway().await;
    let anna = gateway.check(Check::of("anna", "r1")).await;
    let refused = gateway
        .check(Check::of("anna", "r0").path("/?session=%ff"))
        .await;
    let forged = |field: &str, text: &str| {
        let mut answer = anna.clone();
        answer.metadata.insert(field.to_owned(), text.to_owned());
        end("r1", &answer)
    };
    let mut foreign = abandoned("ben", "r1");
    let mut nobody = abandoned("", "r1");
    let unknown = abandoned("anna", "never-seen");
    for entry in [&mut foreign, &mut nobody] {
        let common = entry.common_properties.as_mut().unwrap();
        common.stream_id = "r1".to_owned();
    }
    let mut log = gateway.access_log().await;
    log.send(vec![
        HttpAccessLogEntry::default(),
        entry(AccessLogType::DownstreamEnd, "", None),
        entry(AccessLogType::DownstreamPeriodic, "r1", None),
        entry(AccessLogType::DownstreamStart, "r1", Some(&anna)),
        end("r0", &refused),
        forged("user", ""),
        forged("user", "ben"),
        forged("kind", "film"),
        forged("session", &"x".repeat(300)),
        foreign,
        nobody,
        unknown,
    ]);
    log.send(vec![]);
    log.send_bytes(&[]);
    assert_eq!(log.finish().await, 0);
    for (kind, outcome, times) in [
        ("other", "ignored", 2),
        ("periodic", "ignored", 1),
        ("end", "unattributed", 2),
        ("end", "ignored", 1),
        ("end", "malformed", 3),
        ("end", "release", 3),
    ] {
        assert_eq!(app.entries(kind, outcome).await, times, "{kind} {outcome}");
    }
    store.asked("release", 2).await;
    assert_eq!(
        store.live("anna").await,
        ["r1"],
        "its slot is nobody else's to free"
    );
    app.stop().await;
}

#[tokio::test]
async fn a_message_of_15_mib_is_read_whole() {
    let app = TestApp::plan().store(timeless()).start().await;
    let gateway = app.gateway().await;
    let mut padded = abandoned("anna", "r");
    padded.request.as_mut().unwrap().user_agent = "x".repeat(1000);
    let one = message(vec![padded.clone()]).encoded_len();
    let entries = 15 * 1024 * 1024 / one;
    let batch = (0..entries).map(|n| {
        let mut entry = padded.clone();
        entry.request.as_mut().unwrap().request_id = format!("r{n}");
        entry
    });
    let mut log = gateway.access_log().await;
    log.send(batch.collect());
    assert_eq!(log.finish().await, 0);
    assert_eq!(app.entries("end", "release").await, entries as u64);
    app.stop().await;
}

#[tokio::test]
async fn what_cannot_be_read_ends_its_stream_and_costs_nothing_that_came_before() {
    let store = timeless();
    let app = TestApp::plan().store(store.clone()).start().await;
    let gateway = app.gateway().await;
    let first = gateway.check(Check::of("anna", "r1")).await;
    let mut not_text = message(vec![abandoned("anna", "r2")]).encode_to_vec();
    let at = not_text.windows(2).position(|pair| pair == b"r2").unwrap();
    not_text[at] = 0xff;
    let too_long = vec![0; 16 * 1024 * 1024 + 1];
    for (n, broken) in [&not_text[..], b"\xff\xff\xff", &too_long]
        .into_iter()
        .enumerate()
    {
        let mut log = gateway.access_log().await;
        log.send(vec![end("r1", &first)]);
        log.send_bytes(broken);
        assert_eq!(log.ended().await, 0, "Envoy is to open another");
        assert_eq!(app.entries("end", "release").await, n as u64 + 1);
        assert_eq!(app.entries("other", "malformed").await, n as u64 + 1);
    }
    eventually("the end before it counts", async || {
        store.live("anna").await.is_empty()
    })
    .await;
    app.stop().await;
}

#[tokio::test]
async fn a_stream_is_ended_after_a_large_message_and_loses_no_entry() {
    let app = TestApp::plan().store(timeless()).start().await;
    let mut log = LogStream::open(app.grpc()).await;
    log.send(vec![abandoned("anna", "r0")]);
    let crowd = (1..=1_000).map(|n| abandoned(&format!("user-{n}"), &format!("r{n}")));
    log.send(crowd.collect());
    assert_eq!(log.ended().await, 0);
    log.send(vec![abandoned("anna", "r1001")]);
    log.flush().await;
    eventually("every entry is read", async || {
        app.entries("end", "release").await == 1_002
    })
    .await;
    app.stop().await;
}

#[tokio::test]
async fn streams_that_are_ended_by_age_lose_no_entry() {
    let age = Duration::from_millis(30);
    let plan = TestApp::plan().store(timeless()).stream_age(age);
    let app = plan.start().await;
    let (mut sent, mut connections) = (0, Vec::new());
    while sent < 300 || connections.len() < 10 {
        let mut log = LogStream::open(app.grpc()).await;
        // Envoy sends until it has seen the end, and then resets its side.
        loop {
            log.send(vec![abandoned("anna", &format!("r{sent}"))]);
            sent += 1;
            let pause = Duration::from_micros(200);
            if let Ok(status) = tokio::time::timeout(pause, log.ended()).await {
                assert_eq!(status, 0);
                break;
            }
        }
        log.flush().await;
        connections.push(log.reset());
    }
    eventually("every entry is read", async || {
        app.entries("end", "release").await == sent
    })
    .await;
    app.stop().await;
}

#[tokio::test]
async fn what_came_before_a_reset_is_read() {
    let app = TestApp::plan().store(timeless()).start().await;
    let gateway = app.gateway().await;
    for n in 1..=50 {
        let mut log = gateway.access_log().await;
        log.send(vec![abandoned("anna", &format!("r{n}"))]);
        log.flush().await;
        let connection = log.reset();
        eventually("it is read", async || {
            app.entries("end", "release").await == n
        })
        .await;
        drop(connection);
    }
    assert_eq!(app.entries("other", "malformed").await, 0);
    app.stop().await;
}

#[tokio::test]
async fn a_store_that_hangs_never_keeps_entries_from_being_read() {
    let store = timeless();
    let app = TestApp::plan().store(store.clone()).start().await;
    let gateway = app.gateway().await;
    let mut answers = HashMap::new();
    for user in 0..20 {
        let id = format!("r{user}");
        let answer = gateway.check(Check::of(&format!("u{user}"), &id)).await;
        answers.insert(id, answer);
    }
    store.hold();
    let mut logs = JoinSet::new();
    for _ in 0..10 {
        let mut log = LogStream::open(app.grpc()).await;
        for _ in 0..10 {
            log.send(answers.iter().map(|(id, answer)| end(id, answer)).collect());
        }
        logs.spawn(log.finish());
    }
    assert_eq!(logs.join_all().await, [0; 10]);
    assert_eq!(app.entries("end", "release").await, 2_000);
    let waiting = app.metric("streamgate_releaser_pending").await;
    assert!(
        (1..=40).contains(&waiting),
        "{waiting} wait, of 20 sessions"
    );
    store.let_go();
    for user in 0..20 {
        let user = format!("u{user}");
        eventually("its slot is free", async || {
            store.live(&user).await.is_empty()
        })
        .await;
    }
    app.stop().await;
}

#[tokio::test]
async fn releases_outlast_an_outage_of_the_store() {
    let store = timeless();
    let app = TestApp::plan().store(store.clone()).start().await;
    let gateway = app.gateway().await;
    let answer = gateway.check(Check::of("anna", "r1")).await;
    store.fails(&Fault::LosesCalls);
    let mut log = gateway.access_log().await;
    log.send(vec![end("r1", &answer)]);
    log.finish().await;
    store.asked("release", 3).await;
    store.fails(&Fault::None);
    eventually("its slot is free", async || {
        store.live("anna").await.is_empty()
    })
    .await;
    app.stop().await;
}
