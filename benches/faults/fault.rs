//! The faults, and how each is made and ended.

use std::time::Duration;

use redis::Value;
use streamgate::config::Topology;
use testkit::proxy::Proxy;
use testkit::sentinel::is_replica;

use crate::installation::{Installation, STREAMGATE_GROUPS, ServerOptions};
use crate::network::Firewall;

/// How much later an answer of a server comes.
const LATENCY: Duration = Duration::from_millis(40);

/// How many slots are moved in a resharding.
const MOVED: u16 = 400;

/// How far a clock jumps, in seconds: further than a lease.
const JUMP: i64 = 60;

/// Alerts of an outage.
const CHECKS_FAIL: &str = "StreamgateChecksFail";
const OUTAGE_RULE: &str = "StreamgateOutageRule";

/// The alerts of an outage in which starts are denied; without the first, of any.
static OUTAGE_DENIED: [&str; 3] = [CHECKS_FAIL, OUTAGE_RULE, "StreamgateStoreDown"];

/// Those that an outage may fire as well, most of them once it is longer than a lease.
static AFTER_AN_OUTAGE: [&str; 4] = [
    "StreamgateEntriesDropped",
    "StreamgateLeasesLapse",
    "StreamgateStoreErrors",
    "StreamgateStoreForgot",
];

/// All of these, and the one of a shard.
static IN_OR_AFTER_AN_OUTAGE: [&str; 9] = [
    CHECKS_FAIL,
    OUTAGE_RULE,
    "StreamgateStoreDown",
    "StreamgateShardOut",
    "StreamgateChecksSlow",
    "StreamgateEntriesDropped",
    "StreamgateLeasesLapse",
    "StreamgateStoreErrors",
    "StreamgateStoreForgot",
];

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Nothing,
    MasterKilledSaved,
    MasterKilledUnsaved,
    MasterPaused,
    PlannedFailover,
    Resharding,
    InstanceCutOff,
    MasterCutOff,
    Latency,
    Full,
    Flushed,
    ClockForward,
    ClockBack,
    StreamgateKilled,
    StreamgatePaused,
    EnvoyKilled,
}

impl Fault {
    pub(crate) const ALL: [Self; 16] = [
        Self::Nothing,
        Self::MasterKilledSaved,
        Self::MasterKilledUnsaved,
        Self::MasterPaused,
        Self::PlannedFailover,
        Self::Resharding,
        Self::InstanceCutOff,
        Self::MasterCutOff,
        Self::Latency,
        Self::Full,
        Self::Flushed,
        Self::ClockForward,
        Self::ClockBack,
        Self::StreamgateKilled,
        Self::StreamgatePaused,
        Self::EnvoyKilled,
    ];

