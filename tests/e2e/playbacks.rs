//! HLS: many short requests are one playback, wherever its id is.

use std::time::Duration;

use reqwest::RequestBuilder;
use serde_json::{Value, json};

use testkit::envoy_files::{CONNECTION_MANAGER, at_mut, fragment, read};
use testkit::gateway::{Setup, context, session_from};
use testkit::origin::Origin;
use testkit::stack::Stack;
use testkit::streamgate::Streamgate;
use testkit::viewers::{Raw, Viewers};
use testkit::wire::Wire;

const MASTER: &str = "index.m3u8";
const REQUESTS: usize = 20;

/// What a player of the clip asks for, in its order.
fn files() -> Vec<String> {
    let variants = ["180p", "270p"];
    let segments = |variant: &'static str| {
        let files = (0..10).map(move |number| format!("{variant}/{number:03}.ts"));
        std::iter::once(format!("{variant}/index.m3u8")).chain(files)
    };
    let files = std::iter::once(MASTER.to_owned()).chain(variants.into_iter().flat_map(segments));
    files.take(REQUESTS).collect()
}

/// A way to name the n-th of one user's playbacks.
type Naming = fn(&Viewers, &str, &str, usize) -> RequestBuilder;

/// Every place in which a playback can be named.
const NAMINGS: [(&str, Naming); 6] = [
    ("header", |viewers, user, file, n| {
        let request = viewers.http1(user, &format!("/vod/demo/{file}"));
        request.header("x-playback-session-id", format!("tv-{n}"))
    }),
    ("query", |viewers, user, file, n| {
        viewers.http1(
            user,
            &format!("/vod/demo/{file}?quality=high&session=tv-{n}"),
        )
    }),
    ("cmcd header", |viewers, user, file, n| {
        let request = viewers.http1(user, &format!("/vod/demo/{file}"));
        request
            .header("cmcd-request", "mtp=25400,bl=5000")
            .header("cmcd-session", format!("cid=\"film\",sid=\"tv-{n}\",v=1"))
    }),
    ("cmcd query", |viewers, user, file, n| {
        let payload = format!("bl%3D5000%2Csid%3D%22tv-{n}%22");
        viewers.http1(user, &format!("/vod/demo/{file}?CMCD={payload}"))
    }),
    ("jwt", |viewers, user, file, n| {
        let tokens = read("tests/fixtures/example-tokens.json");
        let token = tokens[["alice", "bob", "carol_premium", "dave_basic"][n]]
            .as_str()
            .unwrap();
        let request = viewers.http1(user, &format!("/by-token/demo/{file}"));
        request.bearer_auth(token)
    }),
    ("context", |viewers, user, file, n| {
        viewers.http1(user, &format!("/by-channel-{n}/demo/{file}"))
    }),
];

/// The demo's Envoy with a route where a token names the playback, and routes that each are one
/// themselves.
fn with_every_naming(setup: Setup) -> Setup {
    let rewritten = |prefix: &str, filters: Value| {
        json!({
            "match": {"path_separated_prefix": prefix},
            "route": {"cluster": "backend", "timeout": "0s", "prefix_rewrite": "/vod"},
            "typed_per_filter_config": filters,
        })
    };
    let by_channel = |setup: Setup, n: usize| {
        let said =
            json!({"streamgate.session": "context:channel", "channel": format!("channel {n}")});
        setup.route(rewritten(&format!("/by-channel-{n}"), context(said)))
    };
    let setup = (0..4).fold(setup, by_channel);
    let setup = setup.route(rewritten("/by-token", session_from("jwt:sub")));
    let namespaces = json!({"metadata_context_namespaces": ["envoy.filters.http.jwt_authn"]});
    setup.check(namespaces).edit(|config| {
        let mut login = fragment("http_filters")[0].take();
        let provider = at_mut(&mut login, "/typed_config/providers/login");
        provider.as_object_mut().unwrap().remove("claim_to_headers");
        let rule =
            json!([{"match": {"prefix": "/by-token"}, "requires": {"provider_name": "login"}}]);
        *at_mut(&mut login, "/typed_config/rules") = rule;
        let filters = at_mut(config, &format!("{CONNECTION_MANAGER}/http_filters"));
        filters.as_array_mut().unwrap().insert(0, login);
    })
}

