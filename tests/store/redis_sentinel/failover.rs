//! The master dies, or is exchanged, in the midst of viewers: who is watching goes on, newcomers get what the rule has, and afterwards the limit holds
//! in the new master, which may have lacked the latest starts.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use streamgate::clock::Stopwatch;
use streamgate::config::OutageRule;
use streamgate::store::redis::RedisStore;
use tokio_util::sync::CancellationToken;

use testkit::api::Api;
use testkit::app::{TestApp, without_a_trace};
use testkit::gateway_client::{Answer, Check, Gateway};
use testkit::redis::{RedisServer, counted};
use testkit::sentinel::{Watched, is_replica};
use testkit::watch::{eventually, eventually_blocking, measured};

/// How long a call to the store may take: far more than is shipped, since many tests share the machine.
const TIMEOUT: Duration = Duration::from_millis(500);

/// How often a playback asks.
const INTERVAL: Duration = Duration::from_millis(100);

/// A streamgate that lets everybody watch two streams, and who asks it.
struct Gate {
    /// What decides while there is no master.
    rule: OutageRule,
    /// The streamgate.
    app: TestApp,
    /// Who asks it.
    gateway: Gateway,
}

/// What came of those who asked all the while.
#[derive(Debug, Default)]
struct Asked {
    /// What the playback was told when it was not let in.
    refused: Vec<Answer>,
    /// What newcomers were told when they were not.
    turned_away: Vec<Answer>,
    /// How long, in all, Redis decided about no start, from one start to the next.
    undecided: Duration,
}

// === impl Gate ===

impl Gate {
    /// A streamgate that the sentinels there tell where to count, once it counts there.
    async fn open(watched: &Watched, rule: OutageRule) -> Self {
        let plan = TestApp::plan().limit(2);
        let plan = plan.sentinels(&watched.urls(), TIMEOUT).outage(rule);
        // What is counted for nobody is to be seen on a slow machine too.
        let plan = plan.leases(Duration::from_secs(15), Duration::from_secs(90));
        let app = plan.start().await;
        let gateway = app.gateway().await;
        let gate = Self { rule, app, gateway };
        gate.counts_in(watched.first()).await;
        gate
    }

    /// What `/readyz` tells of the store.
    async fn store(&self) -> Value {
        let answer = self.app.get("/readyz").await;
        assert_eq!(answer.status(), 200);
        answer.json::<Value>().await.unwrap()["store"].take()
    }

    /// Waits until it counts there, and is told all that it holds.
    async fn counts_in(&self, server: &RedisServer) {
        let there = format!("127.0.0.1:{}", server.port());
        eventually("it counts there", async || {
            let store = self.store().await;
            store["up"] == true && store["server"] == *there
        })
        .await;
        eventually("it has told all it holds", async || {
            self.app.metric("streamgate_sessions_owed ").await == 0
        })
        .await;
    }

    /// The user who watches here; Redis is shared with the other rules.
    fn anna(&self) -> String {
        format!("anna-{:?}", self.rule).to_lowercase()
    }

    /// The user who listens over HTTP.
    fn bert(&self) -> String {
        format!("bert-{:?}", self.rule).to_lowercase()
    }

    /// Starts a session of bert's, which Redis counts.
    async fn heartbeat(&self, id: &str) {
        let told = Api::of(&self.app).put(&self.bert(), id, json!({})).await;
        assert_eq!(told.status, 201, "{told:?}");
    }

    /// Ends a session of bert's, which Redis is told.
    async fn end(&self, id: &str) {
        let path = format!("/v1/users/{}/sessions/{id}", self.bert());
        let told = Api::of(&self.app).delete(&path).await;
        assert_eq!(told.status, 204, "{told:?}");
    }

    /// Starts a playback of anna's, which Redis counts, and which plays.
    async fn start(&self, id: &str) {
        let (decided, answer) = self.is_decided(&self.anna(), id).await;
        assert!(decided);
        self.app.plays(&self.gateway, &answer).await;
    }

    /// Starts a playback; whether Redis has decided about it, and how.
    async fn is_decided(&self, name: &str, id: &str) -> (bool, Answer) {
        let before = self.app.checks("allow", "started").await;
        let answer = self.gateway.check(Check::of_playback(name, id)).await;
        (self.app.checks("allow", "started").await > before, answer)
    }

