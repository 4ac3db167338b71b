//! Redis is gone for half a lease, and comes back empty, which is the worst case. Viewers keep
//! watching, a new stream gets what `store.outage` says, and afterwards the count is as if nothing
//! had happened.

use std::collections::BTreeSet;
use std::time::Duration;

use reqwest::RequestBuilder;
use streamgate::clock::Stopwatch;
use streamgate::store::Store;

use testkit::gateway::{Gateway, Setup};
use testkit::origin::Origin;
use testkit::proxy::Proxy;
use testkit::redis::RedisServer;
use testkit::streamgate::Streamgate;
use testkit::streams::user;
use testkit::viewers::{Answer, Playing, Refusal, Viewers};
use testkit::watch::{eventually_within, measured};

/// The lease of every stream. No viewer notices an outage of less than two thirds of it.
const LEASE: Duration = Duration::from_secs(12);

/// Ten times the published value, and longer than it may take until a recovered store counts as up.
const BOUND: Duration = Duration::from_secs(15);

/// The viewers while Redis comes and goes. Alice has all her slots taken and keeps watching; bob
/// has, too, and keeps one of them.
struct Scene {
    rule: &'static str,
    viewers: Viewers,
    streamgate: Streamgate,
    redis: RedisServer,
    wire: Proxy,
    /// Two streams that are one request each, and a playback.
    alice: [Playing; 3],
    /// A stream that is one request.
    bob: Playing,
    _origin: Origin,
    _gateway: Gateway,
}

/// The next segment of a playback.
fn segment(viewers: &Viewers, user: &str, playback: &str) -> RequestBuilder {
    let request = viewers.http1(user, "/vod/demo/180p/000.ts");
    request.header("x-playback-session-id", playback)
}

/// A streamgate with that Redis and that rule.
async fn counting_in(url: &str, rule: &str) -> Streamgate {
    let lease = format!("{}s", LEASE.as_secs());
    Streamgate::start(&[
        ("store.backend", "redis"),
        ("store.redis.urls", url),
        ("store.timeout", "400ms"),
        ("store.outage", rule),
        ("leases.request", &lease),
        ("leases.playback", &lease),
        ("limits.grace", "0s"),
    ])
    .await
}

impl Scene {
    /// Runs it until Redis has been gone for half a lease; returns the answers to a new stream of
    /// carol's, who has no other, and to one of alice's that came meanwhile.
    async fn in_outage(rule: &'static str) -> (Self, Answer, Answer) {
        let (origin, redis) = (Origin::start().await, RedisServer::start());
        let wire = Proxy::before(redis.port()).await;
        let streamgate = counting_in(&wire.url(), rule).await;
        let setup = Setup::demo(&[streamgate.grpc], origin.address).flush_interval("1s");
        let gateway = setup.start().await;
        let viewers = Viewers::of(gateway.address);
        let mut alice = [
            viewers.watch(viewers.http1("alice", "/live/1")).await,
            viewers.watch(viewers.http2("alice", "/live/2")).await,
            viewers
                .let_in(segment(&viewers, "alice", "alices-tv"))
                .await,
        ];
        let mut bob = viewers.watch(viewers.http1("bob", "/live/1")).await;
        let ending = viewers.watch(viewers.http2("bob", "/live/2")).await;
        let released = viewers.let_in(segment(&viewers, "bob", "bobs-tv")).await;
        let [first, second, third] = &alice;
        viewers.assert_full("alice", &[first, second, third]).await;
        viewers
            .assert_full("bob", &[&bob, &ending, &released])
            .await;

        let gone = Stopwatch::start();
        wire.cut();
        redis.stop();
        let carols = viewers.ask(viewers.http1("carol", "/live/1")).await;
        let alices = viewers.ask(viewers.http1("alice", "/live/4")).await;
        drop(ending);
        streamgate.release("bob", "bobs-tv").await;
        while gone.elapsed() < LEASE / 2 {
            alice[0].plays().await;
            alice[1].plays().await;
            viewers
                .let_in(segment(&viewers, "alice", "alices-tv"))
                .await;
            bob.plays().await;
        }
        let scene = Self {
            rule,
            viewers,
            streamgate,
            redis,
            wire,
            alice,
            bob,
            _origin: origin,
            _gateway: gateway,
        };
        assert_eq!(scene.metric("streamgate_store_up").await, 0.0);
        (scene, carols, alices)
    }

    async fn metric(&self, name: &str) -> f64 {
        self.streamgate.metric(name, &[]).await
    }

    fn alice(&self) -> Vec<&Playing> {
        self.alice.iter().collect()
    }

    /// One more stream of alice's, for which she has no slot.
    async fn one_more_of_alices(&self) -> Answer {
        let request = self.viewers.http1("alice", "/live/one-too-many");
        self.viewers.ask(request).await
    }

    /// Redis comes back, empty.
    fn redis_is_back(&self) -> Stopwatch {
        self.redis.restart();
        self.wire.restore();
        Stopwatch::start()
    }

    /// Waits until Redis, seen past the wire, counts these sessions of the user's and no others.
    async fn counts(&self, name: &str, sessions: &[&Playing]) {
        let expected: BTreeSet<&str> = sessions.iter().map(|one| one.session.as_str()).collect();
        let what = format!("exactly {expected:?} of {name}'s are counted");
        let store = self.redis.store();
        eventually_within(BOUND, &what, async || {
            let listing = store.list(&user(name)).await.unwrap();
            let counted = listing.sessions.iter().map(|one| one.key.id.as_str());
            counted.collect::<BTreeSet<_>>() == expected
        })
        .await;
    }

