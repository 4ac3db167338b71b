//! A Redis Cluster of the tests' own: three masters with a replica each, real processes on free
//! ports, quick to find out that a master is gone.

use std::array;
use std::collections::HashMap;

use redis::{RedisResult, Value};
use streamgate::store::Store;
use streamgate::store::redis::{RedisSettings, RedisStore, RedisTarget};

use crate::port::ReservedPort;
use crate::redis::{RedisServer, settings};
use crate::streamgate::Setting;
use crate::streams::user;
use crate::watch::{eventually, eventually_blocking};

/// How many masters there are at first; each has one replica.
pub const MASTERS: usize = 3;

/// How many slots a cluster has.
const SLOTS: u16 = 16384;

/// After how long without an answer a node is taken for dead where that is wanted.
const SHORT: &str = "1500";

/// The same where nothing is to happen, however busy the machine is.
const LONG: &str = "60000";

/// A node, and the port on which it talks to the others.
#[derive(Debug)]
pub struct ClusterNode {
    /// Its process.
    pub server: RedisServer,
    /// Where it talks to the others.
    pub bus: ReservedPort,
}

/// A cluster.
#[derive(Debug)]
pub struct RedisCluster {
    /// The masters at first, and then the replica of each.
    pub nodes: Vec<ClusterNode>,
    /// Which slots they own.
    shares: Shares,
}

/// The first slot of each master at first; behind the last master, the number of all.
type Shares = [u16; MASTERS + 1];

/// Each master has as many as the others.
fn even_shares() -> Shares {
    array::from_fn(|master| {
        let first = (usize::from(SLOTS) * master).div_ceil(MASTERS);
        u16::try_from(first).unwrap()
    })
}

// === impl ClusterNode ===

impl ClusterNode {
    /// Starts a node that belongs to no cluster yet.
    pub fn start(options: &[&str]) -> Self {
        Self::start_with(options, None, &[])
    }

    /// The same with more variables in its environment, and in a group of its own, if given.
    fn start_with(options: &[&str], group: Option<u32>, variables: &[(String, String)]) -> Self {
        let bus = ReservedPort::reserve();
        let port = bus.number().to_string();
        let usual = [
            ["--cluster-enabled", "yes"],
            ["--cluster-port", &port],
            ["--cluster-require-full-coverage", "no"],
            ["--cluster-allow-replica-migration", "no"],
            ["--repl-diskless-sync-delay", "0"],
        ];
        let options = [&usual.concat(), options].concat();
        let mut server = RedisServer::stopped(&options).with_variables(variables);
        if let Some(group) = group {
            server = server.in_group(group);
        }
        server.restart();
        Self { server, bus }
    }

    /// The port on which it talks to the others.
    pub fn bus_port(&self) -> u16 {
        self.bus.number()
    }

    /// Its id in the cluster.
    pub fn id(&self) -> String {
        self.server.run(&["CLUSTER", "MYID"])
    }

    /// The address that it announces to clients.
    pub fn place(&self) -> String {
        let name = "cluster-announce-port";
        let (_, announced): (String, u16) = self.server.run(&["CONFIG", "GET", name]);
        match announced {
            0 => format!("127.0.0.1:{}", self.server.port()),
            port => format!("127.0.0.1:{port}"),
        }
    }

    /// Whether it takes itself for a master; no if it is away.
    pub fn is_master(&self) -> bool {
        let role: RedisResult<Vec<Value>> = self.server.try_run(&["ROLE"]);
        let role = role.ok().and_then(|role| role.into_iter().next());
        role.and_then(|role| redis::from_redis_value(role).ok())
            .is_some_and(|role: String| role == "master")
    }

    /// Whether it sees a whole cluster of so many nodes.
    pub fn sees_all(&self, nodes: usize) -> bool {
        let info: String = self.server.run(&["CLUSTER", "INFO"]);
        let says = |text: &str| info.contains(text);
        says("cluster_state:ok")
            && says("cluster_slots_ok:16384")
            && says(&format!("cluster_known_nodes:{nodes}\r\n"))
    }

    /// Whether it has a copy of all that its master has.
    fn has_a_copy(&self) -> bool {
        let info: String = self.server.run(&["INFO", "replication"]);
        info.contains("master_link_status:up")
    }
}

// === impl RedisCluster ===

impl RedisCluster {
    /// Starts a cluster, and waits until it serves and each replica has a copy. No replica takes
    /// over by itself.
    pub fn start() -> Self {
        Self::start_with(&["--cluster-node-timeout", LONG], None, &[])
    }

    /// Starts a cluster whose replicas take over soon after their masters are gone.
    pub fn start_watchful() -> Self {
        Self::start_with(&["--cluster-node-timeout", SHORT], None, &[])
    }

