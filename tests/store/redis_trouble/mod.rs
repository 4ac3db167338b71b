//! The service on a real Redis in trouble: what viewers, gateways and operators get meanwhile, by each outage rule, and that all is as before
//! once the trouble is over, without a restart.
//!
//! Each scene has a Redis, a wire to it and an app of its own. Times are printed; what is demanded of them leaves room for a busy machine.

// An end that comes from elsewhere: a kill through another instance, a displacement.
mod elsewhere;
// The end of a connection: closed, cut, silent, or gone with Redis itself.
mod ends;
// An outage in the midst of viewers, and what becomes of them after it.
mod outage;
// One of three shards in trouble: whom the rule decides about.
mod shard;
// A request of each kind under each fault.
mod table;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;
use streamgate::clock::Stopwatch;
use streamgate::config::{OutageRule, Topology};

use testkit::app::{Plan, TestApp, without_a_trace};
use testkit::cluster::{ClusterNode, MASTERS, RedisCluster};
use testkit::gateway_client::{Answer, Check, Gateway};
use testkit::port::ReservedPort;
use testkit::proxy::Proxy;
use testkit::redis::{RedisServer, counted, lasting_store, run_as};
use testkit::watch::eventually;

/// How long a call to the store may take: far more than is shipped, since many tests share the machine, and a sound Redis is to answer in time.
const TIMEOUT: Duration = Duration::from_millis(500);

/// How long a scene without limits of its own has sessions count: longer than it lasts.
const LONG: Duration = Duration::from_secs(60);

/// All outage rules.
const RULES: [OutageRule; 3] = [OutageRule::Allow, OutageRule::Deny, OutageRule::Local];

/// What can be wrong with a Redis, or with the way to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The wire lets no byte pass.
    Stall,
    /// The wire is cut, and so is each new one.
    Cut,
    /// Every answer is later than anybody waits for. What is asked is done.
    Slow,
    /// It is killed, and comes back empty.
    Killed,
    /// It stands still.
    Paused,
    /// It has reached its `maxmemory`.
    Full,
    /// It is a replica, and takes no writes.
    Replica,
    /// It is restarted, and loads what it has saved.
    Loading,
    /// It wants a password that we don't have.
    Password,
}

/// An app on a Redis that can be in trouble.
struct Scene {
    /// What the trouble is.
    fault: Fault,
    /// How that Redis is arranged.
    topology: Topology,
    /// What decides meanwhile.
    rule: OutageRule,
    /// The Redis.
    server: Arc<RedisServer>,
    /// The other nodes of its cluster, and the port on which it talks to them.
    _others: Option<(RedisCluster, ReservedPort)>,
    /// The way to it.
    proxy: Proxy,
    /// The app.
    app: TestApp,
    /// Who asks it.
    gateway: Gateway,
}

// === impl Fault ===

impl Fault {
    /// Prepares a Redis to get into that.
    fn prepare(self, server: &RedisServer) {
        if self == Self::Loading {
            // While it loads, it looks after others once in two megabytes.
            for key in 0..100 {
                server.run::<()>(&["SETRANGE", &format!("big {key}"), "2100000", "x"]);
            }
        }
    }

    /// Does to the Redis itself what is to be done.
    fn strike(self, server: &RedisServer) {
        match self {
            Self::Stall | Self::Cut | Self::Slow => {}
            Self::Killed => server.stop(),
            Self::Paused => server.pause(),
            Self::Full => server.run::<()>(&["CONFIG", "SET", "maxmemory", "1"]),
            Self::Replica => server.run::<()>(&["REPLICAOF", "127.0.0.1", "1"]),
            Self::Loading => {
                server.run::<()>(&["SAVE"]);
                server.stop();
                // Loading takes 15 s, far longer than the questions. Redis answers 0.15 s later.
                server.restart_with(&["--key-load-delay", "150000"]);
            }
            Self::Password => {
                server.run::<()>(&["CONFIG", "SET", "requirepass", "secret"]);
                run_as(
                    &server.url_as("", "secret"),
                    &["CLIENT", "KILL", "TYPE", "normal"],
                );
            }
        }
    }

    /// Undoes that.
    fn mend(self, server: &RedisServer) {
        match self {
            Self::Stall | Self::Cut | Self::Slow => {}
            Self::Killed => server.restart(),
            Self::Paused => server.resume(),
            Self::Full => server.run::<()>(&["CONFIG", "SET", "maxmemory", "0"]),
            Self::Replica => server.run::<()>(&["REPLICAOF", "NO", "ONE"]),
            // While it loads, Redis 6.2 refuses to change its settings.
            Self::Loading => {
                server.stop();
                server.restart();
            }
            Self::Password => {
                let set = ["CONFIG", "SET", "requirepass", ""];
                run_as(&server.url_as("", "secret"), &set);
            }
        }
    }
}

// === impl Scene ===

impl Scene {
    /// Two streams for everybody, such leases, and that Redis: alone, or one of the three masters of
    /// a cluster, to whom all users belong.
    async fn open(
        topology: Topology,
        fault: Fault,
        rule: OutageRule,
        leases: (Duration, Duration),
    ) -> Self {
        let options = ["--rdbcompression", "no"];
        let (server, proxy, others) = match topology {
            Topology::Cluster => {
                let mut cluster =
                    blocking(move || RedisCluster::start_around_the_first(&options)).await;
                let proxy = Proxy::before(cluster.nodes[0].server.port()).await;
                cluster.announce(proxy.port()).await;
                let ClusterNode { server, bus } = cluster.nodes.remove(0);
                (server, proxy, Some((cluster, bus)))
            }
            Topology::Standalone | Topology::Sentinel => {
                let server = blocking(move || RedisServer::start_with(&options)).await;
                let proxy = Proxy::before(server.port()).await;
                (server, proxy, None)
            }
        };
        let server = Arc::new(server);
        let plan = plan(topology, &proxy.url(), TIMEOUT);
        let app = plan.leases(leases.0, leases.1).outage(rule).start().await;
        let gateway = app.gateway().await;
        let scene = Self {
            fault,
            topology,
            rule,
            server,
            _others: others,
            proxy,
            app,
            gateway,
        };
        scene.beside(Fault::prepare).await;
        scene.is_up().await;
        scene
    }

