//! Many calls that come, or leave, at the same moment. No Envoy: the test sends checks as Envoy
//! does.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use tokio::net::TcpStream;

use testkit::app::TestApp;
use testkit::gateway_client::Check;
use testkit::redis::RedisServer;

/// How often it is tried.
const ROUNDS: usize = 1000;

#[tokio::test(flavor = "multi_thread")]
async fn of_fifty_starts_at_once_at_two_instances_exactly_three_are_let_in_a_thousand_times() {
    let redis = RedisServer::start();
    // This test is about the count, not the deadline: on a busy machine, a crowd of fifty may take
    // longer than 50 ms.
    let store = || {
        let mut settings = redis.settings();
        settings.timeout = Duration::from_secs(10);
        streamgate::store::redis::RedisStore::open(settings).expect("an address")
    };
    // Nor the lease: in a crowd that takes longer than that, the first would run out.
    let hour = Duration::from_secs(3600);
    let plan = || TestApp::plan().leases(hour, hour);
    let apps = [
        plan().store(Arc::new(store())).start().await,
        plan().store(Arc::new(store())).start().await,
    ];
    let gateways = [apps[0].gateway().await, apps[1].gateway().await];
    let (wrong, without_answer) = (Mutex::new(Vec::new()), AtomicUsize::new(0));
    stream::iter(0..ROUNDS)
        .for_each_concurrent(4, |round| {
            let (gateways, wrong, without_answer) = (&gateways, &wrong, &without_answer);
            async move {
                let user = format!("user {round}");
                let starts = (0..50).map(|number| {
                    gateways[number % 2].try_check(Check::of(&user, &format!("request {number}")))
                });
                let answers = join_all(starts).await;
                let let_in = answers
                    .iter()
                    .flatten()
                    .filter(|answer| answer.is_allowed())
                    .count();
                let refused = answers
                    .iter()
                    .flatten()
                    .filter(|answer| answer.reason() == "full")
                    .count();
                // A call that timed out on a starved machine has no answer to judge; one slot too
                // many is always wrong.
                let unanswered = answers.len() - let_in - refused;
                without_answer.fetch_add(unanswered, Ordering::Relaxed);
                if let_in > 3 || (let_in < 3 && unanswered == 0) {
                    wrong
                        .lock()
                        .expect("no panic before")
                        .push(format!("{user}: {answers:?}"));
                }
            }
        })
        .await;
    let wrong = wrong.into_inner().expect("no panic before");
    assert_eq!(
        wrong,
        [] as [String; 0],
        "rounds in which not exactly three were let in"
    );
    let without_answer = without_answer.into_inner();
    assert!(
        without_answer < ROUNDS / 2,
        "{without_answer} of {} without an answer",
        50 * ROUNDS
    );
    let [one, other] = apps;
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
        // The calls leave and their ends follow directly: streamgate, on the same thread, finds
        // both in one read, as it does when it is busy and many leave.
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
