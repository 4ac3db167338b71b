//! One shard dies, hangs, vanishes, is cut off, is exchanged, or comes back with less than it had.

use std::sync::Arc;

use streamgate::session::Renewal;
use testkit::streams::sighting;

use super::*;

/// A cluster under load. Faults strike its first shard.
struct Scene {
    /// A store on it.
    store: RedisStore,
    /// Users of all shards.
    load: Load,
    /// Users of the first shard, for what is done apart from the load.
    apart: Vec<String>,
}

// === impl Scene ===

impl Scene {
    /// The users of that cluster, and a store on it that gives up after that time.
    async fn of(cluster: &RedisCluster, timeout: Duration) -> Self {
        let store = cluster.connected_store(settings(cluster, timeout)).await;
        let mut load = Load::new(cluster, &store);
        let users = &mut load.users[0];
        let apart = users.split_off(users.len() / 2);
        Self { store, load, apart }
    }

    /// Users start everywhere while that is done. The first shard serves at first.
    async fn during<T>(
        &mut self,
        fault: impl AsyncFnOnce(&RedisStore, &mut Vec<String>) -> T,
    ) -> T {
        let Self { store, load, apart } = self;
        load.during(store, async {
            serves_again(store, apart).await;
            fault(store, apart).await
        })
        .await
    }

    /// Only the first shard had failures, and nothing was done of what was said not to be.
    async fn spares_the_others(&self) {
        self.load.spares_the_others(0);
        self.load.outcomes[0].are_true(&self.store).await;
    }
}

/// Strikes the first master, whose replica then takes over, so that its users can start again. What
/// the strike has left behind.
async fn is_replaced_after<T>(strike: impl AsyncFnOnce(&Arc<RedisCluster>) -> T) -> T {
    let cluster = Arc::new(RedisCluster::start_watchful());
    let mut scene = Scene::of(&cluster, DEADLINE).await;
    let replaced = async |store: &RedisStore, apart: &mut Vec<String>| {
        let left = strike(&cluster).await;
        eventually("the replica is promoted", async || {
            cluster.replicas()[0].is_master()
        })
        .await;
        serves_again(store, apart).await;
        left
    };
    let left = scene.during(replaced).await;
    scene.spares_the_others().await;
    assert!(scene.load.outcomes[0].failed() > 0, "{:?}", scene.load);
    left
}

#[tokio::test]
async fn a_master_that_dies_fails_no_call_of_another_shard() {
    is_replaced_after(async |cluster| cluster.masters()[0].server.stop()).await;
}

#[tokio::test]
async fn a_host_that_vanishes_fails_no_call_of_another_shard() {
    let swallowing = is_replaced_after(async |cluster| {
        cluster.masters()[0].server.stop();
        let its = Arc::clone(cluster);
        let swallow = move || its.masters()[0].server.swallow();
        tokio::task::spawn_blocking(swallow).await.unwrap()
    });
    drop(swallowing.await);
}

#[tokio::test]
async fn a_master_that_hangs_is_left_for_its_replica() {
    is_replaced_after(async |cluster| cluster.masters()[0].server.pause()).await;
}

/// What was given up during a hang is done when it ends, so it is rightly called unknown.
#[tokio::test]
async fn what_a_short_hang_leaves_unknown_is_done_and_the_rest_is_not() {
    let cluster = RedisCluster::start();
    let mut scene = Scene::of(&cluster, DEADLINE).await;
    let hang = async |store: &RedisStore, apart: &mut Vec<String>| {
        cluster.masters()[0].server.pause();
        let refused = eventually("the store stops asking", async || {
            let name = apart.pop().unwrap();
            let failure = begin(store, &name).await.err()?;
            matches!(failure, StoreError::NotAsked(_)).then_some(name)
        })
        .await;
        cluster.masters()[0].server.resume();
        serves_again(store, apart).await;
        refused
    };
    let refused = scene.during(hang).await;
    scene.spares_the_others().await;
    let hit = &scene.load.outcomes[0];
    assert!(!hit.unknown.is_empty(), "{:?}", scene.load);
    assert!(!is_counted(&scene.store, &refused).await);
    let all = hit.unknown.iter().chain(&hit.done);
    let counted = Outcomes::counted(&scene.store, all).await;
    assert_eq!(counted, hit.unknown.len() + hit.done.len());
}

