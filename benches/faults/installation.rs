//! What is put through a fault: the servers of one topology, two streamgates, and an Envoy before
//! both.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use redis::Value;
use serde_json::json;
use streamgate::config::Topology;
use tempfile::TempDir;
use testkit::cluster::RedisCluster;
use testkit::gateway::{Gateway, Setup};
use testkit::origin::Origin;
use testkit::proxy::Proxy;
use testkit::redis::RedisServer;
use testkit::sentinel::Watched;
use testkit::streamgate::{Setting, Streamgate};
use testkit::tools::repository;

use crate::network::Firewall;

/// The lease of every stream, in seconds. Short, so that a run sees leases end.
pub(crate) const LEASE: u32 = 9;

/// The first of the servers' groups.
const SERVER_GROUPS: u32 = 61_000;

/// The groups of the streamgates.
pub(crate) const STREAMGATE_GROUPS: [u32; 2] = [62_000, 62_001];

/// The file that says by how many seconds the servers' clock is shifted.
const SHIFT: &str = "shift";

/// The topologies that are tried, with the words of `store.redis.topology`.
pub(crate) const TOPOLOGIES: [(Topology, &str); 3] = [
    (Topology::Standalone, "standalone"),
    (Topology::Sentinel, "sentinel"),
    (Topology::Cluster, "cluster"),
];

/// The options of the servers, and the file that a shifted clock follows.
pub(crate) struct ServerOptions {
    /// Whether servers keep their data over a restart.
    pub(crate) persist: bool,
    /// Whether the servers' clock can be shifted.
    pub(crate) shift: bool,
    /// Whether streamgates reach them through relays, which can be slow.
    pub(crate) relay: bool,
}

/// The servers.
enum Servers {
    Standalone(RedisServer),
    Sentinel(Box<Watched>),
    Cluster(RedisCluster),
}

/// All of it.
pub(crate) struct Installation {
    servers: Servers,
    /// The streamgates; `None` while one is killed.
    pub(crate) streamgates: [Option<Streamgate>; 2],
    /// The Envoy before both; `None` when it is killed.
    pub(crate) envoy: Option<Gateway>,
    /// What the streamgates' connections to the servers lead through, if they are to.
    pub(crate) relays: Vec<Proxy>,
    _leading_there: Firewall,
    _origin: Origin,
    clock: TempDir,
}

/// The word of `store.redis.topology`.
pub(crate) fn word(topology: Topology) -> &'static str {
    let found = TOPOLOGIES.iter().find(|(known, _)| *known == topology);
    found.unwrap().1
}

impl Servers {
    fn start(topology: Topology, options: &ServerOptions, clock: &Path) -> Self {
        let appending = if options.persist { "yes" } else { "no" };
        let keeping = ["--appendonly", appending];
        let variables = if options.shift {
            shifting(clock)
        } else {
            Vec::new()
        };
        match topology {
            Topology::Standalone => {
                let server = RedisServer::stopped(&keeping).in_group(SERVER_GROUPS);
                let server = server.with_variables(&variables);
                server.restart();
                Self::Standalone(server)
            }
            Topology::Sentinel => {
                let watched = Watched::start_with(&keeping, Some(SERVER_GROUPS), &variables);
                Self::Sentinel(Box::new(watched))
            }
            Topology::Cluster => {
                let options = [&["--cluster-node-timeout", "1500"], &keeping[..]].concat();
                let cluster = RedisCluster::start_with(&options, Some(SERVER_GROUPS), &variables);
                Self::Cluster(cluster)
            }
        }
    }

    fn with_data(&self) -> Vec<&RedisServer> {
        match self {
            Self::Standalone(server) => vec![server],
            Self::Sentinel(watched) => watched.servers.iter().collect(),
            Self::Cluster(cluster) => cluster.nodes.iter().map(|node| &node.server).collect(),
        }
    }

    fn client_ports(&self) -> Vec<u16> {
        let data = self.with_data().into_iter().map(RedisServer::port);
        let sentinels = match self {
            Self::Sentinel(watched) => &watched.sentinels[..],
            Self::Standalone(_) | Self::Cluster(_) => &[],
        };
        data.chain(sentinels.iter().map(RedisServer::port))
            .collect()
    }

    fn urls(&self) -> Vec<String> {
        match self {
            Self::Standalone(server) => vec![server.url()],
            Self::Sentinel(watched) => watched.urls(),
            Self::Cluster(cluster) => cluster.urls(),
        }
    }
}

