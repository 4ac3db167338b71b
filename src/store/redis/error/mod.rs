//! Translates errors of the client library and the server into the store's: the server's reason,
//! and what you can do about it. None contains a secret: the library puts neither password nor URL
//! into its errors, and we add none. `connection::target` removes what a server quotes of a HELLO
//! that it doesn't know.

mod answers;

use std::time::Duration;

use redis::{ConnectionAddr, ConnectionInfo, ErrorKind, RedisError};

pub(super) use self::answers::ServerRole;
use self::answers::{ANSWERS, FULL, HELLO, Meaning, NO_REDIS, STRANGER};
use crate::store::StoreError;

/// How a server that has reached its `maxmemory` answers, in every version.
pub(super) const OUT_OF_MEMORY: &str = "OOM command not allowed";

/// What an ACL's answer to a forbidden `SELECT` contains. Versions differ in the words before it.
const NO_SELECT: &str = "has no permissions to run the 'select' command";

/// The error of a call that was made.
pub(super) fn of_call(error: &RedisError, peer: ServerRole) -> StoreError {
    match error.kind() {
        ErrorKind::Io => StoreError::Disconnected(error.to_string()),
        ErrorKind::Server(_) | ErrorKind::Extension => {
            let detail = error.detail().unwrap_or_default();
            let code = match error.code().unwrap_or_default() {
                // The library drops the code of a refused SELECT.
                _ if detail.contains(NO_SELECT) => "NOPERM",
                code => code,
            };
            of_answer(&format!("{code} {detail}"), peer)
        }
        ErrorKind::RESP3NotSupported => StoreError::Rejected(with("it does not know HELLO", HELLO)),
        ErrorKind::Parse => {
            let hint = peer.hint(NO_REDIS, STRANGER);
            StoreError::Protocol(with(&error.to_string(), hint))
        }
        _ => StoreError::Protocol(error.to_string()),
    }
}

/// The error of a connection attempt. Any other answer at that point means that the server refuses
/// us.
pub(super) fn of_connecting(error: &RedisError, peer: ServerRole) -> StoreError {
    match of_call(error, peer) {
        StoreError::Protocol(text) => StoreError::Rejected(text),
        other => other,
    }
}

/// The error of a call that isn't made because of that failure.
pub(super) fn of_no_call(failure: StoreError) -> StoreError {
    match failure {
        StoreError::Timeout(_) | StoreError::Disconnected(_) => {
            StoreError::NotAsked(failure.to_string())
        }
        StoreError::NotAsked(_)
        | StoreError::Full(_)
        | StoreError::Rejected(_)
        | StoreError::Protocol(_) => failure,
    }
}

/// The error of a connection that the peer closed.
pub(super) fn of_an_end() -> StoreError {
    StoreError::Disconnected("the server, or something on the way to it, closed it".to_owned())
}

/// The error of a connection whose server has become a replica.
pub(super) fn of_a_replica(peer: ServerRole) -> StoreError {
    of_answer("READONLY it has become a replica", peer)
}

/// The error of a connection attempt to a server that sent nothing within that time. A server that
/// waits for the client to speak first also looks silent.
pub(super) fn of_silence(limit: Duration, server: &ConnectionInfo) -> StoreError {
    let silent = StoreError::Timeout(limit);
    match server.addr() {
        ConnectionAddr::TcpTls { .. } => {
            StoreError::Disconnected(format!("{silent}, or it doesn't use TLS there"))
        }
        _ => silent,
    }
}

/// The error of a connection attempt to one of several servers, with its name.
pub(super) fn at(server: &str, failure: StoreError) -> StoreError {
    match failure {
        StoreError::Rejected(text) => StoreError::Rejected(format!("{server}: {text}")),
        StoreError::Disconnected(text) => StoreError::Disconnected(format!("{server}: {text}")),
        other => StoreError::Disconnected(format!("{server}: {other}")),
    }
}

/// The error of a call to one of several servers, with its name.
pub(super) fn named(server: &str, failure: StoreError) -> StoreError {
    let name = |text| format!("{server}: {text}");
    match failure {
        StoreError::Timeout(limit) => StoreError::Timeout(limit),
        StoreError::Disconnected(text) => StoreError::Disconnected(name(text)),
        StoreError::NotAsked(text) => StoreError::NotAsked(name(text)),
        StoreError::Full(text) => StoreError::Full(name(text)),
        StoreError::Rejected(text) => StoreError::Rejected(name(text)),
        StoreError::Protocol(text) => StoreError::Protocol(name(text)),
    }
}

/// Whether the server reported that it has become a replica.
pub(super) fn tells_of_a_replica(error: &StoreError) -> bool {
    matches!(error, StoreError::Rejected(text) if says(text, "READONLY"))
}

