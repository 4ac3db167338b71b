//! What the client library and the server call an error, in the store's own words. None of it holds a secret: the library puts neither
//! password nor URL into its errors, and we add none.

use redis::{ErrorKind, RedisError};

use crate::store::StoreError;

/// What a server says that refuses for now, or refuses us: it has done nothing, and a later call may succeed.
const REFUSALS: [&str; 19] = [
    "ASK",
    "BUSY",
    "CLUSTERDOWN",
    "CROSSSLOT",
    "DENIED",
    "EXECABORT",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "MOVED",
    "NOAUTH",
    "NOPERM",
    "NOPROTO",
    "NOREPLICAS",
    "READONLY",
    "TRYAGAIN",
    "UNKILLABLE",
    "WRONGPASS",
    "NOSCRIPT",
];

/// The failure of a call.
pub(super) fn of_call(error: &RedisError) -> StoreError {
    match error.kind() {
        ErrorKind::Io => StoreError::Disconnected(error.to_string()),
        ErrorKind::AuthenticationFailed => StoreError::Rejected(error.to_string()),
        ErrorKind::Server(_) | ErrorKind::Extension => {
            let code = error.code().unwrap_or_default();
            of_answer(format!("{code} {}", error.detail().unwrap_or_default()))
        }
        _ => StoreError::Protocol(error.to_string()),
    }
}

/// The failure to connect. Whatever else the server answers then, it does not want us.
pub(super) fn of_connecting(error: &RedisError) -> StoreError {
    match of_call(error) {
        StoreError::Protocol(text) => StoreError::Rejected(text),
        other => other,
    }
}

/// Whether the server said that it has become a replica.
pub(super) fn tells_of_a_replica(error: &StoreError) -> bool {
    matches!(error, StoreError::Rejected(text) if says(text, "READONLY"))
}

/// What an error that the server has answered means.
fn of_answer(text: String) -> StoreError {
    if says(&text, "OOM") || text.contains("OOM command not allowed") {
        StoreError::Full(text)
    } else if REFUSALS.into_iter().any(|code| says(&text, code)) {
        StoreError::Rejected(text)
    } else {
        StoreError::Protocol(text)
    }
}

/// Whether an answer has that code. Before Redis 7 the code of an error within a script is inside its text, behind a hyphen.
fn says(text: &str, code: &str) -> bool {
    let is_code = |rest: &str| {
        rest.strip_prefix(code)
            .is_some_and(|rest| rest.starts_with(' '))
    };
    is_code(text) || text.split(" -").skip(1).any(is_code)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the client library makes of an error that the server answers.
    fn answer(line: &str) -> RedisError {
        let value = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap();
        value.extract_error().unwrap_err()
    }

    #[test]
    fn what_the_server_answers_is_full_refused_or_not_understood() {
        for line in [
            "OOM command not allowed when used memory > 'maxmemory'. script: f00, on @user_script:5.",
            "ERR Error running script (call to f_f00): @user_script:5: @user_script: 5: -OOM command not allowed when used memory > 'maxmemory'.",
        ] {
            assert!(
                matches!(of_call(&answer(line)), StoreError::Full(_)),
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
            "MISCONF Redis is configured to save RDB snapshots, but it is currently unable to persist to disk.",
            "NOREPLICAS Not enough good replicas to write.",
            "BUSY Redis is busy running a script.",
            "CLUSTERDOWN The cluster is down",
            "MOVED 3999 127.0.0.1:6381",
        ] {
            assert!(
                matches!(of_call(&answer(line)), StoreError::Rejected(_)),
                "{line}"
            );
        }
        for line in [
            "WRONGTYPE Operation against a key holding the wrong kind of value",
            "FOREIGN what is at this key is no roster",
            "ERR unknown command 'EVALSHA'",
            "ERR user_script:5: bad argument #2 to 'unpack' (data string too short)",
        ] {
            let error = answer(line);
            assert!(matches!(of_call(&error), StoreError::Protocol(_)), "{line}");
            assert!(
                matches!(of_connecting(&error), StoreError::Rejected(_)),
                "{line}"
            );
        }
    }

    #[test]
    fn a_broken_connection_is_none() {
        let error = RedisError::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert!(matches!(of_call(&error), StoreError::Disconnected(_)));
        assert!(matches!(of_connecting(&error), StoreError::Disconnected(_)));
    }

    #[test]
    fn a_replica_is_told_from_other_refusals() {
        let replica = of_call(&answer(
            "READONLY You can't write against a read only replica.",
        ));
        assert!(tells_of_a_replica(&replica));
        assert!(!tells_of_a_replica(&of_call(&answer("LOADING data"))));
    }
}
