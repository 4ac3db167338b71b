//! What is no cluster, or none that we can use: each is said, with what to do about it.

use testkit::cluster::{ClusterNode, cluster_settings};
use testkit::redis::RedisServer;

use super::*;

/// A start is refused, and the text holds all those words.
async fn is_told(store: &RedisStore, name: &str, words: &[&str]) {
    let said = eventually("the start is refused for that reason", async || {
        let failure = begin(store, name).await.err()?;
        assert!(!failure.outcome_is_unknown(), "{failure}");
        let text = failure.to_string();
        words.iter().all(|word| text.contains(word)).then_some(text)
    });
    eprintln!("{}", said.await);
}

#[tokio::test]
async fn a_single_server_is_no_cluster() {
    let server = RedisServer::start();
    let store = RedisStore::open(cluster_settings(&[server.url()])).unwrap();
    let words = [
        "cluster support disabled",
        "this is a single server",
        "store.redis.topology",
    ];
    is_told(&store, "alice", &words).await;
}

#[tokio::test]
async fn a_node_that_has_met_nobody_has_no_slots() {
    let node = ClusterNode::start(&[]);
    let server = &node.server;
    let store = RedisStore::open(cluster_settings(&[server.url()])).unwrap();
    is_told(
        &store,
        "alice",
        &["belongs to no cluster yet", "CLUSTER NODES"],
    )
    .await;
}

#[tokio::test]
async fn slots_without_a_master_are_named_and_others_are_served() {
    let node = ClusterNode::start(&[]);
    let server = &node.server;
    server.run::<()>(&["CLUSTER", "ADDSLOTSRANGE", "0", "8191"]);
    let store = RedisStore::open(cluster_settings(&[server.url()])).unwrap();
    // By the server's own count, these two users' slots are below and above that.
    let slot = |name: &str| -> u16 {
        let key = format!("streamgate:{{{name}}}");
        server.run(&["CLUSTER", "KEYSLOT", &key])
    };
    let mut names = (0..).map(|number| format!("user {number}"));
    let covered = names.by_ref().find(|name| slot(name) < 8192).unwrap();
    let uncovered = names.find(|name| slot(name) >= 8192).unwrap();
    eventually("the covered half is served", async || {
        begin(&store, &covered).await.is_ok()
    })
    .await;
    let number = slot(&uncovered).to_string();
    is_told(&store, &uncovered, &["no master", &number, "CLUSTER INFO"]).await;
    assert_eq!(store.shards().len(), 2);
    server.run::<()>(&["CLUSTER", "ADDSLOTSRANGE", "8192", "16383"]);
    eventually("the other half is served too", async || {
        begin(&store, &uncovered).await.is_ok()
    })
    .await;
    assert_eq!(store.shards().len(), 1);
}

#[tokio::test]
async fn a_node_with_another_password_is_named_and_the_others_serve() {
    let cluster = RedisCluster::start();
    let odd = &cluster.masters()[1];
    let names = {
        let store = cluster.connected_store(cluster.settings()).await;
        cluster.users_of_each(&store, 1)
    };
    let place = odd.place();
    odd.server
        .run::<()>(&["CONFIG", "SET", "requirepass", "open sesame"]);
    let store = RedisStore::open(cluster.settings()).unwrap();
    let words = [&*place, "NOAUTH", "store.redis.urls"];
    is_told(&store, &names[1][0], &words).await;
    for other in [&names[0][0], &names[2][0]] {
        begin(&store, other).await.unwrap();
    }
}

#[tokio::test]
async fn seeds_may_be_names_and_some_of_them_gone() {
    let cluster = RedisCluster::start();
    let gone = RedisServer::stopped(&[]);
    let port = cluster.replicas()[0].server.port();
    let urls = [gone.url(), format!("redis://localhost:{port}")];
    let store = RedisStore::open(cluster_settings(&urls)).unwrap();
    eventually("it is served", async || {
        begin(&store, "alice").await.is_ok()
    })
    .await;
    assert_eq!(store.shards().len(), MASTERS);
}