    /// Starts a cluster whose nodes have these options, and whose first master has all slots but
    /// one for each of the others: all users but few are its own. No replica takes over.
    pub fn start_around_the_first(options: &[&str]) -> Self {
        let options = [&["--cluster-node-timeout", LONG], options].concat();
        let shares = [0, SLOTS - 2, SLOTS - 1, SLOTS];
        Self::of(shares, |_| ClusterNode::start(&options))
    }

    /// Starts a cluster whose nodes have these options, which are asked for once for each.
    pub fn start_as(mut options: impl FnMut() -> Vec<String>) -> Self {
        Self::of(even_shares(), |_| {
            let options = options();
            ClusterNode::start(&options.iter().map(String::as_str).collect::<Vec<_>>())
        })
    }

    /// Starts a cluster whose nodes have these options and variables; each in a group of its own,
    /// counted from `groups`, if given.
    pub fn start_with(
        options: &[&str],
        groups: Option<u32>,
        variables: &[(String, String)],
    ) -> Self {
        Self::of(even_shares(), |number| {
            let group = groups.map(|first| first + number);
            ClusterNode::start_with(options, group, variables)
        })
    }

    /// A cluster of the nodes that `start` starts, with those shares of the slots.
    fn of(shares: Shares, start: impl FnMut(u32) -> ClusterNode) -> Self {
        let cluster = Self {
            nodes: (0..).map(start).take(2 * MASTERS).collect(),
            shares,
        };
        cluster.join();
        cluster
    }

    /// Has the nodes meet, and gives them their slots and their masters.
    fn join(&self) {
        let (first, others) = self.nodes.split_first().unwrap();
        for (number, node) in self.nodes.iter().enumerate() {
            let epoch = (number + 1).to_string();
            node.server
                .run::<()>(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch]);
        }
        for (number, master) in self.masters().iter().enumerate() {
            let (begin, next) = (self.shares[number], self.shares[number + 1]);
            let (begin, end) = (begin.to_string(), (next - 1).to_string());
            master
                .server
                .run::<()>(&["CLUSTER", "ADDSLOTSRANGE", &begin, &end]);
        }
        for other in others {
            let (port, bus) = (
                other.server.port().to_string(),
                other.bus.number().to_string(),
            );
            first
                .server
                .run::<()>(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
        }
        for (replica, master) in self.replicas().iter().zip(self.masters()) {
            let id = master.id();
            eventually_blocking("the replica knows its master", || {
                let replicate = ["CLUSTER", "REPLICATE", &id];
                replica.server.try_run::<()>(&replicate).is_ok()
            });
        }
        eventually_blocking("all nodes see the whole cluster", || {
            self.nodes
                .iter()
                .all(|node| node.sees_all(self.nodes.len()))
        });
        eventually_blocking("each replica has a copy", || {
            self.replicas().iter().all(ClusterNode::has_a_copy)
        });
        eventually_blocking("all nodes agree who is a replica", || {
            self.nodes.iter().all(|node| {
                let nodes: String = node.server.run(&["CLUSTER", "NODES"]);
                nodes.matches("slave").count() == MASTERS
            })
        });
    }

    /// The masters at first.
    pub fn masters(&self) -> &[ClusterNode] {
        &self.nodes[..MASTERS]
    }

    /// The replica of each.
    pub fn replicas(&self) -> &[ClusterNode] {
        &self.nodes[MASTERS..]
    }

    /// The URLs of the masters at first.
    pub fn urls(&self) -> Vec<String> {
        self.masters()
            .iter()
            .map(|node| node.server.url())
            .collect()
    }

    /// The settings of a store on it, with patience enough for a busy machine.
    pub fn settings(&self) -> RedisSettings {
        cluster_settings(&self.urls())
    }

    /// A store on it with patience enough for a busy machine.
    pub fn store(&self) -> RedisStore {
        RedisStore::open(self.settings()).unwrap()
    }

    /// The slot of a user.
    pub fn slot(&self, user: &str) -> u16 {
        let key = format!("streamgate:{{{user}}}");
        self.any().run(&["CLUSTER", "KEYSLOT", &key])
    }

    /// Which of the masters owns that slot at first.
    pub fn owner(&self, slot: u16) -> usize {
        let owns = |master: &usize| slot < self.shares[master + 1];
        (0..MASTERS).find(owns).unwrap()
    }

    /// A store on it that knows who owns which slots, and is connected to all of them.
    pub async fn connected_store(&self, settings: RedisSettings) -> RedisStore {
        let store = RedisStore::open(settings).unwrap();
        eventually("the store is connected to all masters", async || {
            let shards = store.shards();
            let servers = shards.iter().filter_map(|shard| store.server(shard));
            servers.count() == MASTERS
        })
        .await;
        store
    }