#[tokio::test]
async fn a_master_that_only_we_cannot_reach_fails_its_own_calls_alone() {
    let cluster = RedisCluster::start();
    let proxy = Proxy::before(cluster.masters()[0].server.port()).await;
    cluster.announce(proxy.port()).await;
    let mut scene = Scene::of(&cluster, DEADLINE).await;
    let cut_off = async |store: &RedisStore, apart: &mut Vec<String>| {
        proxy.cut();
        eventually("it is cut off", async || {
            begin(store, &apart.pop().unwrap()).await.is_err()
        })
        .await;
        for _ in 0..20 {
            let failure = begin(store, &apart.pop().unwrap()).await;
            assert!(failure.is_err());
        }
        proxy.restore();
        serves_again(store, apart).await;
    };
    scene.during(cut_off).await;
    scene.spares_the_others().await;
    let done = &scene.load.outcomes[0].done;
    assert_eq!(Outcomes::counted(&scene.store, done).await, done.len());
}

#[tokio::test]
async fn a_planned_failover_fails_no_call_at_all() {
    let cluster = RedisCluster::start();
    let mut scene = Scene::of(&cluster, cluster.settings().timeout).await;
    let promoted = cluster.replicas()[0].place();
    let fail_over = async |store: &RedisStore, apart: &mut Vec<String>| {
        cluster.fail_over(0).await;
        serves_again(store, apart).await;
        eventually("the shard has another master", async || {
            let shard = store.shard_of(&user(apart.last().unwrap()));
            shard.address() == Some(&promoted)
        })
        .await;
    };
    scene.during(fail_over).await;
    scene.load.spares_the_others(MASTERS);
    for outcomes in &scene.load.outcomes {
        let counted = Outcomes::counted(&scene.store, &outcomes.done).await;
        assert_eq!(counted, outcomes.done.len());
    }
}

/// No replica takes over, since the master is back within the node timeout, and what it had is gone.
#[tokio::test]
async fn a_master_that_is_soon_back_empty_stays_the_master_and_forgets() {
    let cluster = RedisCluster::start();
    let mut scene = Scene::of(&cluster, DEADLINE).await;
    let known = scene.apart.pop().unwrap();
    let restart = async |store: &RedisStore, apart: &mut Vec<String>| {
        begin(store, &known).await.unwrap();
        let first = &cluster.masters()[0];
        first.server.stop();
        first.server.restart();
        serves_again(store, apart).await;
        assert!(first.is_master());
    };
    scene.during(restart).await;
    scene.load.spares_the_others(0);
    is_lost_and_put_back(&scene.store, &known).await;
}

/// The others know the address as a stranger's from then on. The replica follows the address: it
/// becomes a copy of the stranger, who has nothing, and never takes over by itself. Valkey's replica
/// often takes over before it has become a copy, and then keeps what it has.
#[tokio::test]
async fn a_node_that_has_lost_its_nodes_conf_is_healed_by_a_forced_failover() {
    let cluster = RedisCluster::start();
    let mut scene = Scene::of(&cluster, DEADLINE).await;
    let known = scene.apart.pop().unwrap();
    let lost = async |store: &RedisStore, apart: &mut Vec<String>| {
        begin(store, &known).await.unwrap();
        let (first, replica) = (&cluster.masters()[0].server, &cluster.replicas()[0]);
        first.stop();
        first.forget_its_cluster();
        first.restart();
        let unowned = eventually("nobody owns the slots of this shard", async || {
            begin(store, &apart.pop().unwrap())
                .await
                .err()
                .map(|failure| failure.to_string())
                .filter(|text| text.contains("no master of the cluster owns slot"))
        });
        println!("{}", unowned.await);
        eventually("the replica is empty or has taken over", async || {
            replica.is_master() || replica.server.run::<u64>(&["DBSIZE"]) == 0
        })
        .await;
        // A replica that has taken over by now refuses this.
        let _ = replica
            .server
            .try_run::<()>(&["CLUSTER", "FAILOVER", "FORCE"]);
        eventually("the replica is promoted", async || replica.is_master()).await;
        serves_again(store, apart).await;
    };
    scene.during(lost).await;
    scene.load.spares_the_others(0);
    let about: String = cluster.replicas()[0].server.run(&["INFO", "server"]);
    let is_valkey = about.contains("valkey_version:");
    if !(is_valkey && is_counted(&scene.store, &known).await) {
        is_lost_and_put_back(&scene.store, &known).await;
    }
}

/// What the shard held is gone, and a sign of life puts a session back.
async fn is_lost_and_put_back(store: &RedisStore, known: &str) {
    assert!(!is_counted(store, known).await);
    let (known, sighting) = (user(known), sighting(&playback("film")));
    let renewal = store.renew(&known, &sighting, 3).await;
    assert!(
        matches!(renewal, Ok(Renewal::PutBack { .. })),
        "{renewal:?}"
    );
}
