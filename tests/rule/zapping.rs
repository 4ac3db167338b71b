//! Ids that a player doesn't make for each playback: returning to the previous channel is never
//! refused forever.

use std::time::Duration;

use streamgate::config::FullRule;

use super::{LONG, by_the_clock};
use testkit::api::{Api, on_both};
use testkit::gateway_client::{Answer, Check, Gateway};

/// As the documentation recommends for players that name nothing: a device, and the title.
const BY_DEVICE_AND_TITLE: &str = "header:x-device-id+path:^/vod/([^/]+)";

/// How long a displaced id must not ask.
const QUIET: Duration = Duration::from_secs(20);

/// A part of a title on a device.
fn part(device: &str, title: &str) -> Check {
    Check::of("anna", "any")
        .header("x-device-id", device)
        .path(&format!("/vod/{title}/1.ts"))
        .route("streamgate.session", BY_DEVICE_AND_TITLE)
}

/// Whether the viewer's player asks for the slot itself, or the configuration gives it.
#[derive(Debug, Clone, Copy)]
enum Way {
    Configured,
    Takeover,
}

impl Way {
    const ALL: [Self; 2] = [Self::Configured, Self::Takeover];

    fn when_full(self) -> FullRule {
        match self {
            Self::Configured => FullRule::DisplaceOldest,
            Self::Takeover => FullRule::Refuse,
        }
    }

    async fn asks(self, gateway: &Gateway, check: Check) -> Answer {
        gateway
            .check(match self {
                Self::Configured => check,
                Self::Takeover => check.header("x-streamgate-takeover", "oldest"),
            })
            .await
    }
}

#[tokio::test]
async fn zapping_back_and_forth_on_one_device_is_never_refused() {
    for way in Way::ALL {
        on_both(async |plan| {
            let plan = plan.limit(1).leases(LONG, LONG);
            let app = plan.when_full(way.when_full()).start().await;
            let (gateway, api) = (app.gateway().await, Api::of(&app));
            // More often than the budget would let in: one's own device costs nothing.
            let titles = ["a", "b", "a", "b", "c", "a"];
            for (round, title) in titles.iter().cycle().take(24).enumerate() {
                let answer = way.asks(&gateway, part("tv", title)).await;
                assert!(answer.is_allowed(), "{way:?} {round}: {answer:?}");
                // A second part continues the first playback.
                let next = way.asks(&gateway, part("tv", title)).await;
                assert!(next.is_allowed(), "{way:?} {round}: {next:?}");
                assert_eq!(api.live("anna").await.len(), 1);
            }
            app.stop().await;
        })
        .await;
    }
}

/// Where nothing tells devices apart, going back draws on the budget, which has room for six.
#[tokio::test]
async fn zapping_by_titles_alone_is_not_refused_either() {
    for way in Way::ALL {
        on_both(async |plan| {
            let plan = plan.limit(1).leases(LONG, LONG);
            let app = plan.when_full(way.when_full()).start().await;
            let (gateway, api) = (app.gateway().await, Api::of(&app));
            for (round, title) in ["a", "b", "a", "b", "c", "a"].iter().enumerate() {
                let check = Check::of("anna", "any")
                    .path(&format!("/vod/{title}/1.ts"))
                    .route("streamgate.session", "path:^/vod/([^/]+)");
                let answer = way.asks(&gateway, check).await;
                assert!(answer.is_allowed(), "{way:?} {round}: {answer:?}");
                assert_eq!(api.live("anna").await, [*title]);
            }
            app.stop().await;
        })
        .await;
    }
}

#[tokio::test]
async fn an_id_that_another_device_displaced_may_begin_anew_once_quiet() {
    by_the_clock(async |plan, clock| {
        let plan = plan.limit(1).when_full(FullRule::DisplaceOldest);
        let app = plan.start().await;
        let (gateway, api) = (app.gateway().await, Api::of(&app));
        let is_let_in = async |device: &str, title: &str| {
            let answer = gateway.check(part(device, title)).await;
            assert!(answer.is_allowed(), "{device} {title}: {answer:?}");
        };
        let is_refused = async || {
            let refused = gateway.check(part("tv", "a")).await;
            assert_eq!((refused.http, refused.reason()), (429, "displaced"));
            assert_eq!(refused.header("retry-after"), Some("20"), "{refused:?}");
        };
        is_let_in("tv", "a").await;
        is_let_in("phone", "b").await;
        // The phone continues, part by part.
        let phone_plays = async |seconds: u64| {
            for _ in 0..seconds {
                is_let_in("phone", "b").await;
                clock.advance(Duration::from_secs(1));
            }
        };
        // Who keeps asking stays out, however long that is.
        for _ in 0..4 {
            is_refused().await;
            phone_plays(QUIET.as_secs() - 1).await;
        }
        is_refused().await;
        phone_plays(QUIET.as_secs()).await;
        is_let_in("tv", "a").await;
        let live = api.live("anna").await;
        assert_eq!(live.len(), 1);
        // Now it is the phone that has to be quiet.
        let refused = gateway.check(part("phone", "b")).await;
        assert_eq!(refused.reason(), "displaced");
        assert_eq!(api.live("anna").await, live);
        app.stop().await;
    })
    .await;
}

#[tokio::test]
async fn an_id_that_an_operator_ended_may_begin_anew_once_quiet() {
    by_the_clock(async |plan, clock| {
        let app = plan.limit(2).start().await;
        let (gateway, api) = (app.gateway().await, Api::of(&app));
        assert!(gateway.check(part("tv", "a")).await.is_allowed());
        let ended = api.delete("/v1/users/anna/sessions").await;
        assert_eq!(ended.status, 200, "{ended:?}");
        for _ in 0..3 {
            let refused = gateway.check(part("tv", "a")).await;
            assert_eq!((refused.http, refused.reason()), (429, "operator"));
            assert_eq!(refused.header("retry-after"), Some("20"), "{refused:?}");
            clock.advance(QUIET - Duration::from_secs(1));
        }
        clock.advance(Duration::from_secs(1));
        assert!(gateway.check(part("tv", "a")).await.is_allowed());
        app.stop().await;
    })
    .await;
}

/// A reload: the page released its playback, and plays it again immediately.
#[tokio::test]
async fn a_derived_id_that_was_released_may_begin_anew_at_once() {
    by_the_clock(async |plan, clock| {
        let app = plan.limit(1).start().await;
        let (gateway, api) = (app.gateway().await, Api::of(&app));
        let first = gateway.check(part("tv", "a")).await;
        assert!(first.is_allowed(), "{first:?}");
        let id = &first.metadata["session"];
        let hook = serde_json::json!({"user": "anna", "session": id});
        let hook = api.call(reqwest::Method::POST, "/v1/release", Some(hook));
        assert_eq!(hook.await.status, 204);
        assert_eq!(api.live("anna").await, [""; 0]);
        // Had this been a straggler, it would cost four seconds.
        assert!(gateway.check(part("tv", "a")).await.is_allowed());
        clock.advance(Duration::from_secs(4));
        assert_eq!(api.live("anna").await, [""; 0]);
        // With a part two seconds later it is a playback as any other.
        assert!(gateway.check(part("tv", "a")).await.is_allowed());
        clock.advance(Duration::from_secs(2));
        assert!(gateway.check(part("tv", "a")).await.is_allowed());
        clock.advance(Duration::from_secs(29));
        assert_eq!(api.live("anna").await, [id.as_str()]);
        app.stop().await;
    })
    .await;
}
