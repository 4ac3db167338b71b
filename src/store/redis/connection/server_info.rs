//! What the server reports about itself.

use redis::RedisError;
use redis::aio::MultiplexedConnection;

/// The server's `maxmemory-policy`: from its configuration, or from `INFO` if the configuration may
/// not be read; `None` if neither may be read.
///
/// # Errors
/// The connection was lost.
pub(in crate::store::redis) async fn eviction_policy(
    link: &mut MultiplexedConnection,
) -> Result<Option<String>, RedisError> {
    match configured(link, "maxmemory-policy").await? {
        Some(policy) => Ok(Some(policy)),
        None => reported(link, "memory", "maxmemory_policy:").await,
    }
}

/// Whether a node of a cluster serves nothing while any slot has no master; `None` outside a
/// cluster, or if the configuration may not be read.
///
/// # Errors
/// The connection was lost.
pub(in crate::store::redis) async fn requires_full_coverage(
    link: &mut MultiplexedConnection,
) -> Result<Option<bool>, RedisError> {
    let cluster = reported(link, "cluster", "cluster_enabled:").await?;
    if cluster.as_deref() != Some("1") {
        return Ok(None);
    }
    let coverage = configured(link, "cluster-require-full-coverage").await?;
    Ok(coverage.map(|coverage| coverage == "yes"))
}

/// The value of a setting; `None` if it may not be read.
async fn configured(
    link: &mut MultiplexedConnection,
    name: &str,
) -> Result<Option<String>, RedisError> {
    let mut ask = redis::cmd("CONFIG");
    ask.arg("GET").arg(name);
    let setting = permitted(ask.query_async::<(String, String)>(link).await)?;
    Ok(setting.map(|(_, value)| value))
}

/// The id that the server chose when it started; `None` if the ACL doesn't let us read it.
///
/// # Errors
/// The connection was lost.
pub(in crate::store::redis) async fn run_id(
    link: &mut MultiplexedConnection,
) -> Result<Option<String>, RedisError> {
    reported(link, "server", "run_id:").await
}

/// The value of a field in a section of `INFO`.
async fn reported(
    link: &mut MultiplexedConnection,
    section: &str,
    name: &str,
) -> Result<Option<String>, RedisError> {
    let mut ask = redis::cmd("INFO");
    ask.arg(section);
    let report = permitted(ask.query_async::<String>(link).await)?.unwrap_or_default();
    let line = report.lines().find_map(|line| line.strip_prefix(name));
    Ok(line.map(|value| value.trim().to_owned()))
}

/// The answer; `None` if the server refused, or its answer has another type.
fn permitted<T>(answer: Result<T, RedisError>) -> Result<Option<T>, RedisError> {
    match answer {
        Ok(told) => Ok(Some(told)),
        // Not `is_unrecoverable_error`, which is also true for an answer of another type.
        Err(error) if error.is_io_error() => Err(error),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::redis::connection::link::tests::connection;

    #[tokio::test]
    async fn a_lost_connection_is_an_error_not_a_refusal() {
        for answers in [&b"-NOPERM no\r\n"[..], b"$-1\r\n", b"+what?\r\n"] {
            let mut link = connection(Some(answers)).await;
            assert_eq!(run_id(&mut link).await, Ok(None));
            assert_eq!(eviction_policy(&mut link).await, Ok(None));
            assert_eq!(requires_full_coverage(&mut link).await, Ok(None));
        }
        let mut link = connection(None).await;
        assert!(run_id(&mut link).await.is_err());
        assert!(eviction_policy(&mut link).await.is_err());
        assert!(requires_full_coverage(&mut link).await.is_err());
    }
}
