//! The errors that a server answers: what each means to the store, and what you can do about it.

use self::Meaning::{Foreign, Full, Refused};

/// What an error that the server answers means to the store.
#[derive(Debug, Clone, Copy)]
pub(super) enum Meaning {
    /// There is no room, and nothing was done.
    Full,
    /// It refuses for now, or refuses us: nothing was done, and a later call may succeed.
    Refused,
    /// It is not the server that was expected.
    Foreign,
}

/// Whom an error comes from. What can be done about it differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::redis) enum ServerRole {
    /// The one server that is configured.
    Standalone,
    /// A server that sentinels have named as the master.
    Master,
    /// A sentinel.
    Sentinel,
}

/// How an error that the server answers begins, what it means, and what can be done about it where the server is the one that is configured.
pub(super) const ANSWERS: [(&str, Meaning, &str); 27] = [
    ("OOM", Full, FULL),
    ("ASK", Refused, CLUSTER),
    (
        "BUSY",
        Refused,
        "somebody's script runs for too long; SCRIPT KILL ends it",
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
        "its protected mode lets in nobody from other hosts; give it a password or set protected-mode no",
    ),
    ("ERR ACL failure in script", Refused, RIGHTS),
    ("ERR The user executing the script can't", Refused, RIGHTS),
    (
        "ERR DB index is out of range",
        Refused,
        "it has no database of that number; check the end of the URL in store.redis.urls",
    ),
    (
        "ERR No such master with that name",
        Refused,
        "check store.redis.sentinel_service",
    ),
    (
        "ERR SELECT is not allowed in cluster mode",
        Refused,
        "a cluster has database 0 alone; check the end of the URL in store.redis.urls",
    ),
    // What the client library makes of a NOPERM that answers its SELECT.
    ("ERR this user has no permissions", Refused, RIGHTS),
    (
        "ERR unknown command",
        Foreign,
        "streamgate needs HELLO, EVALSHA, EVAL, TIME, GET, SET, SETRANGE, PEXPIRE and DEL, and SCAN and MGET for the operator's listing; a proxy or rename-command may have taken one away",
    ),
    (
        "EXECABORT",
        Refused,
        "a command before it was refused; the server's log may tell more",
    ),
    (
        "LOADING",
        Refused,
        "it will answer by itself when it has loaded",
    ),
    (
        "MASTERDOWN",
        Refused,
        "this is a replica without its master; point store.redis.urls at the master",
    ),
    (
        "MISCONF",
        Refused,
        "it takes no writes while it can't save to disk; see its log, or set stop-writes-on-bgsave-error no",
    ),
    ("MOVED", Refused, CLUSTER),
    (
        "NOAUTH",
        Refused,
        "it wants a password; put user:password@ into store.redis.urls",
    ),
    ("NOPERM", Refused, RIGHTS),
    ("NOPROTO", Refused, HELLO),
    (
        "NOREPLICAS",
        Refused,
        "it takes no writes without its replicas; see min-replicas-to-write",
    ),
    (
        "NOSCRIPT",
        Refused,
        "it has forgotten a script; the next call brings it",
    ),
    (
        "READONLY",
        Refused,
        "this is a replica; point store.redis.urls at the master",
    ),
    (
        "TRYAGAIN",
        Refused,
        "a cluster moves its slots; it will answer when that is done",
    ),
    (
        "UNKILLABLE",
        Refused,
        "somebody's script has hung; the server has to be restarted",
    ),
    (WRONGPASS, Refused, AUTHENTICATION),
];

