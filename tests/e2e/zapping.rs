//! Changing channel at the limit: one stream is closed and the next opened immediately, before any
//! report can say that the first has ended.

use serde_json::json;
use streamgate::clock::Stopwatch;

use testkit::gateway::Setup;
use testkit::stack::Stack;
use testkit::watch::measured_many;

const CHANGES: usize = 100;

// The release of the stream before may be late on a busy processor, so the grace is long in both.

#[tokio::test]
async fn changing_channel_at_the_limit_a_hundred_times_is_never_refused() {
    zap("2s", |setup| setup).await;
}

/// The start at the limit is refused before Envoy's deadline: Envoy would let it in uncounted after
/// that.
#[tokio::test]
async fn changing_channel_is_never_refused_where_envoy_s_deadline_is_shorter_than_the_grace() {
    let change = json!({"failure_mode_allow": true, "grpc_service": {"timeout": "3s"}});
    zap("5s", |setup| setup.check(change)).await;
}

async fn zap(grace: &str, change: impl FnOnce(Setup) -> Setup) {
    let Stack { viewers, .. } = &Stack::start_with(&[("limits.grace", grace)], change).await;
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
    measured_many(&format!("change of channel (a grace of {grace})"), times);
    viewers
        .assert_full("alice", &[&first, &second, &watched])
        .await;
}
