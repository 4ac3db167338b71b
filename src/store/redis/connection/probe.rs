//! Checks whether the operations would succeed now. It runs the same commands on a key that is
//! always empty, and changes nothing.
//!
//! A mere `PING` isn't enough: a replica answers it, and so does a server whose ACL allows nothing
//! else. A caller that stops when operations fail and resumes when the probe succeeds would then
//! resume in vain. A full server must still pass, because renewals and releases work there.

use crate::store::redis::codec::script::Script;

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

/// The script that probes a key that is always empty.
pub(in crate::store::redis) fn script() -> Script {
    Script::new(SCRIPT.to_owned())
}
