//! Webhooks: events as signed POSTs. What a receiver gets, and in which order; what follows from its
//! answers; and that nobody else notices a receiver that is slow, gone or wrong.

mod files;
mod receiver;

use std::collections::BTreeSet;

use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::events::check_times;
use receiver::{Receiver, Reply, SECRETS, WebhooksFile, shown};
use testkit::api::Api;
use testkit::app::TestApp;
use testkit::gateway_client::Check;
use testkit::port::ReservedPort;
use testkit::redis::RedisServer;
use testkit::watch::{PATIENCE, eventually};

/// An app that sends its events to that receiver.
async fn app_for(receiver: &Receiver) -> (TestApp, WebhooksFile) {
    let file = WebhooksFile::of(&[receiver.line(&SECRETS[..1])]);
    let plan = TestApp::plan().limit(1_000).webhooks(file.path());
    (plan.start().await, file)
}

/// Events for webhooks that came to that.
async fn outcome(app: &TestApp, outcome: &str) -> u64 {
    let series = format!("streamgate_webhook_events_total{{outcome=\"{outcome}\"}}");
    app.metric(&series).await
}

#[tokio::test]
async fn events_come_in_order_and_signed_by_each_secret() {
    let mut receiver = Receiver::start().await;
    let file = WebhooksFile::of(&[receiver.line(&SECRETS)]);
    let plan = TestApp::plan().limit(1_000).webhooks(file.path());
    let app = plan.start().await;
    let api = Api::of(&app);
    let mut expected = Vec::new();
    for round in 0..20 {
        let id = format!("p{round}");
        api.put("anna", &id, json!({"device": "tv"})).await;
        api.delete(&format!("/v1/users/anna/sessions/{id}")).await;
        expected.extend([format!("started {id}"), format!("ended {id}")]);
    }
    let (mut seen, mut ids) = (Vec::new(), BTreeSet::new());
    while seen.len() < expected.len() {
        let message = receiver.message(&SECRETS).await;
        for event in &message.events {
            assert_eq!(event["user"], "anna");
            assert!(ids.insert(event["id"].as_str().unwrap().to_owned()));
        }
        seen.extend(message.events.iter().map(shown));
        assert!(ids.insert(message.id));
    }
    // Within a millisecond, a start may come before the end of the session before it.
    let place = |event: &String| seen.iter().position(|it| it == event);
    assert!(
        expected.iter().all(|event| place(event).is_some()),
        "{seen:?}"
    );
    for kind in ["started", "ended"] {
        let of_kind = expected.iter().filter(|event| event.starts_with(kind));
        assert!(of_kind.is_sorted_by_key(place), "{seen:?}");
    }
    for session in expected.chunks(2) {
        assert!(place(&session[0]) < place(&session[1]), "{seen:?}");
    }
    eventually("all are counted", async || {
        outcome(&app, "delivered").await == expected.len() as u64
    })
    .await;
    assert_eq!(app.metric("streamgate_webhook_events_queued ").await, 0);
    // The stream of events has its listeners, and webhooks are none of them.
    assert_eq!(app.metric("streamgate_event_listeners ").await, 0);
    app.stop().await;
}

#[tokio::test]
async fn a_webhook_gets_the_types_that_it_wants() {
    let (mut some, mut all) = (Receiver::start().await, Receiver::start().await);
    let file = WebhooksFile::of(&[
        format!("{} types=ended,refused", some.line(&SECRETS[..1])),
        all.line(&SECRETS[..1]),
    ]);
    let plan = TestApp::plan().limit(1).webhooks(file.path());
    let app = plan.start().await;
    let api = Api::of(&app);
    // One after the other: within a millisecond, ends come before refusals.
    api.put("anna", "p1", json!({})).await;
    assert_eq!(all.events(1).await, ["started p1"]);
    api.put("anna", "p2", json!({})).await;
    assert_eq!(all.events(1).await, ["refused p2"]);
    api.delete("/v1/users/anna/sessions/p1").await;
    assert_eq!(all.events(1).await, ["ended p1"]);
    assert_eq!(some.events(2).await, ["refused p2", "ended p1"]);
    app.stop().await;
    assert!(!some.has_more() && !all.has_more());
}

#[tokio::test]
async fn a_failed_post_comes_again_with_the_same_id() {
    let replies = [Reply::Status(500), Reply::Status(429)];
    let mut receiver = Receiver::replying(&replies).await;
    let (app, _file) = app_for(&receiver).await;
    Api::of(&app).put("anna", "p1", json!({})).await;
    let first = receiver.message(&SECRETS[..1]).await;
    for _ in 0..2 {
        let again = receiver.message(&SECRETS[..1]).await;
        assert_eq!(again.id, first.id);
        assert_eq!(again.events, first.events);
    }
    let failed = "streamgate_webhook_posts_failed_total{cause=\"status\"}";
    assert_eq!(app.metric(failed).await, 2);
    app.stop().await;
    assert!(!receiver.has_more());
}

