//! One shard dies, hangs, vanishes, is cut off, or is exchanged.

use std::sync::Arc;

use testkit::watch::eventually;

use super::*;

/// The first master's replica takes over, and that shard's users can start again.
async fn is_replaced(cluster: &RedisCluster, store: &RedisStore, names: &mut Vec<String>) {
    eventually("the replica is promoted", async || {
        cluster.replicas()[0].is_master()
    })
    .await;
    serves_again(store, names).await;
}

/// Users for what is done apart from the load: those of the first shard.
fn apart(load: &mut Load) -> Vec<String> {
    let users = &mut load.users[0];
    users.split_off(users.len() / 2)
}

#[tokio::test]
async fn a_master_that_dies_fails_no_call_of_another_shard() {
    let cluster = RedisCluster::start_watchful();
    let store = cluster.connected_store(settings(&cluster, DEADLINE)).await;
    let mut load = Load::new(&cluster, &store);
    let mut names = apart(&mut load);
    load.during(&store, async {
        serves_again(&store, &mut names).await;
        cluster.masters()[0].server.stop();
        is_replaced(&cluster, &store, &mut names).await;
    })
    .await;
    load.spares_the_others(0);
    assert!(load.outcomes[0].failed() > 0, "{load:?}");
    load.outcomes[0].are_true(&store).await;
}

#[tokio::test]
async fn a_host_that_vanishes_fails_no_call_of_another_shard() {
    let cluster = Arc::new(RedisCluster::start_watchful());
    let store = cluster.connected_store(settings(&cluster, DEADLINE)).await;
    let mut load = Load::new(&cluster, &store);
    let mut names = apart(&mut load);
    let _gone = load
        .during(&store, async {
            serves_again(&store, &mut names).await;
            cluster.masters()[0].server.stop();
            let its = Arc::clone(&cluster);
            let swallow = move || its.masters()[0].server.swallow();
            let gone = tokio::task::spawn_blocking(swallow).await.unwrap();
            is_replaced(&cluster, &store, &mut names).await;
            gone
        })
        .await;
    load.spares_the_others(0);
    assert!(load.outcomes[0].failed() > 0, "{load:?}");
    load.outcomes[0].are_true(&store).await;
}

#[tokio::test]
async fn a_master_that_hangs_is_left_for_its_replica() {
    let cluster = RedisCluster::start_watchful();
    let store = cluster.connected_store(settings(&cluster, DEADLINE)).await;
    let mut load = Load::new(&cluster, &store);
    let mut names = apart(&mut load);
    load.during(&store, async {
        serves_again(&store, &mut names).await;
        cluster.masters()[0].server.pause();
        is_replaced(&cluster, &store, &mut names).await;
    })
    .await;
    cluster.masters()[0].server.resume();
    load.spares_the_others(0);
    assert!(load.outcomes[0].failed() > 0, "{load:?}");
    load.outcomes[0].are_true(&store).await;
}

/// What was given up during a hang is done when it ends, so it is rightly called unknown.
#[tokio::test]
async fn what_a_short_hang_leaves_unknown_is_done_and_the_rest_is_not() {
    let cluster = RedisCluster::start();
    let store = cluster.connected_store(settings(&cluster, DEADLINE)).await;
    let mut load = Load::new(&cluster, &store);
    let mut names = apart(&mut load);
    let refused = load
        .during(&store, async {
            serves_again(&store, &mut names).await;
            cluster.masters()[0].server.pause();
            let refused = eventually("the store stops asking", async || {
                let name = names.pop().unwrap();
                let failure = begin(&store, &name).await.err()?;
                matches!(failure, StoreError::NotAsked(_)).then_some(name)
            })
            .await;
            cluster.masters()[0].server.resume();
            serves_again(&store, &mut names).await;
            refused
        })
        .await;
    load.spares_the_others(0);
    let hit = &load.outcomes[0];
    assert!(!hit.unknown.is_empty(), "{load:?}");
    assert!(!is_counted(&store, &refused).await);
    hit.are_true(&store).await;
    let all = hit.unknown.iter().chain(&hit.done);
    let counted = Outcomes::counted(&store, all).await;
    assert_eq!(counted, hit.unknown.len() + hit.done.len());
}

#[tokio::test]
async fn a_master_that_only_we_cannot_reach_fails_its_own_calls_alone() {
    let cluster = RedisCluster::start();
    let first = &cluster.masters()[0].server;
    let proxy = Proxy::before(first.port()).await;
    announce(&cluster, &proxy).await;
    let store = cluster.connected_store(settings(&cluster, DEADLINE)).await;
    let mut load = Load::new(&cluster, &store);
    let mut names = apart(&mut load);
    load.during(&store, async {
        serves_again(&store, &mut names).await;
        proxy.cut();
        eventually("it is cut off", async || {
            begin(&store, &names.pop().unwrap()).await.is_err()
        })
        .await;
        for _ in 0..20 {
            let failure = begin(&store, &names.pop().unwrap()).await;
            assert!(failure.is_err());
        }
        proxy.restore();
        serves_again(&store, &mut names).await;
    })
    .await;
    load.spares_the_others(0);
    let hit = &load.outcomes[0];
    hit.are_true(&store).await;
    assert_eq!(Outcomes::counted(&store, &hit.done).await, hit.done.len());
}

#[tokio::test]
async fn a_planned_failover_fails_no_call_at_all() {
    let cluster = RedisCluster::start();
    let patient = cluster.settings().timeout;
    let store = cluster.connected_store(settings(&cluster, patient)).await;
    let mut load = Load::new(&cluster, &store);
    let mut names = apart(&mut load);
    let promoted = cluster.replicas()[0].place();
    load.during(&store, async {
        serves_again(&store, &mut names).await;
        cluster.fail_over(0).await;
        serves_again(&store, &mut names).await;
        eventually("the shard has another master", async || {
            let shard = store.shard_of(&user(names.last().unwrap()));
            shard.address() == Some(&promoted)
        })
        .await;
    })
    .await;
    load.spares_the_others(MASTERS);
    for outcomes in &load.outcomes {
        let counted = Outcomes::counted(&store, &outcomes.done).await;
        assert_eq!(counted, outcomes.done.len());
    }
}
