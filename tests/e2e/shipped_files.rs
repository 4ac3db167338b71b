//! The files in `envoy/`, run as a reader would: users come from signed tokens there, and so do
//! their plans.

use serde_json::Value;

use testkit::envoy_files::{fragment, paste_fragments, read, route_mut, set};
use testkit::gateway::{Gateway, Setup, envoy_binary};
use testkit::origin::Origin;
use testkit::process::command;
use testkit::streamgate::{Setting, Streamgate};
use testkit::viewers::{Playing, Viewers};

/// An example token by its name in the fixtures.
pub(crate) fn token(name: &str) -> String {
    let tokens = read("tests/fixtures/example-tokens.json");
    tokens[name].as_str().unwrap().to_owned()
}

/// A request with an example token.
fn with_token(viewers: &Viewers, name: &str, path: &str) -> reqwest::RequestBuilder {
    viewers.anonymous(path).bearer_auth(token(name))
}

/// As many streams as `count`, all playing.
async fn watch(viewers: &Viewers, token: &str, count: usize) -> Vec<Playing> {
    let mut playing = Vec::new();
    for channel in 0..count {
        let request = with_token(viewers, token, &format!("/live/{channel}"));
        playing.push(viewers.watch(request).await);
    }
    playing
}

pub(super) async fn shipped(settings: &[Setting<'_>]) -> (Gateway, Streamgate, Origin) {
    shipped_with(settings, |setup| setup).await
}

/// The same with changes to Envoy's configuration.
pub(super) async fn shipped_with(
    settings: &[Setting<'_>],
    change: impl FnOnce(Setup) -> Setup,
) -> (Gateway, Streamgate, Origin) {
    let origin = Origin::start().await;
    let streamgate = Streamgate::start(settings).await;
    let setup = Setup::file("envoy/envoy.yaml")
        .streamgates(&[streamgate.grpc])
        .cluster("origin", &[origin.address])
        .cluster("streamgate_http", &[streamgate.http]);
    (change(setup).start().await, streamgate, origin)
}

#[tokio::test]
async fn envoy_accepts_the_shipped_configuration_as_it_is() {
    let mut validate = command(envoy_binary());
    validate.args(["--mode", "validate", "--config-path"]);
    validate.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/envoy/envoy.yaml"));
    let validated = validate.kill_on_drop(true).output().await.unwrap();
    assert!(validated.status.success(), "{validated:?}");
}

#[tokio::test]
async fn the_shipped_gateway_counts_the_streams_of_whom_a_token_names_and_believes_nobody_else() {
    let (gateway, streamgate, _origin) = shipped(&[]).await;
    let viewers = &Viewers::of(gateway.address);
    let alices = watch(viewers, "alice", 3).await;
    let refusal = viewers
        .refused(with_token(viewers, "alice", "/live/4"))
        .await;
    refusal.assert_full(&alices.iter().collect::<Vec<_>>());
    watch(viewers, "bob", 1).await;

    let spoofed = with_token(viewers, "alice", "/live/5").header("x-user-id", "bob");
    assert_eq!(viewers.refused(spoofed).await.reason(), "full");
    let none = viewers.anonymous("/live/1").header("x-user-id", "bob");
    assert_eq!(viewers.refused(none).await.status, 401);
    let wrong = [
        ("expired", 401),
        ("never_expires", 401),
        ("no_subject", 401),
        ("other_audience", 403),
    ];
    for (wrong, status) in wrong {
        let refusal = viewers.refused(with_token(viewers, wrong, "/live/1")).await;
        assert_eq!(refusal.status, status, "{wrong}: {refusal}");
    }
    assert_eq!(
        streamgate.checks("no_user").await,
        1.0,
        "the others were Envoy's"
    );
}

#[tokio::test]
async fn a_plan_in_the_token_sets_the_limit_a_users_own_beats_it_and_zero_means_none() {
    let (gateway, streamgate, _origin) = shipped(&[
        ("limits.default", "2"),
        ("limits.plans", "basic=1,premium=4"),
        ("limits.users", "bob=0"),
    ])
    .await;
    let viewers = &Viewers::of(gateway.address);
    for (user, limit) in [
        ("carol_premium", 4),
        ("dave_basic", 1),
        ("alice", 2),
        ("bob", 0),
    ] {
        let playing = watch(viewers, user, limit).await;
        let refusal = viewers
            .refused(with_token(viewers, user, "/live/more"))
            .await;
        refusal.assert_full(&playing.iter().collect::<Vec<_>>());
        assert_eq!(
            refusal.problem.get("limit"),
            Some::<&Value>(&limit.into()),
            "{user}"
        );
        let policy = format!("\"streams\";q={limit};qu=\"concurrent-requests\"");
        assert_eq!(refusal.header("ratelimit-policy"), policy);
    }
    assert_eq!(
        streamgate
            .metric("streamgate_unknown_plan_total", &[])
            .await,
        0.0
    );
}

#[tokio::test]
async fn a_plan_that_nobody_knows_gets_the_default_and_is_counted() {
    let (gateway, streamgate, _origin) = shipped(&[("limits.default", "1")]).await;
    let viewers = &Viewers::of(gateway.address);
    let playing = watch(viewers, "carol_premium", 1).await;
    let refusal = viewers
        .refused(with_token(viewers, "carol_premium", "/live/2"))
        .await;
    refusal.assert_full(&[&playing[0]]);
    assert_eq!(
        streamgate
            .metric("streamgate_unknown_plan_total", &[])
            .await,
        2.0
    );
    streamgate.says("premium").await;
    assert_eq!(
        streamgate.log().matches("premium").count(),
        1,
        "logged once"
    );
}

#[tokio::test]
async fn the_fragments_turn_somebodys_own_envoy_into_one_that_counts() {
    let origin = Origin::start().await;
    // The fragments give a check half a second, which a busy machine may need even if no start
    // waits for a slot.
    let streamgate = Streamgate::start(&[("limits.grace", "0s")]).await;
    let mut envoy = read("tests/fixtures/plain-envoy.yaml");
    paste_fragments(&mut envoy);
    set(route_mut(&mut envoy, "/live"), fragment("route-endless"));
    set(route_mut(&mut envoy, "/vod"), fragment("route-playback"));
    let setup = Setup(envoy)
        .streamgates(&[streamgate.grpc])
        .cluster("backend", &[origin.address]);
    let gateway = setup.start().await;
    let viewers = &Viewers::of(gateway.address);
    let mut alices = watch(viewers, "alice", 3).await;
    let refusal = viewers
        .refused(with_token(viewers, "alice", "/live/4"))
        .await;
    refusal.assert_full(&alices.iter().collect::<Vec<_>>());
    drop(alices.pop());
    let playback = || with_token(viewers, "alice", "/vod/demo/index.m3u8?session=tv");
    let bound = std::time::Duration::from_secs(1);
    let (playback, _) = viewers.let_in_within(bound, playback).await;
    assert_eq!(playback.session, "tv");
    let unnamed = viewers
        .refused(with_token(viewers, "alice", "/vod/demo/index.m3u8"))
        .await;
    assert_eq!(
        (unnamed.status.as_u16(), unnamed.reason()),
        (400, "no_session")
    );
}