#[tokio::test]
async fn events_wait_for_a_receiver_that_is_not_there_yet() {
    let port = ReservedPort::reserve();
    let line = format!("{} http://{}/in", SECRETS[0].0, port.address());
    let file = WebhooksFile::of(&[line]);
    let app = TestApp::plan().webhooks(file.path()).start().await;
    Api::of(&app).put("anna", "p1", json!({})).await;
    let failed = "streamgate_webhook_posts_failed_total{cause=\"connection\"}";
    eventually("the first POST has failed", async || {
        app.metric(failed).await > 0
    })
    .await;
    let listener = TcpListener::bind(port.address()).await.unwrap();
    let mut receiver = Receiver::on(listener, &[], false);
    assert_eq!(receiver.events(1).await, ["started p1"]);
    app.stop().await;
}

#[tokio::test]
async fn each_instance_sends_its_own_events_and_needs_no_channel() {
    let redis = RedisServer::start();
    let mut receiver = Receiver::start().await;
    let file = WebhooksFile::of(&[receiver.line(&SECRETS[..1])]);
    let plan = || TestApp::plan().redis(&redis.url(), PATIENCE);
    let one = plan().webhooks(file.path()).start().await;
    let other = plan().webhooks(file.path()).start().await;
    for round in 0..10 {
        let app = if round % 2 == 0 { &one } else { &other };
        let user = format!("user-{round}");
        Api::of(app).put(&user, &user, json!({})).await;
    }
    let mut seen = receiver.events(10).await;
    seen.sort_unstable();
    let expected = (0..10).map(|round| format!("started user-{round}"));
    assert_eq!(seen, expected.collect::<Vec<_>>());
    let channels: Vec<String> = redis.run(&["PUBSUB", "CHANNELS"]);
    assert_eq!(channels, [""; 0]);
    one.stop().await;
    other.stop().await;
    assert!(!receiver.has_more());
}

#[tokio::test]
async fn what_waits_is_sent_before_the_instance_ends() {
    // The last attempt is the one after the instance was asked to stop.
    let mut receiver = Receiver::replying(&[Reply::Status(503)]).await;
    let (app, _file) = app_for(&receiver).await;
    let api = Api::of(&app);
    api.put("anna", "p1", json!({})).await;
    let first = receiver.message(&SECRETS[..1]).await;
    for number in 2..5 {
        api.put("anna", &format!("p{number}"), json!({})).await;
    }
    app.stop().await;
    assert_eq!(receiver.message(&SECRETS[..1]).await.id, first.id);
    let rest = ["started p2", "started p3", "started p4"];
    assert_eq!(receiver.events(3).await, rest);
}

/// How many events wait for a webhook and are on their way to it, at most.
const ROOM: u64 = 4096 + 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_hangs_delays_no_check_and_holds_little() {
    let mut receiver = Receiver::always(Reply::Hang).await;
    let file = WebhooksFile::of(&[receiver.line(&SECRETS[..1])]);
    let plan = TestApp::plan().limit(0).webhooks(file.path());
    let app = plan.start().await;
    let gateway = app.gateway().await;
    let mut crowd = JoinSet::new();
    for viewer in 0..20 {
        let gateway = gateway.clone();
        crowd.spawn(async move {
            for playback in 0..250 {
                let id = format!("p{playback}");
                let check = Check::of_playback(&format!("user-{viewer}"), &id);
                assert_eq!(gateway.check(check).await.reason(), "full");
            }
        });
    }
    let first = receiver.message(&SECRETS[..1]).await;
    // All are answered while the receiver hangs.
    while let Some(asked) = crowd.join_next().await {
        asked.unwrap();
    }
    let (dropped, lost) = eventually("all events have come", async || {
        let dropped = outcome(&app, "queue_full").await;
        let lost = app
            .metric("streamgate_events_lost_total{at=\"queue\"}")
            .await;
        let queued = app.metric("streamgate_webhook_events_queued ").await;
        assert!(queued <= ROOM, "{queued}");
        (queued + dropped + lost >= 5_000).then_some((dropped, lost))
    })
    .await;
    assert!(dropped + lost > 0, "what has no room is counted");
    assert_eq!(outcome(&app, "delivered").await, 0);
    // It ends in time, too.
    app.stop().await;
    // One POST at a time: on a slow machine, the first may have come again.
    while receiver.has_more() {
        assert_eq!(receiver.message(&SECRETS[..1]).await.id, first.id);
    }
}

/// Prints what a receiver that hangs costs checks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn a_receiver_that_hangs_costs_checks_little() {
    for round in 0..3 {
        for hangs in [false, true] {
            let receiver = Receiver::always(Reply::Hang).await;
            let file = WebhooksFile::of(&[receiver.line(&SECRETS[..1])]);
            let mut plan = TestApp::plan();
            if hangs {
                plan = plan.webhooks(file.path());
            }
            let app = plan.start().await;
            let (median, late) = check_times(&app.gateway().await, round).await;
            println!("measured a receiver hangs: {hangs}, median {median} us, p99 {late} us");
            app.stop().await;
        }
    }
}