#[tokio::test]
async fn twenty_requests_of_a_playback_hold_one_slot_and_a_fourth_playback_is_refused_on_its_first()
{
    let Stack {
        viewers,
        streamgate,
        ..
    } = &Stack::start_with(&[], with_every_naming).await;
    for (naming, request) in NAMINGS {
        let user = &format!("watches by {naming}");
        let mut held = Vec::new();
        for file in files() {
            held.push(viewers.let_in(request(viewers, user, &file, 0)).await);
        }
        let second = viewers.let_in(request(viewers, user, MASTER, 1)).await;
        let third = viewers.let_in(request(viewers, user, MASTER, 2)).await;
        let first = held.pop().unwrap();
        assert!(
            held.iter().all(|request| request.session == first.session),
            "{naming}"
        );
        let refusal = viewers.refused(request(viewers, user, MASTER, 3)).await;
        refusal.assert_full(&[&first, &second, &third]);
        drop(
            viewers
                .let_in(request(viewers, user, "270p/009.ts", 0))
                .await,
        );
    }
    let namings = f64::from(u32::try_from(NAMINGS.len()).unwrap());
    assert_eq!(streamgate.checks("started").await, 3.0 * namings);
}

#[tokio::test]
async fn a_request_on_the_hls_route_that_names_no_playback_is_400() {
    let Stack { viewers, .. } = &Stack::start(&[]).await;
    for path in [
        "/vod/demo/index.m3u8",
        "/vod/demo/index.m3u8?session=",
        "/vod/demo/180p/000.ts?CMCD=bl%3D1",
    ] {
        let refusal = viewers.refused(viewers.http1("alice", path)).await;
        assert_eq!(
            (refusal.status.as_u16(), refusal.reason()),
            (400, "no_session"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_released_playback_frees_its_slot_and_its_late_requests_do_not_bring_it_back() {
    let Stack {
        viewers,
        streamgate,
        ..
    } = &Stack::start(&[("limits.default", "1")]).await;
    let playback = |id: &str| {
        viewers
            .http1("alice", "/vod/demo/index.m3u8")
            .header("x-playback-session-id", id)
    };
    viewers.let_in(playback("tv-1")).await;
    streamgate.release("alice", "tv-1").await;
    let second = viewers.let_in(playback("tv-2")).await;
    let late = viewers.refused(playback("tv-1")).await;
    assert_eq!((late.status.as_u16(), late.reason()), (429, "ended"));
    assert_eq!(late.header("retry-after"), "");
    viewers
        .refused(playback("tv-3"))
        .await
        .assert_full(&[&second]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_player_that_aborts_segments_in_mid_check_is_never_told_that_its_playback_has_ended() {
    const ABORTS: usize = 200;
    let origin = Origin::start().await;
    let streamgate = Streamgate::start(&[("limits.default", "1")]).await;
    let wire = Wire::to(streamgate.grpc).await;
    let setup =
        Setup::demo(&[streamgate.grpc], origin.address).cluster("streamgate", &[wire.address]);
    let gateway = setup.start().await;
    let viewers = &Viewers::of(gateway.address);
    wire.delay(Duration::from_millis(2));
    for abort in 0..ABORTS {
        // Every second one belongs to a new playback, whose very first request is aborted so.
        let id = format!("x-playback-session-id: tv-{}", abort / 2);
        let path = format!("/vod/demo/180p/{:03}.ts", abort % 10);
        if abort % 2 == 0 && abort > 0 {
            streamgate
                .release("alice", &format!("tv-{}", abort / 2 - 1))
                .await;
        }
        let leaving = Duration::from_micros(rand::random_range(0..5000));
        if abort % 3 == 0 {
            let segment = viewers
                .http2("alice", &path)
                .header("x-playback-session-id", format!("tv-{}", abort / 2));
            // Dropped before its answer has come, it is reset.
            let _ = tokio::time::timeout(leaving, segment.send()).await;
        } else {
            let segment: Raw = viewers.raw_get("alice", &path, &[&id]).await;
            tokio::time::sleep(leaving).await;
            if abort % 3 == 1 {
                segment.cut();
            }
        }
        let again = viewers
            .http1("alice", &path)
            .header("x-playback-session-id", format!("tv-{}", abort / 2));
        let again = viewers.let_in(again).await;
        assert!(again.rest().await > 0);
    }
    assert_eq!(streamgate.checks("ended").await, 0.0);
    println!(
        "{ABORTS} aborted requests: {} cancelled in mid-check",
        streamgate.checks("cancelled").await
    );
}
