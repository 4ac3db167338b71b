//! Our cookie at Envoy's door, over real gRPC: what a player that sends no name gets, and what
//! happens to it.

use std::sync::Arc;
use std::time::Duration;

use streamgate::clock::{ManualClock, Timestamp};
use streamgate::config::{FullRule, OutageRule};

use streamgate::store::faulty::{Fault, FaultyStore};
use testkit::api::{Api, on_both};
use testkit::app::TestApp;
use testkit::gateway_client::{Answer, Check, Gateway, periodic};
use testkit::redis::RedisServer;

/// A player that says nothing but the cookies it was given, on a route that has one issued.
#[derive(Default)]
struct Player {
    cookie: Option<String>,
}

impl Player {
    /// Asks for the next part, and keeps the cookie that comes with it.
    async fn plays(&mut self, gateway: &Gateway, user: &str) -> Answer {
        let answer = gateway.check(self.check(user)).await;
        self.keeps(&answer);
        answer
    }

    /// What it asks.
    fn check(&self, user: &str) -> Check {
        let check = Check::of(user, "any").path("/vod/film/1.ts");
        let check = check.route("streamgate.issue", "cookie");
        match &self.cookie {
            Some(cookie) => check.header("cookie", &format!("theme=dark; {cookie}")),
            None => check,
        }
    }

    fn keeps(&mut self, answer: &Answer) {
        assert!(answer.cookies.len() <= 1, "{answer:?}");
        if let Some(set) = answer.cookies.first() {
            self.cookie = set.split(';').next().map(str::to_owned);
        }
    }
}

/// The session under which it was let in.
fn session(answer: &Answer) -> &str {
    assert!(answer.is_allowed(), "{answer:?}");
    assert_eq!(answer.metadata["kind"], "playback");
    assert_eq!(
        answer.header("x-streamgate-session"),
        Some(&*answer.metadata["session"])
    );
    &answer.metadata["session"]
}

/// Anna's playback is over, says its page.
async fn release(api: &Api<'_>, session: &str) {
    let path = format!("/v1/users/anna/sessions/{session}");
    assert_eq!(api.delete(&path).await.status, 204);
}

