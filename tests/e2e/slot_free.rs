//! A slot is free as soon as its stream has ended, in whatever way. Published: within 0.1 s; within
//! the lease if Envoy itself is killed.

use std::time::Duration;

use serde_json::json;

use testkit::gateway::{Setup, session_from};
use testkit::origin::{Origin, OriginProcess};
use testkit::stack::Stack;
use testkit::streamgate::Streamgate;
use testkit::viewers::Viewers;
use testkit::watch::measured;

/// Ten times the published value.
const BOUND: Duration = Duration::from_secs(1);

/// Awaits that one more stream of the user's gets in, and tells how long that took.
async fn freed(viewers: &Viewers, user: &str, after: &str) {
    let next = || viewers.http1(user, "/live/next");
    let (_next, took) = viewers.let_in_within(BOUND, next).await;
    measured(&format!("slot free after {after}"), took);
}

#[tokio::test]
async fn a_slot_is_free_at_once_when_its_stream_ends_is_killed_reset_or_closed() {
    let Stack { viewers, .. } = &Stack::start(&[("limits.default", "2")]).await;
    let _beside = viewers.watch(viewers.http1("alice", "/live/beside")).await;

    let film = viewers.http1("alice", "/finite?seconds=0.5");
    let film = viewers.let_in(film).await;
    assert!(film.rest().await > 0, "the film has a picture");
    freed(viewers, "alice", "a normal end").await;

    let mut player = viewers.raw_get("alice", "/live/1", &[]).await;
    player.plays().await;
    player.cut();
    freed(viewers, "alice", "its client was killed (reset)").await;

    let mut player = viewers.raw_get("alice", "/live/2", &[]).await;
    player.plays().await;
    drop(player);
    freed(viewers, "alice", "its client closed the connection").await;

    let stream = viewers.watch(viewers.http2("alice", "/live/3")).await;
    drop(stream);
    freed(viewers, "alice", "an HTTP/2 reset").await;

    let socket = viewers.websocket("alice").await.unwrap();
    socket.close().await;
    freed(viewers, "alice", "its WebSocket was closed").await;

    let socket = viewers.websocket("alice").await.unwrap();
    drop(socket);
    freed(viewers, "alice", "its WebSocket was dropped").await;
}

#[tokio::test]
async fn the_slots_are_free_at_once_when_the_backend_is_killed() {
    let origin = OriginProcess::start().await;
    let streamgate = Streamgate::start(&[("limits.default", "1")]).await;
    // There will be no backend any more; Envoy's own answer shows that streamgate let the next one
    // in.
    let setup = Setup::demo(&[streamgate.grpc], origin.address).route(json!({
        "match": {"path": "/live/next"},
        "direct_response": {"status": 200},
        "typed_per_filter_config": session_from("request"),
    }));
    let gateway = setup.start().await;
    let viewers = &Viewers::of(gateway.address);
    let stream = viewers.watch(viewers.http1("alice", "/live/1")).await;
    viewers.assert_full("alice", &[&stream]).await;

    origin.kill().await;
    freed(viewers, "alice", "its backend was killed").await;
    stream.rest().await;
}

#[tokio::test]
async fn the_slots_are_free_within_their_lease_when_envoy_is_killed() {
    let lease = Duration::from_secs(2);
    let origin = Origin::start().await;
    let streamgate = Streamgate::start(&[("leases.request", "2s")]).await;
    let setup = Setup::demo(&[streamgate.grpc], origin.address).flush_interval("0.5s");
    let doomed = setup.clone().start().await;
    let other = setup.start_beside().await;
    let viewers = &Viewers::of(other.address);
    let lost = Viewers::of(doomed.address);
    let first = lost.watch(lost.http1("alice", "/live/1")).await;
    let second = lost.watch(lost.http1("alice", "/live/2")).await;
    let third = lost.watch(lost.http1("alice", "/live/3")).await;
    viewers
        .assert_full("alice", &[&first, &second, &third])
        .await;

    doomed.kill().await;
    let next = || viewers.http1("alice", "/live/4");
    let (_next, took) = viewers.let_in_within(lease + BOUND, next).await;
    measured("slot free after Envoy was killed (a lease of 2 s)", took);
}