/// Translates an error that the server returned.
fn of_answer(text: &str, peer: ServerRole) -> StoreError {
    if text.contains(OUT_OF_MEMORY) {
        return StoreError::Full(with(text, FULL));
    }
    let known = ANSWERS.iter().find(|(beginning, ..)| says(text, beginning));
    let Some((beginning, meaning, usual)) = known else {
        return StoreError::Protocol(text.to_owned());
    };
    let told = with(text, peer.hint(beginning, usual));
    match meaning {
        Meaning::Full => StoreError::Full(told),
        Meaning::Refused => StoreError::Rejected(told),
        Meaning::Foreign => StoreError::Protocol(told),
    }
}

/// Joins a reason and a hint.
fn with(reason: &str, hint: &str) -> String {
    format!("{} ({hint})", reason.trim_end_matches(['.', ' ']))
}

/// Whether an answer begins with that text. Before Redis 7 the code of an error within a script is
/// inside its text, after a hyphen. Where the code is `ERR`, it is left out there.
fn says(text: &str, beginning: &str) -> bool {
    let begins = |text: &str| {
        text.strip_prefix(beginning)
            .is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_alphanumeric()))
    };
    let begins_in_script = |plain: &str| text.split(": ").any(|part| part.starts_with(plain));
    begins(text)
        || text.split(" -").skip(1).any(begins)
        || beginning.strip_prefix("ERR ").is_some_and(begins_in_script)
}

#[cfg(test)]
mod tests {
    use super::answers::ELSEWHERE;
    use super::*;

    /// The client library's error for a line that the server sends.
    fn answer(line: &str) -> RedisError {
        let value = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap();
        value.extract_error().unwrap_err()
    }

    #[test]
    fn each_server_error_is_full_refused_or_unknown() {
        for line in [
            "OOM command not allowed when used memory > 'maxmemory'. script: f00, on @user_script:5.",
            "ERR Error running script (call to f_f00): @user_script:5: @user_script: 5: -OOM command not allowed when used memory > 'maxmemory'.",
        ] {
            assert!(
                matches!(
                    of_call(&answer(line), ServerRole::Standalone),
                    StoreError::Full(_)
                ),
                "{line}"
            );
        }
        for line in [
            "LOADING Redis is loading the dataset in memory",
            "READONLY You can't write against a read only replica.",
            "ERR Error running script (call to f_f00): @user_script:5: -READONLY You can't write against a read only replica.",
            "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
            "NOAUTH Authentication required.",
            "WRONGPASS invalid username-password pair or user is disabled.",
            "NOPERM this user has no permissions to run the 'evalsha' command",
            "ERR The user executing the script can't run this command or subcommand script: f00, on @user_script:2.",
            "ERR ACL failure in script: User gate has no permissions to run the 'set' command script: f00, on @user_script:2.",
            "ERR Error running script (call to f_f00): @user_script:2: @user_script: 2: The user executing the script can't run this command or subcommand",
            "ERR Error running script (call to f_f00): @user_script:2: -NOPERM The user executing the script can't run this command or subcommand",
            "MISCONF Redis is configured to save RDB snapshots, but it is currently unable to persist to disk.",
            "NOREPLICAS Not enough good replicas to write.",
            "BUSY Redis is busy running a script.",
            "CLUSTERDOWN The cluster is down",
            "MOVED 3999 127.0.0.1:6381",
        ] {
            assert!(
                matches!(
                    of_call(&answer(line), ServerRole::Standalone),
                    StoreError::Rejected(_)
                ),
                "{line}"
            );
        }
        for line in [
            "WRONGTYPE Operation against a key holding the wrong kind of value",
            "FOREIGN the data at this key is not a roster",
            "ERR unknown command 'EVALSHA'",
            "ERR user_script:5: bad argument #2 to 'unpack' (data string too short)",
        ] {
            let error = answer(line);
            assert!(
                matches!(
                    of_call(&error, ServerRole::Standalone),
                    StoreError::Protocol(_)
                ),
                "{line}"
            );
            assert!(
                matches!(
                    of_connecting(&error, ServerRole::Standalone),
                    StoreError::Rejected(_)
                ),
                "{line}"
            );
        }
    }

    #[test]
    fn known_errors_have_hints() {
        for (line, said) in [
            (
                "READONLY You can't write against a read only replica.",
                "it refused: READONLY You can't write against a read only replica (this is a replica; point store.redis.urls at the master)",
            ),
            (
                "LOADING Redis is loading the dataset in memory",
                "it refused: LOADING Redis is loading the dataset in memory (it will answer once it has loaded)",
            ),
            (
                "MOVED 3999 127.0.0.1:6381",
                "it refused: MOVED 3999 127.0.0.1:6381 (this is a cluster, and store.redis.topology says that it is a single server)",
            ),
            (
                "BUSYKEY Target key name already exists.",
                "its answer can't be decoded: BUSYKEY Target key name already exists.",
            ),
        ] {
            assert_eq!(
                of_call(&answer(line), ServerRole::Standalone).to_string(),
                said
            );
        }
        let twice: Vec<_> = ANSWERS
            .iter()
            .filter(|(text, ..)| {
                ANSWERS
                    .iter()
                    .filter(|(other, ..)| says(text, other))
                    .count()
                    != 1
            })
            .collect();
        assert!(twice.is_empty(), "{twice:?}");
    }

