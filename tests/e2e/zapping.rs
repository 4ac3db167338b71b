//! Changing channel at the limit: one stream is closed and the next opened at once, before anybody can have told that the first has
//! ended.

use std::time::Duration;

use serde_json::json;
use streamgate::clock::Stopwatch;

use crate::support::gateway::Setup;
use crate::support::stack::Stack;
use crate::support::watch::measured_many;

const CHANGES: usize = 100;

#[tokio::test]
async fn changing_channel_at_the_limit_a_hundred_times_is_never_refused() {
    zap("shipped", |setup| setup).await;
}

#[tokio::test]
async fn changing_channel_is_never_refused_where_envoy_waits_its_default_of_a_fifth_of_a_second_and_lets_errors_through()
 {
    zap("0.2 s and failure_mode_allow", |setup| {
        setup.check(json!({"failure_mode_allow": true, "grpc_service": {"timeout": "0.2s"}}))
    })
    .await;
}

async fn zap(configuration: &str, change: impl FnOnce(Setup) -> Setup) {
    let Stack { viewers, .. } = &Stack::start_with(&[], change).await;
    let first = viewers.watch(viewers.http1("alice", "/live/1")).await;
    let second = viewers.watch(viewers.http2("alice", "/live/2")).await;
    let mut watched = viewers.watch(viewers.http1("alice", "/live/0")).await;
    let mut times = Vec::new();
    for change in 0..CHANGES {
        let channel = format!("/live/{change}");
        let next = if change % 2 == 0 {
            viewers.http2("alice", &channel)
        } else {
            viewers.http1("alice", &channel)
        };
        drop(watched);
        let changing = Stopwatch::start();
        watched = viewers.let_in(next).await;
        times.push(changing.elapsed());
        assert_ne!(watched.session, "", "it was let in without a slot");
    }
    measured_many(&format!("change of channel ({configuration})"), times);

    let asked = Stopwatch::start();
    viewers
        .assert_full("alice", &[&first, &second, &watched])
        .await;
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "the true fourth waits the grace only"
    );
}
