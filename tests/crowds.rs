//! What happens when many come, or leave, at once. No Envoy: the checks are spoken as it speaks them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use tokio::net::TcpStream;

use crate::support::app::TestApp;
use crate::support::gateway_client::Check;
use crate::support::redis::RedisServer;

/// How often it is tried.
const ROUNDS: usize = 1000;

#[tokio::test(flavor = "multi_thread")]
async fn of_fifty_starts_at_once_at_two_instances_exactly_three_are_let_in_a_thousand_times() {
    let redis = RedisServer::start();
    // What is shown is the count, not the deadline: a crowd of fifty on a busy machine may take longer than 50 ms.
    let store = || {
        let mut settings = redis.settings();
        settings.timeout = Duration::from_secs(10);
        streamgate::store::redis::RedisStore::open(settings).expect("an address")
    };
    let apps = [
        TestApp::plan().store(Arc::new(store())).start().await,
        TestApp::plan().store(Arc::new(store())).start().await,
    ];
    let gateways = [apps[0].gateway().await, apps[1].gateway().await];
    let wrong = Mutex::new(Vec::new());
    stream::iter(0..ROUNDS)
        .for_each_concurrent(4, |round| {
            let (gateways, wrong) = (&gateways, &wrong);
            async move {
                let user = format!("user {round}");
                let starts = (0..50).map(|number| {
                    gateways[number % 2].check(Check::of(&user, &format!("request {number}")))
                });
                let answers = join_all(starts).await;
                let let_in = answers.iter().filter(|answer| answer.is_allowed()).count();
                let full = answers
                    .iter()
                    .filter(|answer| answer.reason() == "full")
                    .count();
                if (let_in, full) != (3, 47) {
                    wrong
                        .lock()
                        .expect("no panic before")
                        .push(format!("{user}: {answers:?}"));
                }
            }
        })
        .await;
    assert_eq!(
        wrong.into_inner().expect("no panic before"),
        [] as [String; 0],
        "rounds in which not exactly three were let in"
    );
    let [one, other] = apps;
    let started = one.checks("allow", "started").await + other.checks("allow", "started").await;
    let refused = one.checks("deny", "full").await + other.checks("deny", "full").await;
    assert_eq!(
        (started, refused),
        (3 * ROUNDS as u64, 47 * ROUNDS as u64),
        "in the metrics"
    );
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_crowd_that_leaves_at_once_does_not_take_the_gateways_connection_with_it() {
    let app = TestApp::plan().start().await;
    let socket = TcpStream::connect(app.grpc()).await.expect("it listens");
    let (mut client, mut connection) = h2::client::handshake(socket).await.expect("HTTP/2");
    let mut ping = connection.ping_pong().expect("the first to ask");
    for round in 0..20 {
        let mut leaving = Vec::new();
        for _ in 0..100 {
            let check =
                http::Request::post("http://streamgate/envoy.service.auth.v3.Authorization/Check")
                    .header("content-type", "application/grpc")
                    .body(());
            let check = check.expect("a request");
            leaving.push(
                client
                    .send_request(check, false)
                    .expect("the connection holds"),
            );
        }
        // The calls leave and their ends follow, with nothing in between: streamgate, on the same thread, finds both in one read,
        // as it does when it is busy and many leave.
        assert!(futures_util::poll!(&mut connection).is_pending());
        for (_answer, frames) in &mut leaving {
            frames.send_reset(h2::Reason::CANCEL);
        }
        tokio::select! {
            ended = &mut connection => panic!("closed in round {round}: {ended:?}"),
            pong = ping.ping(h2::Ping::opaque()) => drop(pong.expect("the connection holds")),
        }
    }
    app.stop().await;
}
