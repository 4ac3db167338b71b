//! Checks whether the operations would succeed now. It runs the same commands on a key that is
//! always empty, and changes nothing.
//!
//! A mere `PING` isn't enough: a replica answers it, and so does a server whose ACL allows nothing
//! else. A caller that stops when operations fail and resumes when the probe succeeds would then
//! resume in vain. A full server must still pass, because renewals and releases work there.

use std::fmt;

use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Calls each command that the scripts call. `DEL` comes first: a full Redis refuses commands that
/// may need memory until a script has written something. None has an effect on an empty key, so
/// nothing is replicated either.
const SCRIPT: &str = "\
redis.call('DEL', KEYS[1])
redis.call('TIME')
redis.call('GET', KEYS[1])
redis.call('SETRANGE', KEYS[1], 0, '')
redis.call('SET', KEYS[1], '', 'XX', 'PX', 1)
return redis.call('PEXPIRE', KEYS[1], 1)
";

/// The probe for one installation's keys.
pub(in crate::store::redis) struct Probe {
    /// The script and its digest.
    script: redis::Script,
    /// A key that is always empty.
    key: String,
}

impl Probe {
    /// A probe of that key.
    pub(in crate::store::redis) fn new(key: String) -> Self {
        Self {
            script: redis::Script::new(SCRIPT),
            key,
        }
    }

    /// Runs like an operation: by the digest, and with the text if the server doesn't know the
    /// digest.
    ///
    /// # Errors
    /// The operations would fail, for the given reason.
    pub(in crate::store::redis) async fn call(
        &self,
        link: &mut MultiplexedConnection,
    ) -> Result<(), RedisError> {
        let ask = |name, script| {
            redis::cmd(name)
                .arg(script)
                .arg(1)
                .arg(&self.key)
                .to_owned()
        };
        let by_digest = ask("EVALSHA", self.script.get_hash());
        match by_digest.query_async(link).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                ask("EVAL", SCRIPT).query_async(link).await
            }
            answer => answer,
        }
    }
}

impl fmt::Debug for Probe {
    /// Shows the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Probe({})", self.key)
    }
}