    /// Exactly the running streams are counted again: alice's streams and these more, bob's, and
    /// carol's if there is one.
    async fn is_whole(
        &mut self,
        back: &Stopwatch,
        alices: Option<&Playing>,
        bobs: Option<&Playing>,
        carols: Option<&Playing>,
    ) {
        let alices: Vec<&Playing> = self.alice.iter().chain(alices).collect();
        let bobs: Vec<&Playing> = std::iter::once(&self.bob).chain(bobs).collect();
        self.counts("alice", &alices).await;
        self.counts("bob", &bobs).await;
        self.counts("carol", carols.as_slice()).await;
        let what = format!(
            "all streams counted again after Redis was back, empty ({})",
            self.rule
        );
        measured(&what, back.elapsed());
        self.viewers.assert_full("alice", &alices).await;

        // What ended in the outage has ended for good, and its slots are free.
        let viewers = &self.viewers;
        let late = viewers.refused(segment(viewers, "bob", "bobs-tv")).await;
        assert_eq!((late.status.as_u16(), late.reason()), (429, "ended"));
        let mut next = Vec::new();
        for number in bobs.len()..3 {
            let request = viewers.http1("bob", &format!("/live/next-{number}"));
            next.push(viewers.watch(request).await);
        }
        let all: Vec<&Playing> = bobs.into_iter().chain(&next).collect();
        viewers.assert_full("bob", &all).await;

        assert_eq!(self.metric("streamgate_store_up").await, 1.0);
        let tv = segment(&self.viewers, "alice", "alices-tv");
        self.viewers.let_in(tv).await;
        for stream in self.alice.iter_mut().take(2).chain([&mut self.bob]) {
            stream.plays().await;
        }
    }
}

/// What must have been let in, seen playing.
async fn playing(answer: Answer) -> Playing {
    match answer {
        Answer::LetIn(mut playing) => {
            playing.plays().await;
            playing
        }
        Answer::Refused(refusal) => panic!("expected to be let in, got {refusal}"),
    }
}

/// What must have been refused, with a problem that can be read.
fn refused(answer: Answer) -> Refusal {
    match answer {
        Answer::Refused(refusal) => {
            assert_eq!(refusal.header("content-type"), "application/problem+json");
            refusal
        }
        Answer::LetIn(playing) => panic!("expected a refusal, was let in as {playing:?}"),
    }
}

#[tokio::test]
async fn with_allow_everybody_is_let_in_while_redis_is_gone_and_is_counted_when_it_is_back() {
    let (mut scene, carols, alices) = Scene::in_outage("allow").await;
    let (carols, alices) = (playing(carols).await, playing(alices).await);
    let back = scene.redis_is_back();
    scene
        .is_whole(&back, Some(&alices), None, Some(&carols))
        .await;
    assert_eq!(scene.streamgate.checks("outage").await, 0.0);
}

#[tokio::test]
async fn with_deny_a_new_stream_is_503_while_redis_is_gone_and_nobody_who_watches_notices() {
    let (mut scene, carols, alices) = Scene::in_outage("deny").await;
    for answer in [carols, alices] {
        let refusal = refused(answer);
        let said = (refusal.status.as_u16(), refusal.reason());
        assert_eq!(said, (503, "outage"), "{refusal}");
        assert_eq!(refusal.header("retry-after"), "1");
    }
    let back = scene.redis_is_back();
    // Redis knows nothing of her streams when it is asked for the first time. That makes no slot.
    let first = loop {
        let refusal = refused(scene.one_more_of_alices().await);
        if refusal.reason() != "outage" {
            break refusal;
        }
        assert!(back.elapsed() < BOUND, "{refusal}");
    };
    measured(
        "first decision of Redis after it was back, empty (deny)",
        back.elapsed(),
    );
    first.assert_full(&scene.alice());
    scene.is_whole(&back, None, None, None).await;
}

#[tokio::test]
async fn with_local_an_instance_counts_by_itself_while_redis_is_gone_and_never_one_too_many() {
    let (mut scene, carols, alices) = Scene::in_outage("local").await;
    let carols = playing(carols).await;
    refused(alices).assert_full(&scene.alice());
    let viewers = &scene.viewers;
    // Two of bob's streams have ended since Redis was gone.
    let bobs = viewers.watch(viewers.http1("bob", "/live/3")).await;
    let local = [("reason", "full_local")];
    let checks = "streamgate_checks_total";
    assert!(scene.streamgate.metric(checks, &local).await > 0.0);
    let back = scene.redis_is_back();
    while scene.metric("streamgate_store_up").await == 0.0 {
        refused(scene.one_more_of_alices().await).assert_full(&scene.alice());
        assert!(back.elapsed() < BOUND);
    }
    measured(
        "Redis believed after it was back, empty (local)",
        back.elapsed(),
    );
    refused(scene.one_more_of_alices().await).assert_full(&scene.alice());
    scene
        .is_whole(&back, None, Some(&bobs), Some(&carols))
        .await;
    assert_eq!(scene.streamgate.checks("outage").await, 0.0);
}