    /// Anna plays on, and others come, until that is over.
    async fn play(&self, over: &CancellationToken) -> Asked {
        let (mut asked, mut last, mut others) = (Asked::default(), Stopwatch::start(), 0..);
        while !over.is_cancelled() {
            let anna = Check::of_playback(&self.anna(), "film");
            let answer = self.gateway.check(anna).await;
            if !answer.is_allowed() {
                asked.refused.push(answer);
            }
            let other = format!("{}-{:?}", self.anna(), others.next());
            let (decided, answer) = self.is_decided(&other, "new").await;
            if !answer.is_allowed() {
                asked.turned_away.push(answer);
            }
            if !decided {
                asked.undecided += last.elapsed();
            }
            last = Stopwatch::start();
            tokio::time::sleep(INTERVAL).await;
        }
        asked
    }

    /// Nobody who watched was refused, and who came was told what the rule has.
    fn has_kept_its_rule(&self, what: &str, asked: &Asked) {
        assert!(asked.refused.is_empty(), "{:?}: {asked:?}", self.rule);
        let mut away = asked.turned_away.iter();
        match self.rule {
            OutageRule::Deny => assert!(away.all(|answer| answer.http == 503), "{asked:?}"),
            OutageRule::Allow | OutageRule::Local => assert!(away.next().is_none(), "{asked:?}"),
        }
        measured(
            &format!("{what}: {:?} decided about starts for", self.rule),
            asked.undecided,
        );
    }

    /// Anna, who watches two streams, gets no third; and Redis counts those two.
    async fn limit_holds(&self, server: &RedisServer) {
        let third = Check::of_playback(&self.anna(), "third");
        let answer = self.gateway.check(third).await;
        let told = (answer.http, answer.reason());
        assert_eq!(told, (429, "full"), "{:?}: {answer:?}", self.rule);
        let counted = counted(&server.store(), &self.anna()).await;
        assert_eq!(counted, ["film", "series"], "{:?}", self.rule);
    }

    /// What bert has ended goes on being counted where nobody has heard of it.
    async fn has_ended_for_nobody_but_the_old_master(&self, server: &RedisServer) {
        let counted = counted(&server.store(), &self.bert()).await;
        assert_eq!(counted, ["heard"], "{:?}", self.rule);
    }

    /// Ends it in good order.
    async fn close(self) {
        drop(self.gateway);
        self.app.stop().await;
    }
}

/// Does that beside everything that goes on here.
async fn beside<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(act).await.unwrap()
}

/// How a master can be gone.
#[derive(Debug, Clone, Copy)]
enum Gone {
    /// It is killed, and comes back empty.
    Dead,
    /// It stands still, and keeps its connections.
    Still,
}

impl Gone {
    /// It is gone.
    fn strike(self, server: &RedisServer) {
        match self {
            Self::Dead => server.stop(),
            Self::Still => server.pause(),
        }
    }

    /// It is back.
    fn mend(self, server: &RedisServer) {
        match self {
            Self::Dead => server.restart(),
            Self::Still => server.resume(),
        }
    }
}

/// The master is gone in the midst of viewers, by each rule.
async fn is_replaced(gone: Gone) {
    without_a_trace(Box::pin(async {
        let watched = Arc::new(beside(Watched::start).await);
        let opened = [OutageRule::Allow, OutageRule::Deny, OutageRule::Local];
        let gates = join_all(opened.map(|rule| Gate::open(&watched, rule))).await;
        for gate in &gates {
            gate.start("film").await;
            gate.heartbeat("heard").await;
        }
        cut_off(&watched, &gates).await;
        for gate in &gates {
            gate.start("series").await;
            gate.end("heard").await;
        }
        // The first whom streamgate asks is no help, and the others are enough to agree.
        watched.sentinels[0].pause();
        let over = CancellationToken::new();
        let replaced = async {
            other_is_used(gone, &watched, &gates).await;
            over.cancel();
        };
        let playing = join_all(gates.iter().map(|gate| gate.play(&over)));
        let (asked, ()) = Box::pin(async { tokio::join!(playing, replaced) }).await;
        for (gate, asked) in gates.iter().zip(&asked) {
            gate.has_kept_its_rule(&format!("the master is {gone:?}"), asked);
            gate.limit_holds(watched.second()).await;
            gate.has_ended_for_nobody_but_the_old_master(watched.second())
                .await;
        }
        is_not_used_when_it_is_back(gone, &watched, &gates).await;
        watched.sentinels[0].resume();
        for gate in gates {
            gate.close().await;
        }
    }))
    .await;
}

