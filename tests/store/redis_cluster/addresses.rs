//! What the nodes announce, and how they want to be spoken to.

use std::path::Path;

use rcgen::SanType;
use streamgate::session::Ending;
use testkit::cluster::{cluster_settings, in_cluster};
use testkit::gateway_client::{Check, Gateway};
use testkit::pki::{Authority, Folder};
use testkit::port::ReservedPort;
use testkit::streamgate::Streamgate;

use super::*;

/// How many users start: some at each master.
const SOME: usize = 30;

/// All of these users' starts are done, also while a slot moves and once it has moved; and then
/// they can be listed.
async fn serves(cluster: &RedisCluster, store: &RedisStore) {
    let names: Vec<_> = (0..SOME).map(|number| format!("user {number}")).collect();
    for name in &names {
        eventually("the user is let in", async || {
            begin(store, name).await.is_ok()
        })
        .await;
    }
    let (slot, other) = (cluster.slot(&names[0]), playback("series"));
    let from = cluster.owner(slot);
    let to = (from + 1) % MASTERS;
    let start = async |key| {
        let start = lasting(key);
        let admission = store.admit(&user(&names[0]), &start, &refusing(9)).await;
        admission.unwrap();
    };
    cluster.begin_to_move(slot, from, to);
    cluster.move_keys(slot, from, to);
    // The old master still owns the slot: it sends us to the new one, which wants to be told.
    start(&other).await;
    cluster.end_move(slot, to);
    start(&playback("news")).await;
    let listing = store.list(&user(&names[0])).await.unwrap();
    assert_eq!(listing.sessions.len(), 3);
    let page = store.page(&Default::default(), 100).await.unwrap();
    assert!(page.may_miss.is_none(), "{:?}", page.may_miss);
    let viewer = user(&names[0]);
    let released = store.release(&viewer, &other, Ending::Stream, Duration::ZERO);
    released.await.unwrap();
}

/// The hosts of the masters, as the store has them.
fn hosts(store: &RedisStore) -> Vec<String> {
    let shards = store.shards();
    let addresses = shards.iter().filter_map(|shard| shard.address());
    let host = |address: &str| address.rsplit_once(':').unwrap().0.to_owned();
    addresses.map(host).collect()
}

/// A cluster whose nodes listen at that address too, and announce it.
fn announcing(address: &str) -> RedisCluster {
    let listen = ["--bind", "127.0.0.1", address];
    let options = [&listen[..], &["--cluster-announce-ip", address]].concat();
    RedisCluster::start_as(|| options.iter().map(ToString::to_string).collect())
}

#[tokio::test]
async fn nodes_and_seeds_may_have_ipv6_addresses() {
    let cluster = announcing("::1");
    let port = cluster.masters()[0].server.port();
    let seed = format!("redis://[::1]:{port}");
    let store = cluster.connected_store(cluster_settings(&[seed])).await;
    serves(&cluster, &store).await;
    assert_eq!(hosts(&store), ["[::1]"; MASTERS]);
}

/// As behind NAT: the seed's address is not the announced one.
#[tokio::test]
async fn nodes_are_used_at_the_addresses_that_they_announce() {
    let cluster = announcing("127.0.0.2");
    let store = cluster.connected_store(cluster.settings()).await;
    serves(&cluster, &store).await;
    assert_eq!(hosts(&store), ["127.0.0.2"; MASTERS]);
}

#[tokio::test]
async fn a_user_with_the_documented_rights_and_no_more_is_served() {
    let cluster = RedisCluster::start();
    let rights = "+evalsha +eval +time +get +set +setrange +pexpire +del \
        +cluster|info +cluster|slots +asking +exists +cluster|getkeysinslot";
    let mut user = vec!["ACL", "SETUSER", "gate", "on", ">hunter2", "~streamgate*"];
    user.extend(rights.split_whitespace());
    for node in &cluster.nodes {
        node.server.run::<()>(&user);
    }
    let seed = cluster.replicas()[0].server.url_as("gate", "hunter2");
    let store = cluster.connected_store(cluster_settings(&[seed])).await;
    serves(&cluster, &store).await;
    // More users of the first master than have started.
    let [mut names, ..] = cluster.users_of_each(&store, SOME + 1);
    let name = names.pop().unwrap();
    // Without one of them, the message names it.
    for node in &cluster.nodes {
        node.server
            .run::<()>(&["ACL", "SETUSER", "gate", "-asking"]);
    }
    cluster.begin_to_move(cluster.slot(&name), 0, 1);
    let failure = begin(&store, &name).await.unwrap_err().to_string();
    for words in ["NOPERM", "CLUSTER SLOTS and ASKING"] {
        assert!(failure.contains(words), "{failure}");
    }
}

/// The certificate has only the name that the nodes announce, and not their addresses.
#[tokio::test]
async fn over_tls_nodes_are_known_by_the_names_that_they_announce() {
    let authority = Authority::new("of Redis");
    let issued = authority.issue_to(SanType::DnsName("localhost".try_into().unwrap()));
    let folder = Folder::with(&issued, &authority);
    let file = |name| folder.path(name).display().to_string();
    let (cert, key, ca) = (file("cert"), file("key"), file("client_ca"));
    let mut ports = Vec::new();
    let _cluster = RedisCluster::start_as(|| {
        ports.push(ReservedPort::reserve());
        let port = ports.last().map(|port| port.number().to_string()).unwrap();
        let options = [
            ["--tls-port", &port],
            ["--tls-cert-file", &cert],
            ["--tls-key-file", &key],
            ["--tls-ca-cert-file", &ca],
            ["--tls-auth-clients", "no"],
            ["--tls-cluster", "yes"],
            ["--tls-replication", "yes"],
            ["--cluster-announce-hostname", "localhost"],
            ["--cluster-preferred-endpoint-type", "hostname"],
        ];
        options.concat().into_iter().map(str::to_owned).collect()
    });
    let url = format!("rediss://localhost:{}", ports[0].number());
    let authorities: &Path = &folder.path("client_ca");
    let settings = [&in_cluster(&url)[..], &[("store.outage", "deny")]].concat();
    let streamgate = Streamgate::start_trusting(authorities, &settings).await;
    let all = |shards: f64| shards == MASTERS as f64;
    streamgate
        .metric_becomes("streamgate_store_shards", &[], all)
        .await;
    let gateway = Gateway::connect(streamgate.grpc).await;
    for number in 0..SOME {
        let check = Check::of_playback(&format!("user {number}"), "film");
        let answer = gateway.check(check).await;
        assert!(answer.is_allowed(), "{answer:?}");
    }
    let connected = streamgate.told("connected to Redis", MASTERS).await;
    let places: std::collections::BTreeSet<_> = connected
        .iter()
        .map(|line| line["address"].as_str().unwrap())
        .collect();
    let expected = ports[..MASTERS].iter();
    let expected: Vec<_> = expected
        .map(|port| format!("localhost:{}", port.number()))
        .collect();
    assert_eq!(places, expected.iter().map(String::as_str).collect());
}
