//! Whose slot a start gets at a full limit: none, the oldest's, the idlest's, or that of a named
//! session; at Envoy's door and over HTTP.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;
use streamgate::config::FullRule;

use testkit::api::{Api, on_both};
use testkit::app::TestApp;
use testkit::gateway_client::{Answer, Check, Gateway, periodic};
use testkit::redis::RedisServer;
use testkit::watch::eventually;

/// A playback's request, with whom it would displace.
async fn takes(gateway: &Gateway, id: &str, takeover: &str) -> Answer {
    let check = Check::of_playback("anna", id).header("x-streamgate-takeover", takeover);
    gateway.check(check).await
}

async fn plays(gateway: &Gateway, id: &str) -> Answer {
    gateway.check(Check::of_playback("anna", id)).await
}

#[tokio::test]
async fn at_envoy_a_takeover_frees_the_named_slot_and_the_loser_learns_by_whom() {
    on_both(async |plan| {
        let app = plan.limit(2).start().await;
        let gateway = app.gateway().await;
        for id in ["p1", "p2"] {
            assert!(plays(&gateway, id).await.is_allowed());
        }
        assert_eq!(plays(&gateway, "p3").await.reason(), "full");
        assert_eq!(takes(&gateway, "p3", "p9").await.reason(), "full");
        assert!(takes(&gateway, "p3", "p2").await.is_allowed());
        let lost = plays(&gateway, "p2").await;
        assert_eq!((lost.http, lost.reason()), (429, "displaced"));
        assert_eq!(
            lost.body["displaced_by"],
            json!({"session": "p3", "kind": "playback"})
        );
        assert!(takes(&gateway, "p4", "oldest").await.is_allowed());
        assert_eq!(plays(&gateway, "p1").await.reason(), "displaced");
        // A session that is in already takes no other's slot, and while there is room no session
        // gives way.
        assert!(takes(&gateway, "p4", "p3").await.is_allowed());
        assert_eq!(Api::of(&app).live("anna").await, ["p3", "p4"]);
        Api::of(&app).delete("/v1/users/anna/sessions/p3").await;
        assert!(takes(&gateway, "p5", "p4").await.is_allowed());
        assert_eq!(Api::of(&app).live("anna").await, ["p4", "p5"]);
        app.stop().await;
    })
    .await;
}

#[tokio::test]
async fn at_envoy_a_running_request_is_not_taken_over_and_a_video_is() {
    on_both(async |plan| {
        let app = plan.limit(2).start().await;
        let (api, gateway) = (Api::of(&app), app.gateway().await);
        let running = gateway.check(Check::of("anna", "r1")).await;
        assert!(running.is_allowed());
        let video = api.with("authorization", "Basic YW5uYTo=");
        assert_eq!(
            video.call(Method::POST, "/?id=film", None).await.status,
            201
        );
        let refused = takes(&gateway, "p1", "r1").await;
        assert_eq!((refused.http, refused.reason()), (409, "not_stoppable"));
        assert!(takes(&gateway, "p1", "film").await.is_allowed());
        video
            .call(Method::PATCH, "/?id=film", None)
            .await
            .is_problem(410, "displaced");
        // If only streams inside the gateway are left, none gives way to a request either.
        assert!(takes(&gateway, "p2", "oldest").await.is_allowed());
        let request = Check::of("anna", "r2").header("x-streamgate-takeover", "p2");
        assert_eq!(gateway.check(request).await.reason(), "full");
        let mut log = gateway.access_log().await;
        log.send(vec![periodic("r1", &running)]);
        assert_eq!(api.live("anna").await, ["r1", "p2"]);
        app.stop().await;
    })
    .await;
}

#[tokio::test]
async fn the_takeover_is_read_only_where_it_is_configured() {
    let plan = TestApp::plan().limit(1);
    let plan = plan.takeover_named_by("header:x-instead-of,query:instead");
    let app = plan.start().await;
    let gateway = app.gateway().await;
    let says = async |id: &str, query: &str| {
        let path = format!("/vod/film/1.ts?{query}");
        gateway
            .check(Check::of_playback("anna", id).path(&path))
            .await
    };
    assert!(plays(&gateway, "p1").await.is_allowed());
    assert_eq!(takes(&gateway, "p2", "p1").await.reason(), "full");
    for query in ["x-streamgate-takeover=p1", "x-instead-of=p1"] {
        assert_eq!(says("p2", query).await.reason(), "full", "{query}");
    }
    let header = Check::of_playback("anna", "p2").header("x-instead-of", "p1");
    assert!(gateway.check(header).await.is_allowed());
    assert_eq!(plays(&gateway, "p1").await.reason(), "displaced");
    assert!(says("p3", "instead=oldest").await.is_allowed());
    assert_eq!(plays(&gateway, "p2").await.reason(), "displaced");
    assert_eq!(Api::of(&app).live("anna").await, ["p3"]);
    app.stop().await;
}