/// The master is gone, until all count in the other one.
async fn other_is_used(gone: Gone, watched: &Arc<Watched>, gates: &[Gate]) {
    let (waiting, asked) = (Stopwatch::start(), Arc::clone(watched));
    gone.strike(watched.first());
    watched.second().resume();
    is_behind(watched, gates).await;
    let named = beside(move || {
        eventually_blocking("another one is named", || asked.name(asked.second()));
        waiting.elapsed()
    });
    let there = gates.iter().map(|gate| gate.counts_in(watched.second()));
    let (named, _) = tokio::join!(named, join_all(there));
    measured(
        &format!("the master is {gone:?}: another is named after"),
        named,
    );
    let used = waiting.elapsed();
    measured(&format!("the master is {gone:?}: it is used after"), used);
}

/// Has the replica get nothing from its master any more, once it has what there is. What lies in its connection already would reach it all the same
/// when it goes on, and so the connection has to go too.
async fn cut_off(watched: &Arc<Watched>, gates: &[Gate]) {
    let replica = watched.second().store();
    eventually("the replica has what there is", async || {
        have_begun(&replica, gates).await
    })
    .await;
    watched.second().pause();
    let master = Arc::clone(watched);
    let killed = beside(move || {
        let kill = ["CLIENT", "KILL", "TYPE", "replica"];
        master.first().run::<u32>(&kill)
    });
    assert_eq!(killed.await, 1);
}

/// Whether of each gate's streams the first are there, and no others.
async fn have_begun(store: &RedisStore, gates: &[Gate]) -> bool {
    for gate in gates {
        let streams = [(gate.anna(), "film"), (gate.bert(), "heard")];
        for (name, stream) in streams {
            if counted(store, &name).await != [stream] {
                return false;
            }
        }
    }
    true
}

/// The replica has what was there when it was cut off, and nothing of what came later; it is a replica still.
async fn is_behind(watched: &Arc<Watched>, gates: &[Gate]) {
    assert!(have_begun(&watched.second().store(), gates).await);
    let looked_at = Arc::clone(watched);
    assert!(beside(move || is_replica(looked_at.second())).await);
}

#[tokio::test]
async fn a_master_that_dies_is_replaced_and_what_its_replica_lacked_is_put_back() {
    is_replaced(Gone::Dead).await;
}

#[tokio::test]
async fn a_master_that_stands_still_is_replaced_and_what_its_replica_lacked_is_put_back() {
    is_replaced(Gone::Still).await;
}

/// The old master comes back, as a master at first, and is made a replica; and nobody counts there all the while.
async fn is_not_used_when_it_is_back(gone: Gone, watched: &Arc<Watched>, gates: &[Gate]) {
    let back = Arc::clone(watched);
    beside(move || {
        gone.mend(back.first());
        eventually_blocking("it is a replica", || is_replica(back.first()));
    })
    .await;
    for gate in gates {
        let store = gate.store().await;
        let there = format!("127.0.0.1:{}", watched.second().port());
        assert_eq!(
            (&store["up"], &store["server"]),
            (&true.into(), &there.into())
        );
        gate.limit_holds(watched.second()).await;
    }
}

#[tokio::test]
async fn a_planned_failover_reaches_the_new_master_unnoticed_by_viewers() {
    without_a_trace(Box::pin(async {
        let watched = Arc::new(beside(Watched::start).await);
        let gate = Gate::open(&watched, OutageRule::Deny).await;
        gate.start("film").await;
        gate.start("series").await;
        let (over, failing) = (CancellationToken::new(), Arc::clone(&watched));
        let moved = async {
            beside(move || failing.fail_over()).await;
            gate.counts_in(watched.second()).await;
            over.cancel();
        };
        let (asked, ()) = Box::pin(async { tokio::join!(gate.play(&over), moved) }).await;
        gate.has_kept_its_rule("a planned failover", &asked);
        gate.limit_holds(watched.second()).await;
        let exchanged = Arc::clone(&watched);
        beside(move || {
            eventually_blocking("the old master is a replica", || {
                is_replica(exchanged.first())
            });
        })
        .await;
        gate.close().await;
    }))
    .await;
}