/// Variables that have a server shift its clock by what the file in that folder says.
fn shifting(folder: &Path) -> Vec<(String, String)> {
    let library = folder.join("clock.so");
    let compiling = Command::new("cc")
        .args(["-O2", "-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(repository("benches/faults/clock.c"))
        .status();
    assert!(compiling.unwrap().success(), "clock.c can't be compiled");
    let all = [("LD_PRELOAD", library), ("CLOCK_SHIFT", folder.join(SHIFT))];
    let all = all.map(|(name, path)| (name.to_owned(), path.to_string_lossy().into_owned()));
    all.to_vec()
}

/// Relays before all servers, if wanted, and the rules that lead the streamgates there.
async fn relays(servers: &Servers, are_wanted: bool) -> (Vec<Proxy>, Firewall) {
    let (mut relays, mut leading) = (Vec::new(), Firewall::open());
    let ports = if are_wanted {
        servers.client_ports()
    } else {
        Vec::new()
    };
    for port in ports {
        let relay = Proxy::before(port).await;
        for group in STREAMGATE_GROUPS {
            leading = leading.redirect(group, port, relay.port());
        }
        relays.push(relay);
    }
    (relays, leading)
}

impl Installation {
    /// Starts all of it, where streams follow that rule in an outage.
    pub(crate) async fn start(topology: Topology, options: &ServerOptions, rule: &str) -> Self {
        let clock = tempfile::tempdir().unwrap();
        std::fs::write(clock.path().join(SHIFT), 0_i64.to_ne_bytes()).unwrap();
        let servers =
            tokio::task::block_in_place(|| Servers::start(topology, options, clock.path()));
        let (urls, lease) = (servers.urls().join(","), format!("{LEASE}s"));
        let settings: [Setting<'_>; 8] = [
            ("store.backend", "redis"),
            ("store.redis.topology", word(topology)),
            ("store.redis.urls", &urls),
            ("store.outage", rule),
            ("leases.request", &lease),
            ("leases.playback", &lease),
            // A start that waits for a slot is no delay, but it would hide one.
            ("limits.grace", "0s"),
            ("limits.default", "3"),
        ];
        let (relays, leading_there) = relays(&servers, options.relay).await;
        let (one, two) = tokio::join!(
            Streamgate::start_in_group(STREAMGATE_GROUPS[0], &settings),
            Streamgate::start_in_group(STREAMGATE_GROUPS[1], &settings)
        );
        let origin = Origin::start().await;
        let setup = Setup::demo(&[one.grpc, two.grpc], origin.address)
            .flush_interval("2s")
            // As shipped: the kit has a longer one for tests.
            .check(json!({"grpc_service": {"timeout": "0.5s"}}));
        let envoy = setup.start().await;
        Self {
            servers,
            streamgates: [Some(one), Some(two)],
            envoy: Some(envoy),
            relays,
            _leading_there: leading_there,
            _origin: origin,
            clock,
        }
    }

    /// Both streamgates, which have just been started.
    pub(crate) fn both(&self) -> [&Streamgate; 2] {
        self.streamgates.each_ref().map(|it| it.as_ref().unwrap())
    }

    /// The server whose fault it is: the only one, or a master.
    pub(crate) fn master(&self) -> &RedisServer {
        match &self.servers {
            Servers::Standalone(server) => server,
            Servers::Sentinel(watched) => watched.first(),
            Servers::Cluster(cluster) => &cluster.masters()[0].server,
        }
    }

    /// All servers that hold data.
    pub(crate) fn data_servers(&self) -> Vec<&RedisServer> {
        self.servers.with_data()
    }

    /// The cluster, if it is one.
    pub(crate) const fn cluster(&self) -> Option<&RedisCluster> {
        match &self.servers {
            Servers::Cluster(cluster) => Some(cluster),
            Servers::Standalone(_) | Servers::Sentinel(_) => None,
        }
    }

    /// The ports at which clients of the store ask.
    pub(crate) fn client_ports(&self) -> Vec<u16> {
        self.servers.client_ports()
    }

    /// The group of the master, and of each of its peers.
    pub(crate) fn groups(&self) -> (u32, std::ops::Range<u32>) {
        let peers = match &self.servers {
            Servers::Standalone(_) => 0,
            Servers::Sentinel(_) => 4,
            Servers::Cluster(cluster) => u32::try_from(cluster.nodes.len()).unwrap() - 1,
        };
        (SERVER_GROUPS, SERVER_GROUPS + 1..SERVER_GROUPS + 1 + peers)
    }

    /// The ports of the master, and those of its peers, for clients and for each other.
    pub(crate) fn ports(&self) -> (Vec<u16>, Vec<u16>) {
        let Servers::Cluster(cluster) = &self.servers else {
            let master = self.master().port();
            let mut peers = self.client_ports();
            peers.retain(|port| *port != master);
            return (vec![master], peers);
        };
        let both = |node: &testkit::cluster::ClusterNode| [node.server.port(), node.bus_port()];
        let (master, peers) = cluster.nodes.split_first().unwrap();
        (both(master).to_vec(), peers.iter().flat_map(both).collect())
    }

    /// Promotes the replica of the master, with the master's help.
    pub(crate) async fn fail_over(&self) {
        match &self.servers {
            Servers::Standalone(_) => {}
            Servers::Sentinel(watched) => tokio::task::block_in_place(|| watched.fail_over()),
            Servers::Cluster(cluster) => cluster.fail_over(0).await,
        }
    }

    /// Shifts the servers' clock by so many seconds, and makes sure that they see it.
    pub(crate) fn shift_clock(&self, seconds: i64) {
        let before = seconds_of(self.master());
        // The servers have the file in their memory, so it must never be shorter.
        let file = File::options()
            .write(true)
            .open(self.clock.path().join(SHIFT));
        file.unwrap().write_all(&seconds.to_ne_bytes()).unwrap();
        let shifted = seconds_of(self.master()) - before;
        assert!(
            (shifted - seconds).abs() <= 2,
            "the clock moved by {shifted} s, not by {seconds} s"
        );
    }
}

/// The time by that server.
fn seconds_of(server: &RedisServer) -> i64 {
    let time: Vec<Value> = server.run(&["TIME"]);
    redis::from_redis_value(time.into_iter().next().unwrap()).unwrap()
}
