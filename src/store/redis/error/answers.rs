//! The errors that a server returns: what each means to the store, and what you can do about it.

use self::Meaning::{Foreign, Full, Refused};

/// What a server's error means to the store.
#[derive(Debug, Clone, Copy)]
pub(super) enum Meaning {
    /// There is no room, and nothing was done.
    Full,
    /// The server refuses for now, or refuses us: nothing was done, and a later call may succeed.
    Refused,
    /// It is not the server we expected.
    Foreign,
}

/// The role of the server that returned an error. It decides what you can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::redis) enum ServerRole {
    /// The one configured server.
    Standalone,
    /// A server that sentinels named as the master.
    Master,
    /// A sentinel.
    Sentinel,
    /// A node of a cluster.
    Node,
}

/// How a server's error begins, what it means, and what you can do about it if it comes from the
/// configured server.
pub(super) const ANSWERS: [(&str, Meaning, &str); 27] = [
    ("OOM", Full, FULL),
    ("ASK", Refused, CLUSTER),
    (
        "BUSY",
        Refused,
        "another client's script has run for too long; SCRIPT KILL ends it",
    ),
    (
        "CLUSTERDOWN",
        Refused,
        "the cluster does not serve all its slots; see CLUSTER INFO",
    ),
    ("CROSSSLOT", Refused, CLUSTER),
    (
        "DENIED",
        Refused,
        "its protected mode rejects other hosts; set a password or protected-mode no",
    ),
    ("ERR ACL failure in script", Refused, RIGHTS),
    ("ERR The user executing the script can't", Refused, RIGHTS),
    (
        "ERR DB index is out of range",
        Refused,
        "it has no database with that number; check the end of the URL in store.redis.urls",
    ),
    (
        "ERR No such master with that name",
        Refused,
        "check store.redis.sentinel_service",
    ),
    (
        "ERR SELECT is not allowed in cluster mode",
        Refused,
        "a cluster has only database 0; check the end of the URL in store.redis.urls",
    ),
    (
        "ERR This instance has cluster support disabled",
        Refused,
        "this is a single server, and store.redis.topology says that it is a cluster",
    ),
    (
        "ERR unknown command",
        Foreign,
        "streamgate needs HELLO, EVALSHA, EVAL, TIME, GET, SET, SETRANGE, PEXPIRE and DEL, and SCAN and MGET for the operator's listing; a proxy or rename-command may have removed one",
    ),
    (
        "EXECABORT",
        Refused,
        "an earlier command was refused; the server's log may say more",
    ),
    ("LOADING", Refused, "it will answer once it has loaded"),
    (
        "MASTERDOWN",
        Refused,
        "this is a replica without its master; point store.redis.urls at the master",
    ),
    (
        "MISCONF",
        Refused,
        "it refuses writes while it can't save to disk; see its log, or set stop-writes-on-bgsave-error no",
    ),
    ("MOVED", Refused, CLUSTER),
    (
        "NOAUTH",
        Refused,
        "it requires a password; put user:password@ into store.redis.urls",
    ),
    ("NOPERM", Refused, RIGHTS),
    ("NOPROTO", Refused, HELLO),
    (
        "NOREPLICAS",
        Refused,
        "it refuses writes without its replicas; see min-replicas-to-write",
    ),
    (
        "NOSCRIPT",
        Refused,
        "it has lost a script; the next call sends it again",
    ),
    (
        "READONLY",
        Refused,
        "this is a replica; point store.redis.urls at the master",
    ),
    (
        "TRYAGAIN",
        Refused,
        "the cluster is moving slots; it will answer when that is done",
    ),
    (
        "UNKILLABLE",
        Refused,
        "another client's script hangs; restart the server",
    ),
    (WRONGPASS, Refused, AUTHENTICATION),
];