#[tokio::test]
async fn a_player_that_brings_its_cookie_is_one_playback_and_another_is_another() {
    on_both(async |plan| {
        let app = plan.limit(2).start().await;
        let gateway = app.gateway().await;
        let (mut tv, mut phone) = (Player::default(), Player::default());
        let first = tv.plays(&gateway, "anna").await;
        assert_eq!(first.cookies.len(), 1);
        for _ in 0..10 {
            let next = tv.plays(&gateway, "anna").await;
            assert_eq!((session(&next), next.cookies.len()), (session(&first), 0));
        }
        let other = phone.plays(&gateway, "anna").await;
        assert_ne!(session(&other), session(&first));
        let mut third = Player::default();
        let refused = third.plays(&gateway, "anna").await;
        assert_eq!((refused.reason(), refused.cookies.len()), ("full", 0));
        assert_eq!(Api::of(&app).live("anna").await.len(), 2);
        app.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_cookie_is_good_with_every_instance_and_after_a_restart_and_is_answered_from_memory() {
    let redis = RedisServer::start();
    let plan = || {
        TestApp::plan()
            .limit(1)
            .redis(&redis.url(), Duration::from_secs(10))
    };
    let mut tv = Player::default();
    let (one, other) = (plan().start().await, plan().start().await);
    let first = tv.plays(&one.gateway().await, "anna").await;
    one.plays(&one.gateway().await, &first).await;
    let second = tv.plays(&other.gateway().await, "anna").await;
    assert_eq!(session(&second), session(&first));
    for _ in 0..3 {
        let next = tv.plays(&one.gateway().await, "anna").await;
        assert_eq!(session(&next), session(&first));
    }
    assert_eq!(one.checks("allow", "held").await, 3);
    one.stop().await;
    other.stop().await;
    let new = plan().start().await;
    let third = tv.plays(&new.gateway().await, "anna").await;
    assert_eq!(session(&third), session(&first));
    new.stop().await;
}

#[tokio::test]
async fn another_user_s_cookie_names_a_playback_of_one_s_own_and_touches_nobody_else_s() {
    let app = TestApp::plan().limit(1).start().await;
    let gateway = app.gateway().await;
    let mut browser = Player::default();
    let annas = browser.plays(&gateway, "anna").await;
    let bens = browser.plays(&gateway, "ben").await;
    assert_ne!(session(&bens), session(&annas));
    let api = Api::of(&app);
    assert_eq!(api.live("anna").await, [session(&annas)]);
    assert_eq!(api.live("ben").await, [session(&bens)]);
    // The id that everybody may see is no cookie.
    let seen = Player {
        cookie: Some(format!("streamgate={}", session(&annas))),
    };
    let refused = gateway.check(seen.check("anna")).await;
    assert_eq!(refused.reason(), "full");
    app.stop().await;
}

#[tokio::test]
async fn a_released_playback_is_followed_at_once_by_one_that_all_requests_share() {
    on_both(async |plan| {
        let app = plan.limit(1).start().await;
        let (gateway, api) = (app.gateway().await, Api::of(&app));
        let mut tv = Player::default();
        let first = tv.plays(&gateway, "anna").await;
        release(&api, session(&first)).await;
        // Two requests are under way with the old cookie.
        let late = Player {
            cookie: tv.cookie.clone(),
        };
        let next = tv.plays(&gateway, "anna").await;
        let beside = gateway.check(late.check("anna")).await;
        assert_ne!(session(&next), session(&first));
        assert_eq!(session(&beside), session(&next));
        assert_eq!(beside.cookies, next.cookies);
        let then = tv.plays(&gateway, "anna").await;
        assert_eq!((session(&then), then.cookies.len()), (session(&next), 0));
        assert_eq!(api.live("anna").await, [session(&next)]);
        // What follows on it in turn is for who has got that cookie.
        release(&api, session(&next)).await;
        let refused = gateway.check(late.check("anna")).await;
        assert_eq!(refused.reason(), "ended");
        assert!(refused.cookies[0].ends_with("; Max-Age=5"), "{refused:?}");
        let third = tv.plays(&gateway, "anna").await;
        assert_ne!(session(&third), session(&next));
        app.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_displaced_player_is_told_until_its_cookie_is_gone_or_it_asks_for_its_slot() {
    on_both(async |plan| {
        let plan = plan.limit(1).when_full(FullRule::DisplaceOldest);
        let app = plan.start().await;
        let gateway = app.gateway().await;
        let (mut tv, mut phone) = (Player::default(), Player::default());
        let first = tv.plays(&gateway, "anna").await;
        let second = phone.plays(&gateway, "anna").await;
        for _ in 0..3 {
            let told = tv.plays(&gateway, "anna").await;
            assert_eq!((told.http, told.reason()), (429, "displaced"));
            let cookie = tv.cookie.as_deref().unwrap();
            assert!(told.cookies[0].starts_with(cookie), "the same still");
            assert!(told.cookies[0].ends_with("; Max-Age=5"), "{told:?}");
        }
        let back = tv.check("anna").header("x-streamgate-takeover", "oldest");
        let back = gateway.check(back).await;
        tv.keeps(&back);
        assert_ne!(session(&back), session(&first));
        let told = phone.plays(&gateway, "anna").await;
        assert_eq!(told.body["displaced_by"]["session"], session(&back));
        // Five seconds later a browser has forgotten it, and a reload is a new player's.
        phone.cookie = None;
        let reloaded = phone.plays(&gateway, "anna").await;
        assert_ne!(session(&reloaded), session(&second));
        app.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_player_that_an_operator_has_stopped_is_told_so() {
    let app = TestApp::plan().start().await;
    let gateway = app.gateway().await;
    let mut tv = Player::default();
    session(&tv.plays(&gateway, "anna").await);
    let ended = Api::of(&app).delete("/v1/users/anna/sessions").await;
    assert!(ended.status.is_success(), "{ended:?}");
    for _ in 0..2 {
        let told = tv.plays(&gateway, "anna").await;
        assert_eq!((told.http, told.reason()), (429, "operator"));
        assert!(told.cookies[0].ends_with("; Max-Age=5"), "{told:?}");
    }
    app.stop().await;
}

#[tokio::test]
async fn a_player_comes_back_under_its_cookie_after_a_pause_if_there_is_room() {
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_000_000)));
    let store = FaultyStore::at(clock.clone());
    let plan = TestApp::plan().limit(1).store(store).clock(clock.clone());
    let app = plan.start().await;
    let gateway = app.gateway().await;
    let (mut tv, mut phone) = (Player::default(), Player::default());
    let first = tv.plays(&gateway, "anna").await;
    clock.advance(Duration::from_secs(30));
    let again = tv.plays(&gateway, "anna").await;
    assert_eq!((session(&again), again.cookies.len()), (session(&first), 0));
    clock.advance(Duration::from_secs(30));
    session(&phone.plays(&gateway, "anna").await);
    let full = tv.plays(&gateway, "anna").await;
    assert_eq!((full.reason(), full.cookies.len()), ("full", 0));
    app.stop().await;
}

#[tokio::test]
async fn a_request_without_its_answer_leaves_no_slot_and_a_running_one_keeps_it() {
    let store = FaultyStore::new();
    let app = TestApp::plan().store(store.clone()).start().await;
    let gateway = app.gateway().await;
    let mut tv = Player::default();
    store.hold();
    tokio::select! {
        answer = gateway.check(tv.check("anna")) => panic!("{answer:?}"),
        () = store.asked("admit", 1) => {}
    }
    gateway.catch_up().await;
    store.let_go();
    // Its cookie never went out, so no request will ever show it.
    app.start_is_undone().await;
    assert_eq!(store.live("anna").await, [""; 0]);

    let first = tv.plays(&gateway, "anna").await;
    let mut log = gateway.access_log().await;
    log.send(vec![periodic("any", &first)]);
    store.asked("renew", 1).await;
    assert_eq!(log.finish().await, 0);
    assert_eq!(store.live("anna").await, [session(&first)]);
    app.stop().await;
}

#[tokio::test]
async fn head_and_options_and_an_outage_issue_nothing() {
    let store = FaultyStore::new();
    let plan = TestApp::plan().outage(OutageRule::Deny);
    let app = plan.store(store.clone()).start().await;
    let gateway = app.gateway().await;
    for method in ["HEAD", "OPTIONS"] {
        let answer = gateway
            .check(Player::default().check("anna").method(method))
            .await;
        assert!(
            answer.is_allowed() && answer.cookies.is_empty(),
            "{answer:?}"
        );
    }
    store.fails(&Fault::Errs(streamgate::store::StoreError::Full(
        "no".to_owned(),
    )));
    let answer = gateway.check(Player::default().check("anna")).await;
    assert_eq!((answer.http, answer.cookies.len()), (503, 0));
    assert_eq!(store.live("anna").await, [""; 0]);
    app.stop().await;
}

#[tokio::test]
async fn a_route_that_asks_for_something_else_is_misconfigured() {
    let app = TestApp::plan().start().await;
    let gateway = app.gateway().await;
    for (key, value) in [
        ("streamgate.issue", "header"),
        ("streamgate.cookie_path", "vod"),
        ("streamgate.session", "request"),
    ] {
        let answer = gateway
            .check(Player::default().check("anna").route(key, value))
            .await;
        assert_eq!((answer.http, answer.reason()), (500, "misconfigured"));
    }
    app.stop().await;
}

#[tokio::test]
async fn in_a_dry_run_a_would_be_refusal_plays_on_without_a_cookie() {
    let app = TestApp::plan().limit(1).start().await;
    let gateway = app.gateway().await;
    session(&Player::default().plays(&gateway, "anna").await);
    let dry = Player::default().check("anna");
    let answer = gateway
        .check(dry.route("streamgate.enforce", "false"))
        .await;
    assert!(answer.is_allowed() && answer.cookies.is_empty());
    assert_eq!(Api::of(&app).live("anna").await.len(), 1);
    app.stop().await;
}
