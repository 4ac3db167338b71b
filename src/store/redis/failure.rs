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
    let text = error.to_string();
    match error.kind() {
        ErrorKind::Io => StoreError::Disconnected(text),
        ErrorKind::AuthenticationFailed => StoreError::Rejected(text),
        ErrorKind::Server(_) | ErrorKind::Extension => {
            of_answer(error.code().unwrap_or_default(), text)
        }
        _ => StoreError::Protocol(text),
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
    matches!(error, StoreError::Rejected(text) if text.contains("READONLY"))
}

/// What an error that the server has answered means. Before Redis 7 the code of an error within a script is inside its text, behind a hyphen.
fn of_answer(code: &str, text: String) -> StoreError {
    let says = |word: &str| code == word || text.contains(&format!("-{word} "));
    if says("OOM") || text.contains("OOM command not allowed") {
        StoreError::Full(text)
    } else if REFUSALS.into_iter().any(says) {
        StoreError::Rejected(text)
    } else {
        StoreError::Protocol(text)
    }
}