/// What is to be done instead where somebody else has answered so.
pub(super) const ELSEWHERE: [(ServerRole, &str, &str); 16] = [
    (ServerRole::Master, "ASK", MASTER_IN_CLUSTER),
    (ServerRole::Master, "CROSSSLOT", MASTER_IN_CLUSTER),
    (
        ServerRole::Master,
        "ERR DB index is out of range",
        "it has no database of that number; check the end of store.redis.master_url",
    ),
    (
        ServerRole::Master,
        "ERR SELECT is not allowed in cluster mode",
        "a cluster has database 0 alone, and sentinels watch none; check the servers that they name",
    ),
    (
        ServerRole::Master,
        "ERR this user has no permissions",
        MASTERS_RIGHTS,
    ),
    (
        ServerRole::Master,
        "MASTERDOWN",
        "this is a replica without its master; the sentinels are asked for the master anew",
    ),
    (ServerRole::Master, "MOVED", MASTER_IN_CLUSTER),
    (
        ServerRole::Master,
        "NOAUTH",
        "it wants a password; put user:password@ into store.redis.master_url",
    ),
    (ServerRole::Master, "NOPERM", MASTERS_RIGHTS),
    (
        ServerRole::Master,
        "READONLY",
        "this is a replica; the sentinels are asked for the master anew",
    ),
    (
        ServerRole::Master,
        WRONGPASS,
        "check user:password@ in store.redis.master_url",
    ),
    (
        ServerRole::Master,
        NO_REDIS,
        "no Redis listens there, or one that wants rediss:// in store.redis.master_url",
    ),
    (
        ServerRole::Sentinel,
        "ERR unknown command",
        "this is no sentinel; check the port in store.redis.urls",
    ),
    (
        ServerRole::Sentinel,
        "NOAUTH",
        "it wants a password; put user:password@ before its host in store.redis.urls",
    ),
    (
        ServerRole::Sentinel,
        "NOPERM",
        "its ACL must allow SENTINEL MASTER and SENTINEL GET-MASTER-ADDR-BY-NAME",
    ),
    (
        ServerRole::Sentinel,
        NO_REDIS,
        "no sentinel listens there, or one that wants rediss://; check store.redis.urls",
    ),
];

/// How the answer to a wrong password begins.
const WRONGPASS: &str = "WRONGPASS";

/// What stands for an answer that no Redis gives.
pub(super) const NO_REDIS: &str = "";

/// What can be done about a right that is missing at a master. Whether it is one is asked too.
const MASTERS_RIGHTS: &str = "the ACL must allow EVALSHA, EVAL, TIME, GET, SET, SETRANGE, PEXPIRE and DEL on all keys that begin with store.redis.key_prefix, SCAN and MGET for the operator's listing, ROLE, and SELECT where a database is named";

/// What can be done about a full server.
pub(super) const FULL: &str =
    "raise its maxmemory; streams that run go on, and what they free can be used again";

/// What can be done about a right that is missing. A script that lacks one says so in its own way, which differs from version to version.
const RIGHTS: &str = "the ACL must allow EVALSHA, EVAL, TIME, GET, SET, SETRANGE, PEXPIRE and DEL on all keys that begin with store.redis.key_prefix, SCAN and MGET for the operator's listing, and SELECT where a database is named";

/// What can be done where a cluster is.
const CLUSTER: &str = "this is a cluster, and store.redis.topology says that it is a single server";

/// What can be done where sentinels name a server of a cluster.
const MASTER_IN_CLUSTER: &str =
    "this is a cluster, which sentinels don't watch; check the servers that they name";

/// What can be done about a server that speaks no RESP3.
pub(super) const HELLO: &str = "streamgate speaks RESP3; Redis 6.2 or newer is needed, and a proxy before it must let HELLO 3 pass";

/// What can be done about a password that is not accepted.
const AUTHENTICATION: &str = "check user:password@ in store.redis.urls";

/// What can be done where something else than a Redis answers.
pub(super) const STRANGER: &str =
    "no Redis listens there, or one that wants rediss://; check store.redis.urls";

impl ServerRole {
    /// What can be done about an answer that begins so; that, unless it is another matter here.
    pub(super) fn hint(self, beginning: &str, usual: &'static str) -> &'static str {
        let other = ELSEWHERE
            .iter()
            .find(|(peer, begins, _)| *peer == self && *begins == beginning);
        other.map_or(usual, |(.., hint)| hint)
    }
}
