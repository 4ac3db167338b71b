//! Slots that move, and answers that are lost.

use std::collections::BTreeSet;

use testkit::redis::RedisServer;

use super::*;

/// How often an answer is lost.
const LOSSES: usize = 20;

/// How often scripts were executed by that server: calls that it refused or redirected don't count.
pub(super) fn executed(server: &RedisServer) -> usize {
    let stats: String = server.run(&["INFO", "commandstats"]);
    let of = |line: &str, name: &str| -> usize {
        let value = line
            .split([':', ','])
            .find_map(|part| part.strip_prefix(name));
        value.map_or(0, |value| value.parse().unwrap())
    };
    let lines = stats
        .lines()
        .filter(|line| line.starts_with("cmdstat_eval"));
    lines
        .map(|line| of(line, "calls=") - of(line, "failed_calls="))
        .sum()
}

/// How often a server was told that a redirect leads to it.
fn asked(server: &RedisServer) -> bool {
    let stats: String = server.run(&["INFO", "commandstats"]);
    stats.contains("cmdstat_asking:")
}

#[tokio::test]
async fn a_call_whose_answer_was_lost_is_never_repeated() {
    let cluster = RedisCluster::start();
    let first = &cluster.masters()[0].server;
    let proxy = Proxy::before(first.port()).await;
    cluster.announce(proxy.port()).await;
    let store = cluster.connected_store(settings(&cluster, DEADLINE)).await;
    let mut load = Load::new(&cluster, &store);
    let shard = store.shard_of(&user(&load.users[0][0]));
    let before = executed(first);
    load.during(&store, async {
        for _ in 0..LOSSES {
            proxy.lose_an_answer();
            proxy.has_lost_it().await;
            eventually("it is connected again", async || {
                store.server(&shard).is_some()
            })
            .await;
        }
    })
    .await;
    load.spares_the_others(0);
    let hit = &load.outcomes[0];
    let done = executed(first) - before;
    assert!(!hit.unknown.is_empty(), "{load:?}");
    hit.are_true(&store).await;
    let unknown = Outcomes::counted(&store, &hit.unknown).await;
    assert_eq!(done, hit.done.len() + unknown, "{load:?}");
    assert_eq!(Outcomes::counted(&store, &hit.done).await, hit.done.len());
}

#[tokio::test]
async fn a_slot_that_moves_slowly_or_quickly_fails_no_call() {
    let cluster = RedisCluster::start();
    let patient = cluster.settings().timeout;
    let store = cluster.connected_store(settings(&cluster, patient)).await;
    let [mut names, ..] = cluster.users_of_each(&store, 40);
    let (film, series) = (playback("film"), playback("series"));
    let start = async |name: &str, key| {
        let rules = refusing(3);
        store
            .admit(&user(name), &lasting(key), &rules)
            .await
            .unwrap();
    };
    let later = names.split_off(20);
    for name in &names {
        start(name, &film).await;
    }
    let slots: Vec<_> = names
        .iter()
        .chain(&later)
        .map(|name| cluster.slot(name))
        .collect();
    for slot in &slots {
        cluster.begin_to_move(*slot, 0, 1);
    }
    // Who was there is still at the old master; who comes is already at the new one.
    for name in names.iter().chain(&later) {
        start(name, &series).await;
    }
    assert!(asked(&cluster.masters()[1].server));
    assert_eq!(executed(&cluster.masters()[1].server), later.len());
    // Now everybody is at the new one, but the old one still owns the slot.
    for slot in &slots {
        cluster.move_keys(*slot, 0, 1);
    }
    for name in &names {
        start(name, &series).await;
        let listing = store.list(&user(name)).await.unwrap();
        assert_eq!(listing.sessions.len(), 2, "{name}");
    }
    for slot in &slots {
        cluster.end_move(*slot, 1);
    }
    for (name, sessions) in names
        .iter()
        .map(|name| (name, 2))
        .chain(later.iter().map(|name| (name, 1)))
    {
        start(name, &series).await;
        let listing = store.list(&user(name)).await.unwrap();
        assert_eq!(listing.sessions.len(), sessions, "{name}");
    }
    let new = cluster.masters()[1].place();
    eventually("the store knows who owns the slots now", async || {
        let shard = store.shard_of(&user(&names[0]));
        shard.address() == Some(&new)
    })
    .await;
}

#[tokio::test]
async fn slots_that_move_under_load_fail_no_call() {
    let cluster = RedisCluster::start();
    let patient = cluster.settings().timeout;
    let store = cluster.connected_store(settings(&cluster, patient)).await;
    let mut load = Load::new(&cluster, &store);
    let soon = load.users[0].iter().rev().take(60);
    let slots: BTreeSet<_> = soon.map(|name| cluster.slot(name)).collect();
    load.during(&store, async {
        for slot in slots {
            cluster.begin_to_move(slot, 0, 1);
            tokio::time::sleep(REST).await;
            cluster.move_keys(slot, 0, 1);
            tokio::time::sleep(REST).await;
            cluster.end_move(slot, 1);
            tokio::time::sleep(REST).await;
        }
    })
    .await;
    load.spares_the_others(MASTERS);
    for outcomes in &load.outcomes {
        let counted = Outcomes::counted(&store, &outcomes.done).await;
        assert_eq!(counted, outcomes.done.len());
    }
}
