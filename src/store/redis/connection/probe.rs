//! The question whether the operations could be done now. It does what they do, on a key where nothing is, and changes nothing.
//!
//! A mere `PING` would not do: a replica answers it, and so does a server that lets us do nothing else; whoever stops asking when
//! operations fail and goes on when this succeeds would go on in vain. A full server has to answer it nevertheless, since renewals and
//! releases still work there.

use std::fmt;

use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Calls each command that the scripts call. `DEL` comes first: a full Redis refuses what may take memory until a script has written something.
/// None has an effect where nothing is, so that none is replicated either.
const SCRIPT: &str = "\
redis.call('DEL', KEYS[1])
redis.call('TIME')
redis.call('GET', KEYS[1])
redis.call('SETRANGE', KEYS[1], 0, '')
redis.call('SET', KEYS[1], '', 'XX', 'PX', 1)
return redis.call('PEXPIRE', KEYS[1], 1)
";

/// The question, about one installation's keys.
pub(in crate::store::redis) struct Probe {
    /// The script, and with it the digest.
    script: redis::Script,
    /// A key where nothing ever is.
    key: String,
}

impl Probe {
    /// A question about that key.
    pub(in crate::store::redis) fn new(key: String) -> Self {
        Self {
            script: redis::Script::new(SCRIPT),
            key,
        }
    }

    /// Asks as the operations do: by the digest, and with the text if the server does not know that.
    ///
    /// # Errors
    /// The operations could not be done, for that reason.
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
