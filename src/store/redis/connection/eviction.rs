//! Warns about a server that evicts keys, the one setting that we depend on and can't set
//! ourselves. An evicting Redis loses streams silently.

use redis::RedisError;
use redis::aio::MultiplexedConnection;

use super::server_info;

/// The only policy that never evicts.
const REQUIRED: &str = "noeviction";

/// Remembers the policy of the last warning, so that we warn once and not at each reconnection.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// The policy of the last warning.
    warned_of: Option<String>,
}

impl Watch {
    /// Checks the server's policy and warns if it evicts. If the server doesn't say, we assume that
    /// it follows our documentation. The caller sets the deadline.
    ///
    /// # Errors
    /// The connection was lost.
    pub(super) async fn look(
        &mut self,
        link: &mut MultiplexedConnection,
        address: &str,
    ) -> Result<(), RedisError> {
        let Some(policy) = server_info::eviction_policy(link).await? else {
            tracing::debug!(address, "Redis doesn't let us read its maxmemory-policy");
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
