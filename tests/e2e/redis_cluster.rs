//! The masters of a Redis Cluster change while people watch: slots move, a replica takes over as
//! planned, a master is killed. Nobody who is watching is refused or cut off, what ends meanwhile
//! frees its slot, and newcomers of the other shards notice nothing. The clients count all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::RequestBuilder;
use streamgate::store::Store;
use streamgate::store::redis::RedisStore;
use tokio_util::sync::CancellationToken;

use testkit::cluster::{MASTERS, RedisCluster, in_cluster};
use testkit::gateway::{Gateway, Setup};
use testkit::origin::Origin;
use testkit::streamgate::Streamgate;
use testkit::streams::user;
use testkit::viewers::{Answer, Playing, Refusal, Viewers};
use testkit::watch::{PATIENCE, SLOWLY, eventually, eventually_within};

/// How many users of each shard watch all the while.
const WATCHING: usize = 4;

/// How many users of each shard can come meanwhile: more than the longest fault needs.
const COMING: usize = 4_000;

/// How long each rests after a request.
const REST: Duration = Duration::from_millis(30);

/// How often each viewer asks once more when the fault is over.
const AFTERWARDS: usize = 5;

/// A user with two slots, both taken: by a live stream, and by a playback whose segments are asked
/// for one after the other.
struct Viewer {
    /// Who it is.
    name: String,
    /// The live stream.
    live: Playing,
    /// How many segments came.
    segments: usize,
    /// What came instead of segments.
    refused: Vec<Refusal>,
}

/// Users of one shard who come one after the other.
#[derive(Default)]
struct Newcomers {
    /// Those who are yet to come.
    names: Vec<String>,
    /// How many were let in.
    let_in: usize,
    /// What the others were told.
    refused: Vec<Refusal>,
}

/// A cluster, streamgate on it, Envoy in front, and their users.
struct Scene {
    cluster: Arc<RedisCluster>,
    /// Looks into the cluster past streamgate.
    store: RedisStore,
    streamgate: Streamgate,
    viewers: Viewers,
    /// Those who watch all the while, of all shards.
    watching: Vec<Viewer>,
    /// The live streams that end during the fault, one of each shard.
    leaving: Vec<Playing>,
    /// Whose they are.
    leavers: Vec<String>,
    /// Who comes, for each shard.
    newcomers: [Newcomers; MASTERS],
    _origin: Origin,
    _gateway: Gateway,
}

/// The next segment of a user's playback.
fn segment(viewers: &Viewers, name: &str) -> RequestBuilder {
    let request = viewers.http1(name, "/vod/demo/180p/000.ts");
    request.header("x-playback-session-id", playback_of(name))
}

/// What a user's playback is called.
fn playback_of(name: &str) -> String {
    format!("tv of {name}")
}

/// Does that while everything else goes on.
async fn beside<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(act).await.unwrap()
}

// === impl Viewer ===

impl Viewer {
    /// A user who takes both slots.
    async fn begin(viewers: &Viewers, name: String) -> Self {
        let live = viewers.watch(viewers.http1(&name, "/live/1")).await;
        let mut viewer = Self {
            name,
            live,
            segments: 0,
            refused: Vec::new(),
        };
        viewer.asks(viewers).await;
        assert_eq!(viewer.segments, 1, "{:?}", viewer.refused);
        viewer
    }

    /// Asks for a segment.
    async fn asks(&mut self, viewers: &Viewers) {
        match viewers.ask(segment(viewers, &self.name)).await {
            Answer::LetIn(segment) => {
                assert!(segment.rest().await > 0);
                self.segments += 1;
            }
            Answer::Refused(refusal) => self.refused.push(refusal),
        }
    }

    /// Watches until that is over, and a little longer. A live stream that is cut off fails the
    /// test.
    async fn watches(&mut self, viewers: &Viewers, over: &CancellationToken) {
        let mut afterwards = 0;
        while afterwards < AFTERWARDS {
            afterwards += usize::from(over.is_cancelled());
            self.live.plays().await;
            self.asks(viewers).await;
            tokio::time::sleep(REST).await;
        }
    }

    /// The names of both sessions.
    fn sessions(&self) -> BTreeSet<String> {
        [self.live.session.clone(), playback_of(&self.name)].into()
    }
}

// === impl Newcomers ===

