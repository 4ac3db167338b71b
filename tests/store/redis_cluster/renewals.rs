//! Many renewals at once at one master.

use streamgate::session::{Renewal, Sighting};
use streamgate::store::Seen;
use testkit::streams::{LONG, sighting};

use super::moving::executed;
use super::*;

/// How many renewals there are: two calls.
const RENEWALS: usize = 64;

/// The stream of that user is seen running.
fn seen(name: &str) -> Seen {
    let sighting = Sighting {
        lease: LONG,
        ..sighting(&playback("film"))
    };
    let (user, limit) = (user(name), 3);
    Seen {
        user,
        sighting,
        limit,
    }
}

/// A cluster, a store on it, and users of its first shard, each of whom plays a stream.
async fn playing() -> (RedisCluster, RedisStore, Vec<String>) {
    let cluster = RedisCluster::start();
    let patient = cluster.settings().timeout;
    let store = cluster.connected_store(settings(&cluster, patient)).await;
    let [mut names, ..] = cluster.users_of_each(&store, RENEWALS);
    names.truncate(RENEWALS);
    for name in &names {
        begin(&store, name).await.unwrap();
        store.played(&user(name), &playback("film")).await.unwrap();
    }
    (cluster, store, names)
}

/// Renews all of them. Each is renewed in place.
async fn renew(store: &RedisStore, names: &[String]) {
    let all: Vec<_> = names.iter().map(|name| seen(name)).collect();
    for (name, renewal) in names.iter().zip(store.renew_all(&all).await) {
        assert!(
            matches!(renewal, Ok(Renewal::Renewed { .. })),
            "{name}: {renewal:?}"
        );
    }
}

#[tokio::test]
async fn a_master_renews_many_users_in_one_call_and_its_replica_has_all_of_it() {
    let (cluster, store, names) = playing().await;
    let calls = || -> usize {
        let masters = cluster.masters().iter();
        masters.map(|node| executed(&node.server)).sum()
    };
    let before = calls();
    renew(&store, &names).await;
    assert_eq!(calls() - before, 2);
    let listed = async || {
        let lists = names.iter().map(async |name| {
            let listing = store.list(&user(name)).await;
            listing.map(|listing| listing.sessions)
        });
        join_all(lists)
            .await
            .into_iter()
            .collect::<Result<Vec<_>, _>>()
    };
    let renewed = listed().await.unwrap();
    assert!(renewed.iter().all(|sessions| sessions.len() == 1));
    cluster.fail_over(0).await;
    eventually("the promoted replica has the same", async || {
        listed().await.as_ref() == Ok(&renewed)
    })
    .await;
}

#[tokio::test]
async fn many_renewals_at_once_follow_the_slots_that_move() {
    let (cluster, store, names) = playing().await;
    // The first leads to the master.
    let moving = [&names[0], &names[1], &names[40]].map(|name| cluster.slot(name));
    for slot in moving {
        cluster.begin_to_move(slot, 0, 1);
    }
    renew(&store, &names).await;
    for slot in moving {
        cluster.move_keys(slot, 0, 1);
    }
    renew(&store, &names).await;
    for slot in moving {
        cluster.end_move(slot, 1);
    }
    renew(&store, &names).await;
}
