//! Ends that come from elsewhere while this instance answers from memory: when it notices.

use std::time::Duration;

use serde_json::json;
use streamgate::clock::Stopwatch;
use streamgate::session::{Admission, StartRules, WhenFull};
use streamgate::store::Store;

use super::TIMEOUT;
use testkit::app::{TestApp, without_a_trace};
use testkit::gateway_client::{Answer, Check, Gateway};
use testkit::redis::RedisServer;
use testkit::streams::{playback, start, user};
use testkit::watch::{PATIENCE, measured, within};

/// The lease of a playback.
const LEASE: Duration = Duration::from_secs(9);

/// How often a playback asks.
const INTERVAL: Duration = Duration::from_millis(100);

/// Asks for segment after segment until one is refused; that answer, and how long it took to come.
async fn refused(gateway: &Gateway, name: &str, id: &str) -> (Answer, Duration) {
    let playing = Stopwatch::start();
    let asking = async {
        loop {
            let answer = gateway.check(Check::of_playback(name, id)).await;
            if !answer.is_allowed() {
                return answer;
            }
            tokio::time::sleep(INTERVAL).await;
        }
    };
    let refused = Box::pin(within(PATIENCE, "it is refused", asking));
    (refused.await, playing.elapsed())
}

/// A third of a lease and a request is promised; two thirds are demanded, after which the next request would ask in any case.
fn is_in_time(what: &str, took: Duration) {
    measured(
        &format!("{what} is noticed, of a lease of {LEASE:?},"),
        took,
    );
    assert!(took < LEASE / 3 * 2, "{what} took {took:?}");
}

#[tokio::test]
async fn an_end_at_another_instance_is_noticed_within_a_third_of_a_lease() {
    without_a_trace(Box::pin(async {
        let server = RedisServer::start();
        let plan = || {
            let plan = TestApp::plan().limit(1).redis(&server.url(), TIMEOUT * 5);
            plan.leases(LEASE, LEASE)
        };
        let (app, other) = (plan().start().await, plan().start().await);
        let gateway = app.gateway().await;
        for (name, id) in [("anna", "killed"), ("ben", "displaced")] {
            let answer = gateway.check(Check::of_playback(name, id)).await;
            assert!(answer.is_allowed(), "{answer:?}");
        }
        let body = json!({"user": "anna", "session": "killed"});
        let hook = reqwest::Client::new().post(other.url("/v1/release"));
        assert_eq!(hook.json(&body).send().await.unwrap().status(), 204);
        let (store, ben, next) = (server.store(), user("ben"), start(&playback("next")));
        let admission = store
            .admit(&ben, &next, &StartRules::new(1, WhenFull::DisplaceOldest))
            .await;
        match admission.unwrap() {
            Admission::Admitted(admitted) => assert_eq!(admitted.displaced.len(), 1),
            Admission::Refused(refusal) => panic!("{refusal:?}"),
        }
        let ((killed, killed_after), (displaced, displaced_after)) = tokio::join!(
            refused(&gateway, "anna", "killed"),
            refused(&gateway, "ben", "displaced"),
        );
        assert_eq!((killed.http, killed.reason()), (429, "ended"));
        assert_eq!((displaced.http, displaced.reason()), (429, "displaced"));
        is_in_time("a kill", killed_after);
        is_in_time("a displacement", displaced_after);
        for reason in ["ended", "displaced"] {
            assert_eq!(app.checks("deny", reason).await, 1);
        }
        drop(gateway);
        app.stop().await;
        other.stop().await;
    }))
    .await;
}