impl Newcomers {
    /// One after the other comes until that is over.
    async fn come(&mut self, viewers: &Viewers, over: &CancellationToken) {
        while !over.is_cancelled() {
            let name = self.names.pop().expect("there are users enough");
            match viewers.ask(segment(viewers, &name)).await {
                Answer::LetIn(_) => self.let_in += 1,
                Answer::Refused(refusal) => self.refused.push(refusal),
            }
            tokio::time::sleep(REST).await;
        }
    }
}

// === impl Scene ===

impl Scene {
    /// Everybody watches, on that cluster. While a shard is out, nobody new is let in there.
    async fn start(start: fn() -> RedisCluster) -> Self {
        let (cluster, origin) = (Arc::new(beside(start).await), Origin::start().await);
        let store = cluster.connected_store(cluster.settings()).await;
        let urls = cluster.urls().join(",");
        let settings = [
            ("store.outage", "deny"),
            ("limits.default", "2"),
            ("limits.grace", "0s"),
            // No lease ends before the test does: what is free has been freed.
            ("leases.request", "10m"),
            ("leases.playback", "10m"),
        ];
        let settings = [&in_cluster(&urls)[..], &settings].concat();
        let streamgate = Streamgate::start(&settings).await;
        let all = |shards: f64| shards == MASTERS as f64;
        streamgate
            .metric_becomes("streamgate_store_shards", &[], all)
            .await;
        let setup = Setup::demo(&[streamgate.grpc], origin.address).flush_interval("1s");
        let gateway = setup.start().await;
        let mut scene = Self {
            viewers: Viewers::of(gateway.address),
            watching: Vec::new(),
            leaving: Vec::new(),
            leavers: Vec::new(),
            newcomers: Default::default(),
            cluster,
            store,
            streamgate,
            _origin: origin,
            _gateway: gateway,
        };
        scene.fill().await;
        scene
    }

    /// Lets users of each shard begin.
    async fn fill(&mut self) {
        let users = self.cluster.users_of_each(&self.store, COMING);
        for (shard, mut names) in users.into_iter().enumerate() {
            for name in names.split_off(COMING - WATCHING) {
                self.watching.push(Viewer::begin(&self.viewers, name).await);
            }
            let leaver = Viewer::begin(&self.viewers, names.pop().unwrap()).await;
            self.leaving.push(leaver.live);
            self.leavers.push(leaver.name);
            self.newcomers[shard].names = names;
        }
    }

    /// Everybody watches, and others come, until that is done.
    async fn during(&mut self, fault: impl Future<Output = ()>) {
        let over = CancellationToken::new();
        let viewers = &self.viewers;
        let watching = self.watching.iter_mut();
        let watching = join_all(watching.map(|viewer| viewer.watches(viewers, &over)));
        let newcomers = self.newcomers.iter_mut();
        let newcomers = join_all(newcomers.map(|newcomers| newcomers.come(viewers, &over)));
        let working = async {
            fault.await;
            over.cancel();
        };
        Box::pin(async { tokio::join!(working, watching, newcomers) }).await;
    }

    /// Nobody who watched was refused, no newcomer was except those of the shard that was hit, and
    /// what ends frees its slot.
    async fn all_is_well(mut self, hit: Option<usize>) {
        for (shard, newcomers) in self.newcomers.iter().enumerate() {
            let (let_in, refused) = (newcomers.let_in, newcomers.refused.len());
            println!("shard {shard}: {let_in} newcomers let in, {refused} refused");
            assert!(let_in > 0, "shard {shard}");
            assert_eq!(refused > 0, hit == Some(shard), "{:?}", newcomers.refused);
        }
        for viewer in &self.watching {
            assert!(viewer.refused.is_empty(), "{:?}", viewer.refused);
            assert!(viewer.segments > AFTERWARDS);
            self.counts(&viewer.name, &viewer.sessions()).await;
            is_full(&self.viewers, &viewer.name, &viewer.sessions()).await;
        }
        for name in &self.leavers {
            self.has_room_for(name, &[playback_of(name)]).await;
        }
        for viewer in std::mem::take(&mut self.watching) {
            drop(viewer.live);
            let playback = playback_of(&viewer.name);
            self.streamgate.release(&viewer.name, &playback).await;
            self.has_room_for(&viewer.name, &[]).await;
        }
    }

    /// Waits until the cluster counts these sessions of the user's and no others.
    async fn counts(&self, name: &str, sessions: &BTreeSet<String>) {
        let what = format!("exactly {sessions:?} are counted");
        eventually(&what, async || {
            let listing = self.store.list(&user(name)).await.ok()?;
            let counted = listing.sessions.iter();
            let counted = counted.map(|session| session.key.id.to_string());
            (counted.collect::<BTreeSet<_>>() == *sessions).then_some(())
        })
        .await;
    }