/// What to do instead if the error comes from a server in another role.
pub(super) const ELSEWHERE: [(ServerRole, &str, &str); 24] = [
    (ServerRole::Master, "ASK", MASTER_IN_CLUSTER),
    (ServerRole::Master, "CROSSSLOT", MASTER_IN_CLUSTER),
    (
        ServerRole::Master,
        "ERR DB index is out of range",
        "it has no database with that number; check the end of store.redis.master_url",
    ),
    (
        ServerRole::Master,
        "ERR SELECT is not allowed in cluster mode",
        "a cluster has only database 0, and sentinels don't watch clusters; check the servers that they name",
    ),
    (
        ServerRole::Master,
        "MASTERDOWN",
        "this is a replica without its master; asking the sentinels for the master again",
    ),
    (ServerRole::Master, "MOVED", MASTER_IN_CLUSTER),
    (
        ServerRole::Master,
        "NOAUTH",
        "it requires a password; put user:password@ into store.redis.master_url",
    ),
    (ServerRole::Master, "NOPERM", MASTERS_RIGHTS),
    (
        ServerRole::Master,
        "READONLY",
        "this is a replica; asking the sentinels for the master again",
    ),
    (
        ServerRole::Master,
        WRONGPASS,
        "check user:password@ in store.redis.master_url",
    ),
    (
        ServerRole::Master,
        NO_REDIS,
        "no Redis is listening there, or it requires rediss:// in store.redis.master_url",
    ),
    (ServerRole::Node, "ASK", MOVING),
    (
        ServerRole::Node,
        "ERR unknown command",
        "streamgate needs CLUSTER INFO and CLUSTER SLOTS, and at each node what a single server needs; a proxy or rename-command may have removed one",
    ),
    (
        ServerRole::Node,
        "MASTERDOWN",
        "this is a replica without its master; asking the cluster for the master again",
    ),
    (ServerRole::Node, "MOVED", MOVING),
    (
        ServerRole::Node,
        "NOAUTH",
        "it requires a password; put user:password@ into store.redis.urls, which holds for all nodes",
    ),
    (ServerRole::Node, "NOPERM", NODES_RIGHTS),
    (
        ServerRole::Node,
        "READONLY",
        "this is a replica; asking the cluster for the master again",
    ),
    (
        ServerRole::Node,
        WRONGPASS,
        "check user:password@ in store.redis.urls, which all nodes must accept",
    ),
    (
        ServerRole::Node,
        NO_REDIS,
        "no Redis is listening there, or it requires rediss:// in store.redis.urls",
    ),
    (
        ServerRole::Sentinel,
        "ERR unknown command",
        "this is not a sentinel; check the port in store.redis.urls",
    ),
    (
        ServerRole::Sentinel,
        "NOAUTH",
        "it requires a password; put user:password@ before its host in store.redis.urls",
    ),
    (
        ServerRole::Sentinel,
        "NOPERM",
        "its ACL must allow SENTINEL MASTER and SENTINEL GET-MASTER-ADDR-BY-NAME",
    ),
    (
        ServerRole::Sentinel,
        NO_REDIS,
        "no sentinel is listening there, or it requires rediss://; check store.redis.urls",
    ),
];

/// How the answer to a wrong password begins.
const WRONGPASS: &str = "WRONGPASS";

/// Stands for an answer that no Redis gives.
pub(super) const NO_REDIS: &str = "";

/// What to do about a missing right at a master. We also ask whether the server is one.
const MASTERS_RIGHTS: &str = "the ACL must allow EVALSHA, EVAL, TIME, GET, SET, SETRANGE, PEXPIRE and DEL on all keys that begin with store.redis.key_prefix, SCAN and MGET for the operator's listing, ROLE, and SELECT if a database is named";

/// What to do about a full server.
pub(super) const FULL: &str =
    "raise its maxmemory; running streams continue, and the memory that they free is reused";

/// What to do about a missing right. Scripts report it in a text of their own, which differs
/// between versions.
const RIGHTS: &str = "the ACL must allow EVALSHA, EVAL, TIME, GET, SET, SETRANGE, PEXPIRE and DEL on all keys that begin with store.redis.key_prefix, SCAN and MGET for the operator's listing, and SELECT if a database is named";

/// What to do about a missing right at a node of a cluster.
const NODES_RIGHTS: &str = "the ACL must allow EVALSHA, EVAL, TIME, GET, SET, SETRANGE, PEXPIRE and DEL on all keys that begin with store.redis.key_prefix, CLUSTER INFO, CLUSTER SLOTS and ASKING, and EXISTS and CLUSTER GETKEYSINSLOT for the operator's listing";

/// What to do about a slot that moves for longer than a call can wait.
const MOVING: &str = "the cluster is moving slots; asking it again who owns them";

/// What to do if the server belongs to a cluster.
const CLUSTER: &str = "this is a cluster, and store.redis.topology says that it is a single server";

/// What to do if sentinels name a server of a cluster.
const MASTER_IN_CLUSTER: &str =
    "this is a cluster, which sentinels don't watch; check the servers that they name";

/// What to do about a server without RESP3.
pub(super) const HELLO: &str =
    "streamgate needs RESP3: use Redis 6.2 or newer, and let any proxy in front of it pass HELLO 3";

/// What to do about a rejected password.
const AUTHENTICATION: &str = "check user:password@ in store.redis.urls";

/// What to do if the answer doesn't come from a Redis.
pub(super) const STRANGER: &str =
    "no Redis is listening there, or it requires rediss://; check store.redis.urls";

impl ServerRole {
    /// The hint for an error with that beginning: the usual one, unless this role has its own.
    pub(super) fn hint(self, beginning: &str, usual: &'static str) -> &'static str {
        let other = ELSEWHERE
            .iter()
            .find(|(peer, begins, _)| *peer == self && *begins == beginning);
        other.map_or(usual, |(.., hint)| hint)
    }
}