#[tokio::test]
async fn by_configuration_the_oldest_or_the_idlest_gives_way() {
    for (when_full, gives_way) in [
        (FullRule::DisplaceOldest, "p1"),
        (FullRule::DisplaceIdlest, "p2"),
    ] {
        on_both(async |plan| {
            let app = plan.limit(2).when_full(when_full).start().await;
            let (api, gateway) = (Api::of(&app), app.gateway().await);
            for id in ["p1", "p2", "p1"] {
                assert!(api.put("anna", id, json!({})).await.status.is_success());
                // So that each has a time of its own.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert!(plays(&gateway, "p3").await.is_allowed());
            let lost = api.put("anna", gives_way, json!({})).await;
            lost.is_problem(410, "displaced");
            assert_eq!(lost.body["displaced_by"]["session"], "p3");
            // The same over HTTP, and a start that names a session doesn't get another's slot.
            assert_eq!(api.put("anna", "p4", json!({})).await.status, 201);
            let named = api.put("anna", "p5", json!({"takeover": "p9"})).await;
            named.is_problem(429, "full");
            assert_eq!(api.live("anna").await.len(), 2);
            app.stop().await;
        })
        .await;
    }
}

#[tokio::test]
async fn where_only_running_requests_hold_the_slots_nobody_gives_way() {
    let app = TestApp::plan()
        .limit(2)
        .when_full(FullRule::DisplaceOldest)
        .start()
        .await;
    let gateway = app.gateway().await;
    for id in ["r1", "r2"] {
        assert!(gateway.check(Check::of("anna", id)).await.is_allowed());
    }
    assert_eq!(plays(&gateway, "p1").await.reason(), "full");
    assert_eq!(
        gateway.check(Check::of("anna", "r3")).await.reason(),
        "full"
    );
    assert_eq!(Api::of(&app).live("anna").await, ["r1", "r2"]);
    app.stop().await;
}

/// One of the two instances of a race.
struct Instance<'a> {
    gateway: Gateway,
    api: Api<'a>,
}

/// Sixty concurrent starts of that user, every other one through the other instance: some name the
/// session whose slot they want, some show another sign of life. Returns those that were let in.
async fn race(user: &str, instances: &[Instance<'_>; 2]) -> Vec<String> {
    let starts = (0..60).map(async |number| {
        let Instance { gateway, api } = &instances[number % 2];
        let id = format!("p{number}");
        let takeover = ["oldest", "p1", "", "p7", "", ""][number % 6];
        let check = Check::of_playback(user, &id).header("x-streamgate-takeover", takeover);
        let answer = gateway.check(check).await;
        assert!(
            answer.is_allowed() || answer.reason() == "full",
            "{answer:?}"
        );
        if answer.is_allowed() && number % 5 == 0 {
            let told = api.put(user, &id, json!({})).await;
            assert!([200, 410].contains(&told.status.as_u16()), "{told:?}");
        }
        assert!(api.live(user).await.len() <= 3);
        answer.is_allowed().then_some(id)
    });
    join_all(starts).await.into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn takeovers_and_displacements_from_two_instances_never_leave_more_live_than_the_limit() {
    let redis = RedisServer::start();
    let lease = Duration::from_secs(6);
    let start = async |when_full| {
        let plan = TestApp::plan().limit(3).when_full(when_full);
        let plan = plan.redis(&redis.url(), Duration::from_secs(10));
        plan.leases(lease, lease).start().await
    };
    let apps = [
        start(FullRule::DisplaceOldest).await,
        start(FullRule::DisplaceIdlest).await,
    ];
    let [one, other] = &apps;
    let instances = [
        Instance {
            gateway: one.gateway().await,
            api: Api::of(one),
        },
        Instance {
            gateway: other.gateway().await,
            api: Api::of(other),
        },
    ];
    let plays = async |user: &str, id: &str, at: usize| {
        let check = Check::of_playback(user, id);
        instances[at].gateway.check(check).await
    };
    let mut displaced = Vec::new();
    for round in 0..8 {
        let user = format!("user-{round}");
        let let_in = race(&user, &instances).await;
        let live = instances[0].api.live(&user).await;
        assert_eq!(live.len(), 3);
        for id in let_in.into_iter().filter(|id| !live.contains(id)) {
            // The instance that displaced it refuses it immediately; the answer says which one that
            // is.
            let answers = [plays(&user, &id, 0).await, plays(&user, &id, 1).await];
            let refused = answers.iter().find(|it| it.reason() == "displaced");
            let by = &refused.expect("one knows").body["displaced_by"]["session"];
            let number = by.as_str().and_then(|by| by.strip_prefix('p')).unwrap();
            let by: usize = number.parse().unwrap();
            assert_eq!(answers[by % 2].reason(), "displaced", "{id} {answers:?}");
            displaced.push((user.clone(), id));
        }
        assert_eq!(instances[0].api.live(&user).await, live);
    }
    assert!(displaced.len() > 8, "{displaced:?}");
    // The other one does as soon as it asks, a third of a lease later.
    for (user, id) in &displaced {
        for at in [0, 1] {
            eventually("it is refused", async || {
                plays(user, id, at).await.reason() == "displaced"
            })
            .await;
        }
    }
    for app in apps {
        app.stop().await;
    }
}