    /// What a row of the table says.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "no fault",
            Self::MasterKilledSaved => "master killed, data kept (appendfsync everysec)",
            Self::MasterKilledUnsaved => "master killed, no persistence",
            Self::MasterPaused => "master stands still for 4 s (SIGSTOP)",
            Self::PlannedFailover => "planned failover",
            Self::Resharding => "resharding: 400 slots move",
            Self::InstanceCutOff => "one streamgate cut off from the store for 4 s",
            Self::MasterCutOff => "master cut off from its peers for 4 s",
            Self::Latency => "40 ms of latency for 4 s",
            Self::Full => "server full for 4 s (maxmemory)",
            Self::Flushed => "FLUSHALL",
            Self::ClockForward => "the servers' clock jumps 60 s ahead",
            Self::ClockBack => "the servers' clock jumps 60 s back",
            Self::StreamgateKilled => "one streamgate killed, back after 2 s",
            Self::StreamgatePaused => "one streamgate stands still for 4 s (SIGSTOP)",
            Self::EnvoyKilled => "Envoy killed",
        }
    }

    /// Whether that topology can have it.
    pub(crate) fn is_of(self, topology: Topology) -> bool {
        match self {
            Self::PlannedFailover | Self::MasterCutOff => topology != Topology::Standalone,
            Self::Resharding => topology == Topology::Cluster,
            _ => true,
        }
    }

    /// The words of `store.outage` with which it is tried: all where the store is away for long.
    pub(crate) fn rules(self, topology: Topology) -> &'static [&'static str] {
        let is_outage = match self {
            Self::MasterKilledUnsaved | Self::MasterPaused => true,
            Self::InstanceCutOff | Self::Full => topology == Topology::Standalone,
            Self::MasterCutOff => topology == Topology::Cluster,
            _ => false,
        };
        if is_outage {
            &["allow", "deny", "local"]
        } else {
            &["allow"]
        }
    }

    /// The alerts that fire when it lasts for a quarter of an hour, and others that may.
    pub(crate) fn alerts(self, topology: Topology, rule: &str) -> [&'static [&'static str]; 2] {
        let is_alone = topology == Topology::Standalone;
        match self {
            // A replica may lack the last starts.
            Self::PlannedFailover if topology == Topology::Sentinel => {
                [&[], &["StreamgateStoreForgot"]]
            }
            Self::Nothing | Self::PlannedFailover | Self::Resharding | Self::ClockBack => {
                [&[], &[]]
            }
            Self::InstanceCutOff if rule == "deny" => [&OUTAGE_DENIED, &AFTER_AN_OUTAGE],
            Self::InstanceCutOff => [&OUTAGE_DENIED[1..], &AFTER_AN_OUTAGE],
            Self::MasterKilledSaved | Self::MasterKilledUnsaved | Self::MasterPaused
                if is_alone =>
            {
                let from = usize::from(rule != "deny");
                [&OUTAGE_DENIED[from..], &AFTER_AN_OUTAGE]
            }
            // How long a promotion takes is no sixtieth here.
            Self::MasterKilledSaved
            | Self::MasterKilledUnsaved
            | Self::MasterPaused
            | Self::MasterCutOff
            | Self::Latency => [&[], &IN_OR_AFTER_AN_OUTAGE],
            Self::Full if rule == "deny" => [&[CHECKS_FAIL, OUTAGE_RULE], &AFTER_AN_OUTAGE],
            Self::Full => [&[OUTAGE_RULE], &AFTER_AN_OUTAGE],
            Self::Flushed | Self::ClockForward => [&["StreamgateStoreForgot"], &[]],
            Self::StreamgateKilled | Self::StreamgatePaused => {
                [&["StreamgateInstanceMissing"], &[CHECKS_FAIL]]
            }
            Self::EnvoyKilled => [&["StreamgateInstanceMissing"], &[]],
        }
    }

    /// What the servers need for it.
    pub(crate) const fn options(self) -> ServerOptions {
        ServerOptions {
            persist: matches!(self, Self::MasterKilledSaved),
            shift: matches!(self, Self::ClockForward | Self::ClockBack),
            relay: matches!(self, Self::Latency),
        }
    }

    /// Makes it, and returns when we have done all that we do to end it: after so long, if it would
    /// not end by itself. What is killed comes back after half of that, or, if another server has
    /// to be promoted, after twice that.
    pub(crate) async fn happen(self, at: &mut Installation, lasts: Duration) {
        match self {
            Self::Nothing => {}
            Self::MasterKilledSaved | Self::MasterKilledUnsaved => {
                at.master().stop();
                tokio::time::sleep(away(at, lasts)).await;
                tokio::task::block_in_place(|| at.master().restart_with(&[]));
            }
            Self::MasterPaused => {
                at.master().pause();
                tokio::time::sleep(lasts).await;
                at.master().resume();
            }
            Self::PlannedFailover => at.fail_over().await,
            Self::Resharding => reshard(at),
            Self::InstanceCutOff => {
                let [_, group] = STREAMGATE_GROUPS;
                let cut = Firewall::open().drop_packets(group, &at.client_ports());
                tokio::time::sleep(lasts).await;
                drop(cut);
            }
            Self::MasterCutOff => cut_master_off(at, lasts).await,
            Self::Latency => {
                let slow = |relay: &Proxy| relay.slow(LATENCY);
                at.relays.iter().for_each(slow);
                tokio::time::sleep(lasts).await;
                at.relays.iter().for_each(Proxy::restore);
            }
            Self::Full => {
                on_all(at, &["CONFIG", "SET", "maxmemory", "1"]);
                tokio::time::sleep(lasts).await;
                on_all(at, &["CONFIG", "SET", "maxmemory", "0"]);
            }
            Self::Flushed => on_masters(at, &["FLUSHALL"]),
            Self::ClockForward => at.shift_clock(JUMP),
            Self::ClockBack => at.shift_clock(-JUMP),
            Self::StreamgateKilled => {
                let mut killed = at.streamgates[1].take().unwrap();
                killed.kill().await;
                tokio::time::sleep(lasts / 2).await;
                at.streamgates[1] = Some(killed.start_again().await);
            }
            Self::StreamgatePaused => {
                let paused = at.streamgates[1].as_ref().unwrap();
                paused.signal("STOP").await;
                tokio::time::sleep(lasts).await;
                paused.signal("CONT").await;
            }
            Self::EnvoyKilled => at.envoy.take().unwrap().kill().await,
        }
    }
}

/// How long a killed server is away: where there is a replica, until it has been promoted.
fn away(at: &Installation, lasts: Duration) -> Duration {
    if at.data_servers().len() == 1 {
        lasts / 2
    } else {
        2 * lasts
    }
}

/// Cuts the master off from all servers and sentinels, while clients still reach it.
async fn cut_master_off(at: &Installation, lasts: Duration) {
    let (master, peers) = at.groups();
    let (its_ports, their_ports) = at.ports();
    let cut = Firewall::open().drop_packets(master, &their_ports);
    let cut = peers.fold(cut, |cut, peer| cut.drop_packets(peer, &its_ports));
    // What the master sends its replica has no port of the replica's that a rule could name.
    at.master()
        .run::<Value>(&["CLIENT", "KILL", "TYPE", "replica"]);
    tokio::time::sleep(lasts).await;
    drop(cut);
}

/// Moves slots from the first master to the second.
fn reshard(at: &Installation) {
    let cluster = at.cluster().unwrap();
    tokio::task::block_in_place(|| {
        for slot in 0..MOVED {
            cluster.move_slot(slot, 0, 1);
        }
    });
}

fn on_all(at: &Installation, words: &[&str]) {
    for server in at.data_servers() {
        server.run::<Value>(words);
    }
}

/// Runs a command at each server that takes writes.
fn on_masters(at: &Installation, words: &[&str]) {
    let servers = at.data_servers().into_iter();
    for server in servers.filter(|server| !is_replica(server)) {
        server.run::<Value>(words);
    }
}