    /// The user, who still has these sessions, is let in up to the limit and not beyond.
    async fn has_room_for(&self, name: &str, sessions: &[String]) {
        let mut next = Vec::new();
        for number in sessions.len()..2 {
            let request = || {
                let path = format!("/live/next-{number}");
                self.viewers.http1(name, &path)
            };
            let (playing, _) = self.viewers.let_in_within(PATIENCE, request).await;
            next.push(playing);
        }
        let all = next.iter().map(|playing| playing.session.clone());
        let all = all.chain(sessions.iter().cloned()).collect();
        is_full(&self.viewers, name, &all).await;
    }
}

/// The user's slots are all taken, by exactly these sessions.
async fn is_full(viewers: &Viewers, name: &str, sessions: &BTreeSet<String>) {
    let refusal = viewers.refused(viewers.http1(name, "/live/more")).await;
    let sessions: BTreeSet<_> = sessions.iter().map(String::as_str).collect();
    assert_eq!(refusal.reason(), "full", "{refusal}");
    assert_eq!(refusal.holders(), sessions, "{refusal}");
}

#[tokio::test]
async fn slots_move_while_their_users_watch_and_nobody_notices() {
    let mut scene = Scene::start(RedisCluster::start).await;
    let viewers = Viewers::of(scene.viewers.gateway);
    let (cluster, leaving) = (
        Arc::clone(&scene.cluster),
        std::mem::take(&mut scene.leaving),
    );
    let slot_of = |viewer: &Viewer| cluster.slot(&viewer.name);
    // The first ones are users of the first master.
    let moving = scene.watching[..WATCHING].iter();
    let moving = moving.map(|viewer| (slot_of(viewer), (viewer.name.clone(), viewer.sessions())));
    let moving: BTreeMap<_, _> = moving.collect();
    let leavers_slot = cluster.slot(&scene.leavers[0]);
    scene
        .during(async move {
            cluster.begin_to_move(leavers_slot, 0, 1);
            drop(leaving);
            for (slot, (name, sessions)) in moving {
                cluster.begin_to_move(slot, 0, 1);
                is_full(&viewers, &name, &sessions).await;
                cluster.move_keys(slot, 0, 1);
                // The old master still owns the slot, and sends each call to the new one.
                is_full(&viewers, &name, &sessions).await;
                cluster.end_move(slot, 1);
                is_full(&viewers, &name, &sessions).await;
            }
            cluster.move_keys(leavers_slot, 0, 1);
            cluster.end_move(leavers_slot, 1);
        })
        .await;
    scene.all_is_well(None).await;
}

#[tokio::test]
async fn a_planned_failover_is_noticed_by_nobody() {
    let mut scene = Scene::start(RedisCluster::start).await;
    let (cluster, leaving) = (
        Arc::clone(&scene.cluster),
        std::mem::take(&mut scene.leaving),
    );
    scene
        .during(async move {
            drop(leaving);
            cluster.fail_over(0).await;
        })
        .await;
    scene.all_is_well(None).await;
}

#[tokio::test]
async fn a_master_is_killed_and_only_newcomers_of_its_shard_wait_for_its_replica() {
    let mut scene = Scene::start(RedisCluster::start_watchful).await;
    let viewers = Viewers::of(scene.viewers.gateway);
    let (cluster, leaving) = (
        Arc::clone(&scene.cluster),
        std::mem::take(&mut scene.leaving),
    );
    let mut names = scene.newcomers[0].names.split_off(COMING / 2);
    scene
        .during(async move {
            cluster.masters()[0].server.stop();
            let name = names.pop().unwrap();
            let refusal = viewers.refused(segment(&viewers, &name)).await;
            assert_eq!(refusal.reason(), "outage", "{refusal}");
            drop(leaving);
            eventually_within(SLOWLY, "the replica is promoted", async || {
                cluster.replicas()[0].is_master()
            })
            .await;
            for name in names.drain(..).take(20) {
                eventually_within(SLOWLY, "newcomers are let in again", async || {
                    let answer = viewers.ask(segment(&viewers, &name)).await;
                    matches!(answer, Answer::LetIn(_))
                })
                .await;
            }
        })
        .await;
    for refusal in &scene.newcomers[0].refused {
        assert_eq!(refusal.reason(), "outage", "{refusal}");
    }
    scene.all_is_well(Some(0)).await;
}
