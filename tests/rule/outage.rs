//! A stream that an outage let in above the limit continues for one lease, and viewers within the
//! limit notice nothing.

use std::sync::Arc;
use std::time::Duration;

use streamgate::clock::ManualClock;
use streamgate::config::OutageRule;
use streamgate::store::redis::RedisStore;

use super::{answered, clock, logged};
use testkit::api::Api;
use testkit::app::TestApp;
use testkit::gateway_client::{Answer, Check, Gateway};
use testkit::proxy::Proxy;
use testkit::redis::{RedisServer, settings};
use testkit::watch::eventually;

/// How long a playback counts, by the clock that is moved by hand.
const LEASE: Duration = Duration::from_secs(30);

/// How often a player asks.
const PART: Duration = Duration::from_secs(1);

/// An instance with one slot for each user, and a relay to its Redis. While that is cut, it lets
/// every stream in.
struct Scene {
    _redis: RedisServer,
    wire: Proxy,
    clock: Arc<ManualClock>,
    app: TestApp,
    gateway: Gateway,
}

impl Scene {
    async fn start() -> Self {
        let (redis, clock) = (RedisServer::start(), clock());
        let wire = Proxy::before(redis.port()).await;
        let store = RedisStore::open(settings(&wire.url())).unwrap();
        let store = Arc::new(store.with_clock(clock.clone()));
        let plan = TestApp::plan().limit(1).outage(OutageRule::Allow);
        let app = plan.store(store).clock(clock.clone()).start().await;
        let gateway = app.gateway().await;
        Self {
            _redis: redis,
            wire,
            clock,
            app,
            gateway,
        }
    }

    async fn asks(&self, user: &str, id: &str) -> Answer {
        self.gateway.check(Check::of_playback(user, id)).await
    }

    async fn plays(&self, user: &str, id: &str) {
        let answer = self.asks(user, id).await;
        assert!(answer.is_allowed(), "{user} {id}: {answer:?}");
    }

    /// Starts a playback, which Envoy reports as playing.
    async fn starts(&self, user: &str, id: &str) {
        let answer = self.asks(user, id).await;
        assert!(answer.is_allowed(), "{user} {id}: {answer:?}");
        logged(&self.app, vec![answered(200, &answer)]).await;
    }

    /// Has these ask while Redis can't be reached, and again two seconds later, which shows that
    /// they play.
    async fn play_through_an_outage(&self, all: &[(&str, &str)]) {
        let api = Api::of(&self.app);
        let is_up = async || api.get("/v1/users/nobody/sessions").await.status == 200;
        self.wire.cut();
        eventually("Redis can't be reached", async || !is_up().await).await;
        for pause in [Duration::from_secs(2), Duration::ZERO] {
            for (user, id) in all {
                self.plays(user, id).await;
            }
            self.clock.advance(pause);
        }
        self.wire.restore();
        eventually("Redis is back", is_up).await;
    }

    /// Waits until Redis counts just these sessions of a user.
    async fn counts(&self, user: &str, ids: &[&str]) {
        let api = Api::of(&self.app);
        let url = format!("/v1/users/{user}/sessions");
        eventually("Redis counts them", async || {
            let told = api.get(&url).await;
            let sessions = told.body["sessions"].as_array();
            let live = sessions.into_iter().flatten();
            live.map(|session| session["session"].as_str().unwrap())
                .eq(ids.iter().copied())
        })
        .await;
    }

    /// Has the players continue, the last one until it is refused; returns how many parts it was
    /// let in for. No other is refused.
    async fn until_full(&self, within: &[(&str, &str)], (user, id): (&str, &str)) -> u32 {
        let most = LEASE.as_secs() * 3;
        for parts in 0..u32::try_from(most).unwrap() {
            for (user, id) in within {
                self.plays(user, id).await;
            }
            let answer = self.asks(user, id).await;
            if !answer.is_allowed() {
                assert_eq!(answer.reason(), "full", "{answer:?}");
                return parts;
            }
            self.clock.advance(PART);
        }
        panic!("{id} was let in for three leases");
    }
}

#[tokio::test]
async fn what_an_outage_let_in_above_the_limit_is_full_after_a_lease() {
    let scene = Scene::start().await;
    scene.starts("anna", "p1").await;
    // Only this instance knows ben, who is within his limit.
    let all = [("anna", "p2"), ("ben", "b1"), ("anna", "p1")];
    scene.play_through_an_outage(&all).await;
    scene.counts("anna", &["p1", "p2"]).await;
    scene.counts("ben", &["b1"]).await;

    let within = [("anna", "p1"), ("ben", "b1")];
    let parts = scene.until_full(&within, ("anna", "p2")).await;
    println!("let in for {parts} parts of {PART:?}");
    assert!(parts > 10, "a blip stops nobody at once: {parts}");
    scene.counts("anna", &["p1"]).await;
    scene.counts("ben", &["b1"]).await;
    // Nor is it let in again while the others continue for longer than a lease.
    for _ in 0..LEASE.as_secs() + 5 {
        assert_eq!(scene.asks("anna", "p2").await.reason(), "full");
        for (user, id) in within {
            scene.plays(user, id).await;
        }
        scene.clock.advance(PART);
    }
    scene.app.stop().await;
}

/// Each further outage lets one more in. Earlier versions kept all of them for as long as they
/// asked.
#[tokio::test]
async fn outage_after_outage_does_not_ratchet_the_count_up() {
    let scene = Scene::start().await;
    scene.starts("anna", "p1").await;
    let blips = ["blip-1", "blip-2", "blip-3"];
    for (number, blip) in blips.iter().enumerate() {
        let all = [("anna", *blip), ("anna", "p1")];
        scene.play_through_an_outage(&all).await;
        let live = [&["p1"], &blips[..=number]].concat();
        scene.counts("anna", &live).await;
    }
    for blip in blips {
        scene.until_full(&[("anna", "p1")], ("anna", blip)).await;
    }
    scene.counts("anna", &["p1"]).await;
    scene.app.stop().await;
}
