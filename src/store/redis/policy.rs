//! What the server tells of itself: the one setting that we depend on and can't set ourselves (an evicting Redis forgets streams silently), and
//! which server it is.

use redis::aio::MultiplexedConnection;

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
    pub(super) async fn look(&mut self, link: &mut MultiplexedConnection, address: &str) {
        let Some(policy) = read(link).await else {
            tracing::debug!(address, "Redis does not tell its maxmemory-policy");
            return;
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
    }
}

/// The server's policy: as configured, or as it reports where the configuration may not be read.
pub(super) async fn read(link: &mut MultiplexedConnection) -> Option<String> {
    let mut ask = redis::cmd("CONFIG");
    ask.arg("GET").arg("maxmemory-policy");
    if let Ok((_, policy)) = ask.query_async::<(String, String)>(link).await {
        return Some(policy);
    }
    reported(link, "memory", "maxmemory_policy:").await
}

/// The id that the server gave itself when it started.
pub(super) async fn run_id(link: &mut MultiplexedConnection) -> Option<String> {
    reported(link, "server", "run_id:").await
}

/// What the server reports behind that name, in that section of `INFO`; none where we may not ask.
async fn reported(link: &mut MultiplexedConnection, section: &str, name: &str) -> Option<String> {
    let report: String = redis::cmd("INFO")
        .arg(section)
        .query_async(link)
        .await
        .ok()?;
    let line = report.lines().find_map(|line| line.strip_prefix(name));
    line.map(|value| value.trim().to_owned())
}