    #[test]
    fn a_call_not_made_differs_from_a_failed_call() {
        let broken = StoreError::Disconnected("reset".to_owned());
        assert_eq!(
            of_no_call(broken),
            StoreError::NotAsked("no connection: reset".to_owned())
        );
        assert!(matches!(
            of_no_call(of_a_replica(ServerRole::Standalone)),
            StoreError::Rejected(_)
        ));
    }

    #[test]
    fn a_broken_connection_counts_as_disconnected() {
        let error = RedisError::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert!(matches!(
            of_call(&error, ServerRole::Standalone),
            StoreError::Disconnected(_)
        ));
        assert!(matches!(
            of_connecting(&error, ServerRole::Standalone),
            StoreError::Disconnected(_)
        ));
    }

    #[test]
    fn a_replica_is_distinguished_from_other_refusals() {
        let replica = of_call(
            &answer("READONLY You can't write against a read only replica."),
            ServerRole::Standalone,
        );
        assert!(tells_of_a_replica(&replica));
        assert!(!tells_of_a_replica(&of_call(
            &answer("LOADING data"),
            ServerRole::Standalone
        )));
    }

    #[test]
    fn hints_depend_on_the_server_s_role() {
        for (peer, line, hint) in [
            (
                ServerRole::Standalone,
                "NOAUTH Authentication required.",
                "into store.redis.urls",
            ),
            (
                ServerRole::Master,
                "NOAUTH Authentication required.",
                "into store.redis.master_url",
            ),
            (
                ServerRole::Sentinel,
                "NOAUTH Authentication required.",
                "before its host in store.redis.urls",
            ),
            (
                ServerRole::Master,
                "READONLY You can't write against a read only replica.",
                "asking the sentinels for the master again",
            ),
            (
                ServerRole::Sentinel,
                "ERR unknown command 'SENTINEL'",
                "this is not a sentinel",
            ),
            (
                ServerRole::Sentinel,
                "ERR No such master with that name",
                "check store.redis.sentinel_service",
            ),
            (
                ServerRole::Sentinel,
                "NOPERM this user has no permissions to run the 'sentinel|master' command",
                "SENTINEL GET-MASTER-ADDR-BY-NAME",
            ),
            (
                ServerRole::Master,
                "LOADING Redis is loading the dataset in memory",
                "once it has loaded",
            ),
        ] {
            let said = of_call(&answer(line), peer).to_string();
            assert!(said.contains(hint), "{peer:?}: {said}");
        }
        for (peer, beginning, _) in ELSEWHERE {
            let is_known = ANSWERS.iter().any(|(known, ..)| *known == beginning);
            assert!(is_known || beginning == NO_REDIS, "{peer:?}: {beginning}");
        }
    }

    #[test]
    fn hints_for_clusters_and_rights_fit_the_topology() {
        let (single, master) = (ServerRole::Standalone, ServerRole::Master);
        let no_select = "ERR this user has no permissions to run the 'select' command";
        let no_select_either = "ERR User gate has no permissions to run the 'select' command";
        let no_database = "ERR SELECT is not allowed in cluster mode";
        for (peer, line, hint) in [
            (single, "MOVED 3999 127.0.0.1:6381", "it is a single server"),
            (master, "MOVED 3999 127.0.0.1:6381", "sentinels don't watch"),
            (master, "ASK 3999 127.0.0.1:6381", "sentinels don't watch"),
            (master, "CROSSSLOT Keys don't", "sentinels don't watch"),
            (single, no_database, "the end of the URL"),
            (master, no_database, "sentinels don't watch clusters"),
            (single, no_select, "SELECT if a database is named"),
            (master, no_select, "ROLE, and SELECT if"),
            (single, no_select_either, "SELECT if a database is named"),
            (master, no_select_either, "ROLE, and SELECT if"),
        ] {
            let said = of_call(&answer(line), peer).to_string();
            assert!(said.contains(hint), "{peer:?}: {said}");
        }
    }

    #[test]
    fn silence_on_tls_hints_at_a_server_without_tls() {
        let silence = |url: &str| {
            let server = url.parse().unwrap();
            of_silence(Duration::from_secs(1), &server).to_string()
        };
        assert_eq!(silence("redis://a"), "no answer within 1s");
        assert_eq!(
            silence("rediss://a"),
            "no connection: no answer within 1s, or it doesn't use TLS there"
        );
    }

    #[test]
    fn a_failure_names_its_server() {
        let refused = StoreError::Disconnected("refused".to_owned());
        assert_eq!(
            at("a:1", refused).to_string(),
            "no connection: a:1: refused"
        );
        let late = StoreError::Timeout(Duration::from_secs(1));
        assert_eq!(
            at("a:1", late).to_string(),
            "no connection: a:1: no answer within 1s"
        );
    }
}
