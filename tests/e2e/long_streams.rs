//! A stream holds exactly one slot for exactly as long as it runs: longer than its lease, through
//! Envoy's own redirects, and through checks that Envoy repeats.

use std::time::Duration;

use serde_json::json;
use streamgate::clock::Stopwatch;

use testkit::gateway::{Setup, session_from};
use testkit::origin::Origin;
use testkit::stack::Stack;
use testkit::streamgate::Streamgate;
use testkit::viewers::{Answer, Viewers};
use testkit::watch::measured;
use testkit::wire::{Cut, Wire};

/// The lines of the access log that tell of streams that run.
const RENEWALS: (&str, [(&str, &str); 2]) = (
    "streamgate_access_log_entries_total",
    [("type", "periodic"), ("outcome", "renewal")],
);

/// Ten times the published value.
const FREED_WITHIN: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_stream_that_is_longer_than_its_lease_keeps_its_slot() {
    let lease = Duration::from_secs(3);
    let settings = [("leases.request", "3s"), ("limits.grace", "0s")];
    let Stack {
        viewers,
        streamgate,
        ..
    } = &Stack::start_with(&settings, |setup| setup.flush_interval("1s")).await;
    let first = viewers.watch(viewers.http1("alice", "/live/1")).await;
    let second = viewers.watch(viewers.http2("alice", "/live/2")).await;
    let mut socket = viewers.websocket("alice").await.unwrap();

    let playing = Stopwatch::start();
    while playing.elapsed() < lease * 2 + lease / 2 {
        let refusal = viewers.refused(viewers.http1("alice", "/live/4")).await;
        assert_eq!(refusal.holders().len(), 3, "{refusal}");
        socket.ticks().await;
    }
    let (name, labels) = RENEWALS;
    assert!(streamgate.metric(name, &labels).await >= 3.0 * 6.0);

    drop((first, second));
    socket.close().await;
    let next = || viewers.http1("alice", "/live/5");
    let (_next, took) = viewers.let_in_within(FREED_WITHIN, next).await;
    measured(
        "slot free after the end of a stream that was longer than its lease",
        took,
    );
}

#[tokio::test]
async fn an_endless_response_asked_for_with_a_playback_id_keeps_its_slot_for_as_long_as_it_runs() {
    let lease = Duration::from_secs(2);
    let settings = [
        ("leases.playback", "2s"),
        ("limits.default", "1"),
        ("limits.grace", "0s"),
    ];
    let Stack { viewers, .. } = &Stack::start_with(&settings, |setup| {
        setup.flush_interval("0.5s").route(json!({
            "match": {"path_separated_prefix": "/live"},
            "route": {"cluster": "backend", "timeout": "0s"},
            "typed_per_filter_config": session_from("header:x-playback-session-id"),
        }))
    })
    .await;
    let ask = |id: &str| {
        viewers
            .http1("alice", "/live/1")
            .header("x-playback-session-id", id)
    };
    let stream = viewers.watch(ask("tv-1")).await;
    assert_eq!(stream.session, "tv-1");

    let playing = Stopwatch::start();
    while playing.elapsed() < lease * 3 {
        viewers.refused(ask("tv-2")).await.assert_full(&[&stream]);
    }
    drop(stream);
    // The end of one request is not the end of a playback: its lease is.
    viewers.refused(ask("tv-2")).await;
    let bound = lease + Duration::from_secs(1);
    let (_next, took) = viewers.let_in_within(bound, || ask("tv-2")).await;
    measured(
        "slot free after the last request of a playback (a lease of 2 s)",
        took,
    );
}

#[tokio::test]
async fn a_request_that_envoy_redirects_by_itself_keeps_exactly_one_slot() {
    let Stack {
        viewers, gateway, ..
    } = &Stack::start_with(&[("limits.grace", "0s")], |setup| {
        setup.flush_interval("0.2s").route(json!({
            "match": {"path": "/redirect-to"},
            "route": {
                "cluster": "backend",
                "timeout": "0s",
                "internal_redirect_policy": {"max_internal_redirects": 1},
            },
            "typed_per_filter_config": session_from("request"),
        }))
    })
    .await;
    let redirected = viewers
        .watch(viewers.http1("alice", "/redirect-to?path=/live/1"))
        .await;
    let stat = "cluster.backend.upstream_internal_redirect_succeeded_total";
    assert_eq!(gateway.stat(stat).await, Some(1.0));

    let second = viewers.watch(viewers.http1("alice", "/live/2")).await;
    let third = viewers.watch(viewers.http1("alice", "/live/3")).await;
    let playing = Stopwatch::start();
    while playing.elapsed() < Duration::from_secs(1) {
        viewers
            .assert_full("alice", &[&redirected, &second, &third])
            .await;
    }
    drop(redirected);
    let next = || viewers.http1("alice", "/live/4");
    let (next, _) = viewers.let_in_within(FREED_WITHIN, next).await;
    viewers
        .assert_full("alice", &[&second, &third, &next])
        .await;
}

#[tokio::test]
async fn a_check_that_envoy_asks_again_keeps_exactly_one_slot() {
    const ENOUGH: usize = 8;
    let origin = Origin::start().await;
    let streamgate = Streamgate::start(&[("limits.grace", "0s")]).await;
    let wire = Wire::to(streamgate.grpc).await;
    let setup = Setup::demo(&[streamgate.grpc], origin.address)
        .cluster("streamgate", &[wire.address])
        .without_health_checks()
        .check(json!({"grpc_service": {"retry_policy": {
            "retry_on": "reset,connect-failure,unavailable,cancelled",
            "num_retries": 3,
        }}}));
    let gateway = setup.start().await;
    let viewers = &Viewers::of(gateway.address);
    let cuts = [Cut::BeforeAnswer, Cut::AfterRequest].into_iter().cycle();
    let (mut asked_again, mut given_up) = (0, 0);
    for (round, cut) in cuts.take(100).enumerate() {
        let user = &format!("user-{round}");
        wire.cut_next(cut);
        let answer = viewers.ask(viewers.http1(user, "/live/1")).await;
        assert_eq!(wire.cuts(), round + 1, "the check was cut off {cut:?}");
        let first = match answer {
            Answer::LetIn(playing) => {
                asked_again += 1;
                playing
            }
            // Envoy doesn't always retry. Then the viewer isn't let in, and must not hold a slot
            // either.
            Answer::Refused(refusal) => {
                assert_eq!(refusal.status, 503, "{refusal}");
                given_up += 1;
                let next = || viewers.http1(user, "/live/1");
                viewers.let_in_within(FREED_WITHIN, next).await.0
            }
        };
        let second = || viewers.http1(user, "/live/2");
        let (second, _) = viewers.let_in_within(FREED_WITHIN, second).await;
        let third = || viewers.http1(user, "/live/3");
        let (third, _) = viewers.let_in_within(FREED_WITHIN, third).await;
        viewers.assert_full(user, &[&first, &second, &third]).await;
        if asked_again == ENOUGH {
            break;
        }
    }
    println!("{asked_again} checks were asked again, {given_up} given up by Envoy");
    assert_eq!(asked_again, ENOUGH);
    let renewed = streamgate.checks("renewed").await;
    assert!(renewed > 0.0, "some had been answered the first time");
}