    /// The trouble begins.
    async fn strike(&self) {
        match self.fault {
            Fault::Stall => self.proxy.stall(),
            Fault::Cut => self.proxy.cut(),
            Fault::Slow => self.proxy.slow(TIMEOUT * 3),
            _ => {}
        }
        self.beside(Fault::strike).await;
    }

    /// The trouble is over.
    async fn mend(&self) {
        self.proxy.restore();
        self.beside(Fault::mend).await;
    }

    /// Does that while everything else goes on.
    async fn beside(&self, act: fn(Fault, &RedisServer)) {
        let (fault, server) = (self.fault, Arc::clone(&self.server));
        blocking(move || act(fault, &server)).await;
    }

    /// Waits until the store is known to answer, with all its shards.
    async fn is_up(&self) {
        let answers = async || self.says_up(&self.readiness().await);
        eventually("the store answers", answers).await;
    }

    /// Whether that readiness says that the store answers, with all its shards.
    fn says_up(&self, told: &Value) -> bool {
        match self.topology {
            Topology::Cluster => told["store"]["shards"]["up"] == MASTERS,
            Topology::Standalone | Topology::Sentinel => told["store"]["up"] == true,
        }
    }

    /// Whether the metrics say so.
    async fn shows_up(&self) -> bool {
        match self.topology {
            Topology::Cluster => self.app.metric("streamgate_store_shards_out ").await == 0,
            Topology::Standalone | Topology::Sentinel => {
                self.app.metric("streamgate_store_up ").await == 1
            }
        }
    }

    /// Asks until Redis counts that session, which a busy machine may not do in time at first; the
    /// answer.
    async fn counts(&self, name: &str, check: Check, id: &str) -> Answer {
        let store = lasting_store(&self.server);
        let asking = async || {
            let answer = self.gateway.check(check.clone()).await;
            let counted = counted(&store, name).await;
            (answer.is_allowed() && counted.iter().any(|counted| counted == id)).then_some(answer)
        };
        Box::pin(eventually("it is counted", asking)).await
    }

    /// Waits until Redis decides about starts again; how long that took.
    async fn is_normal(&self) -> Duration {
        let (waiting, before) = (
            Stopwatch::start(),
            self.app.checks("allow", "started").await,
        );
        let mut streams = 0..;
        let decided = async || {
            // To look costs something too, and the machine is busy enough.
            tokio::time::sleep(TIMEOUT / 20).await;
            let id = format!("back-{}", streams.next()?);
            self.gateway.check(Check::of_playback(&id, &id)).await;
            let started = self.app.checks("allow", "started").await;
            (started > before).then_some(())
        };
        Box::pin(eventually("Redis decides about a start", decided)).await;
        waiting.elapsed()
    }

    /// Waits until Redis has been told everything.
    async fn owes_nothing(&self) {
        for series in ["streamgate_sessions_owed", "streamgate_releaser_pending"] {
            eventually(series, async || {
                self.app.metric(&format!("{series} ")).await == 0
            })
            .await;
        }
    }

    /// Waits until it is known that the rule decides.
    async fn rule_is_in_force(&self) {
        let rule = format!("{:?}", self.rule).to_lowercase();
        eventually("the rule is in force", async || {
            self.readiness().await["store"]["outage_rule"] == *rule
        })
        .await;
    }

    /// What `/readyz` tells; it is ready, come what may.
    async fn readiness(&self) -> Value {
        let answer = self.app.get("/readyz").await;
        assert_eq!(answer.status(), 200);
        answer.json().await.unwrap()
    }

    /// Ends it in good order.
    async fn close(self) {
        drop(self.gateway);
        self.app.stop().await;
    }
}

/// Does that while everything else goes on.
async fn blocking<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(act).await.unwrap()
}

/// An app with two streams for everybody, on a Redis that is arranged so.
fn plan(topology: Topology, url: &str, timeout: Duration) -> Plan {
    let plan = TestApp::plan().limit(2);
    match topology {
        Topology::Cluster => plan.cluster(&[url.to_owned()], timeout),
        Topology::Standalone | Topology::Sentinel => plan.redis(url, timeout),
    }
}

/// Plays that by each rule at once.
async fn by_each_rule(play: impl AsyncFn(OutageRule)) {
    without_a_trace(async { drop(join_all(RULES.map(|rule| play(rule))).await) }).await;
}

/// It is an outage, told so that Envoy makes a 503 of it.
fn is_unavailable(answer: &Answer) -> bool {
    (answer.kind, answer.http, answer.code) == ("error", 503, 14)
        && answer.header("retry-after") == Some("1")
        && answer.body["reason"] == "outage"
}

/// All slots are taken, by those.
fn is_full(answer: &Answer, holders: &[&str]) -> bool {
    let sessions = answer.body["sessions"].as_array();
    let ids = sessions.into_iter().flatten();
    let ids: Vec<_> = ids
        .filter_map(|holder| holder["session"].as_str())
        .collect();
    (answer.kind, answer.http, answer.reason()) == ("denied", 429, "full")
        && answer.header("retry-after").is_some()
        && ids == holders
}
