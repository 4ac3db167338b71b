//! Warns of a server that evicts keys: the one setting that we depend on and can't set ourselves. An evicting Redis forgets streams silently.

use redis::RedisError;
use redis::aio::MultiplexedConnection;

use super::server_info;

/// The only policy under which nothing is forgotten.
const REQUIRED: &str = "noeviction";

/// Remembers which policy was warned of, so that it is said once and not at each reconnection.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// The policy that was last warned of.
    warned_of: Option<String>,
}

impl Watch {
    /// Looks at the server's policy, and warns if it forgets streams. A server that won't tell is taken at its word in the documentation.
    /// The caller sets the deadline.
    ///
    /// # Errors
    /// The connection was lost.
    pub(super) async fn look(
        &mut self,
        link: &mut MultiplexedConnection,
        address: &str,
    ) -> Result<(), RedisError> {
        let Some(policy) = server_info::eviction_policy(link).await? else {
            tracing::debug!(address, "Redis does not tell its maxmemory-policy");
            return Ok(());
        };
        if policy == REQUIRED {
            self.warned_of = None;
        } else if self.warned_of.as_deref() != Some(policy.as_str()) {
            tracing::warn!(
                address,
                policy,
                "Redis may forget streams when its memory is full; set maxmemory-policy to {REQUIRED}"
            );
            self.warned_of = Some(policy);
        }
        Ok(())
    }
}