    /// So many users for each of the masters at first, as that store has it.
    pub fn users_of_each(&self, store: &RedisStore, users: usize) -> [Vec<String>; MASTERS] {
        let places: Vec<_> = self.masters().iter().map(ClusterNode::place).collect();
        let mut found: [Vec<String>; MASTERS] = Default::default();
        for number in 0.. {
            if found.iter().all(|found| found.len() == users) {
                break;
            }
            let name = format!("user {number}");
            let shard = store.shard_of(&user(&name));
            let place = places
                .iter()
                .position(|place| shard.address() == Some(place));
            let found = &mut found[place.unwrap()];
            if found.len() < users {
                found.push(name);
            }
        }
        found
    }

    /// Has the first master say that it is at that port, and waits until all know.
    pub async fn announce(&self, port: u16) {
        let port = port.to_string();
        let first = &self.nodes[0].server;
        let set = |name, value| first.run::<()>(&["CONFIG", "SET", name, value]);
        set("cluster-announce-port", &port);
        // Nodes learn it when the master pings them. It pings one at random each second, and each
        // that it hasn't heard of for half of this.
        let timeout: HashMap<String, String> =
            first.run(&["CONFIG", "GET", "cluster-node-timeout"]);
        set("cluster-node-timeout", "4000");
        eventually("all nodes know the new address", async || {
            self.nodes.iter().all(|node| {
                let nodes: String = node.server.run(&["CLUSTER", "NODES"]);
                nodes.contains(&format!(":{port}@"))
            })
        })
        .await;
        set("cluster-node-timeout", &timeout["cluster-node-timeout"]);
    }

    /// Makes the replica of that master a master, with the master's help, and waits until it is.
    pub async fn fail_over(&self, master: usize) {
        let (old, new) = (&self.masters()[master], &self.replicas()[master]);
        new.server.run::<()>(&["CLUSTER", "FAILOVER"]);
        eventually("the replica is the master", async || {
            new.is_master() && !old.is_master()
        })
        .await;
    }

    /// Begins to move a slot between two of the masters at first: from now on, what isn't there any
    /// more is asked for at the other.
    pub fn begin_to_move(&self, slot: u16, from: usize, to: usize) {
        let slot = slot.to_string();
        let (from, to) = (&self.masters()[from], &self.masters()[to]);
        let (source, target) = (from.id(), to.id());
        to.server
            .run::<()>(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source]);
        from.server
            .run::<()>(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target]);
    }

    /// Moves the keys of a slot that is being moved.
    pub fn move_keys(&self, slot: u16, from: usize, to: usize) {
        let (from, to) = (&self.masters()[from].server, &self.masters()[to].server);
        let port = to.port().to_string();
        let number = slot.to_string();
        loop {
            let keys: Vec<String> = from.run(&["CLUSTER", "GETKEYSINSLOT", &number, "100"]);
            if keys.is_empty() {
                return;
            }
            let mut words = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            words.extend(keys.iter().map(String::as_str));
            from.run::<Value>(&words);
        }
    }

    /// Ends the move of a slot: the other owns it now, and all masters know.
    pub fn end_move(&self, slot: u16, to: usize) {
        let slot = slot.to_string();
        let target = self.masters()[to].id();
        let others = self.masters().iter().enumerate();
        let others = others.filter(|(number, _)| *number != to);
        let masters = [&self.masters()[to]].into_iter();
        for master in masters.chain(others.map(|(_, master)| master)) {
            master
                .server
                .run::<()>(&["CLUSTER", "SETSLOT", &slot, "NODE", &target]);
        }
    }

    /// Moves a slot with its keys.
    pub fn move_slot(&self, slot: u16, from: usize, to: usize) {
        self.begin_to_move(slot, from, to);
        self.move_keys(slot, from, to);
        self.end_move(slot, to);
    }

    /// A node that runs and knows where keys belong.
    fn any(&self) -> &RedisServer {
        let mut nodes = self.nodes.iter().map(|node| &node.server);
        let answers = |server: &&RedisServer| server.try_run::<Value>(&["PING"]).is_ok();
        nodes.find(answers).unwrap()
    }
}

/// The settings of a streamgate on the cluster of the nodes with these URLs, with a deadline for a
/// busy machine.
pub const fn in_cluster(urls: &str) -> [Setting<'_>; 4] {
    [
        ("store.backend", "redis"),
        ("store.redis.topology", "cluster"),
        ("store.redis.urls", urls),
        ("store.timeout", "5s"),
    ]
}

/// The settings of a store on the cluster of those nodes, with patience enough for a busy machine.
pub fn cluster_settings(urls: &[String]) -> RedisSettings {
    let seeds = urls.iter().map(|url| url.parse().unwrap()).collect();
    RedisSettings {
        source: RedisTarget::Cluster(seeds),
        ..settings(&urls[0])
    }
}
