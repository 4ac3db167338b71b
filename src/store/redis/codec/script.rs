//! The Lua scripts: put together, loaded, called by their digest, and loaded again when the server has forgotten them.

use std::fmt;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, RedisError, ServerErrorKind, Value};

use super::record::{HEAD, VERSION};
use crate::session::{EndList, MAX_PUT_BACK, PROVEN_AFTER, PROVISIONAL_LEASE, Terms};

/// One operation as a script.
pub(in crate::store::redis) struct Script {
    /// The text, and with it the digest.
    inner: redis::Script,
    /// The text once more, for the server that does not know the digest.
    source: String,
}

/// All of them.
#[derive(Debug)]
pub(in crate::store::redis) struct Scripts {
    /// May this session start?
    pub(in crate::store::redis) admit: Script,
    /// This stream was seen running.
    pub(in crate::store::redis) renew: Script,
    /// These streams were seen running.
    pub(in crate::store::redis) renew_all: Script,
    /// A request of this session got through to its viewer.
    pub(in crate::store::redis) played: Script,
    /// This session is over.
    pub(in crate::store::redis) release: Script,
    /// The roster as it stands.
    pub(in crate::store::redis) list: Script,
}

impl Scripts {
    /// The scripts for those terms. The terms are part of the text: they are the same for every call, and an argument costs more than all
    /// that is done with it.
    pub(in crate::store::redis) fn new(terms: &Terms) -> Self {
        let terms = preamble(terms);
        let see = include_str!("lua/see.lua");
        let make = |parts: &[&str]| {
            let text = parts.concat();
            Script::new(text.replace("--@include see.lua\n", see))
        };
        let (open, close) = (include_str!("lua/open.lua"), include_str!("lua/close.lua"));
        let (touch, live) = (include_str!("lua/touch.lua"), include_str!("lua/live.lua"));
        let renew = include_str!("lua/renew.lua");
        Self {
            admit: make(&[&terms, open, include_str!("lua/admit.lua"), close]),
            // The renewal of one is spared the call of a function, which costs as much as the search for the session.
            renew: make(&[
                &terms,
                live,
                touch,
                "if till then return till end\n",
                open,
                renew,
                close,
            ]),
            renew_all: make(&[
                &terms,
                "local function touch(name, key, now, lease)\n",
                touch,
                "return till\nend\n",
                include_str!("lua/renew_all.lua"),
            ]),
            played: make(&[&terms, open, include_str!("lua/played.lua"), close]),
            release: make(&[&terms, open, include_str!("lua/release.lua"), close]),
            list: make(&[include_str!("lua/list.lua")]),
        }
    }

    /// Has the server learn all scripts, in one round trip.
    ///
    /// # Errors
    /// The server can't be asked, or forbids it. They can be called all the same.
    pub(in crate::store::redis) async fn load(
        &self,
        link: &mut MultiplexedConnection,
    ) -> Result<(), RedisError> {
        let mut commands = redis::pipe();
        for script in [
            &self.admit,
            &self.renew,
            &self.renew_all,
            &self.played,
            &self.release,
            &self.list,
        ] {
            commands
                .cmd("SCRIPT")
                .arg("LOAD")
                .arg(&script.source)
                .ignore();
        }
        commands.query_async(link).await
    }
}

impl Script {
    /// A script of that text.
    fn new(source: String) -> Self {
        Self {
            inner: redis::Script::new(&source),
            source,
        }
    }

    /// Runs the script on these keys. A server that has forgotten it has done nothing yet, and is given the text.
    ///
    /// # Errors
    /// The server can't be asked, or answers with an error.
    pub(in crate::store::redis) async fn call(
        &self,
        link: &mut MultiplexedConnection,
        keys: &[String],
        arguments: &[&[u8]],
    ) -> Result<Value, RedisError> {
        let ask = |command: &str, script: &str| {
            let mut ask = redis::cmd(command);
            ask.arg(script).arg(keys.len()).arg(keys).arg(arguments);
            ask
        };
        match ask("EVALSHA", self.inner.get_hash())
            .query_async(link)
            .await
        {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                ask("EVAL", &self.source).query_async(link).await
            }
            answer => answer,
        }
    }
}

impl fmt::Debug for Script {
    /// Shows the digest; the text is long.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Script({})", self.inner.get_hash())
    }
}

/// The constants of the scripts: those of the format and the rule, and what this instance grants. A key is kept for twice as long as anything
/// that this instance writes in it can last, so that most renewals need not prolong it.
fn preamble(terms: &Terms) -> String {
    let (longest, memory) = (millis(terms.longest_lease), millis(terms.memory));
    let (margin, refill) = (millis(terms.margin()), millis(terms.refill).max(1));
    let keep = 2 * longest.max(memory).max(1);
    let (proven, provisional) = (millis(PROVEN_AFTER), millis(PROVISIONAL_LEASE));
    let (live_ends, other_ends) = (EndList::Live.room(), EndList::Stranger.room());
    // Nothing, no tombstone that ends, and no notes.
    let empty = [&[VERSION][..], &[0; HEAD - 9], &[u8::MAX; 6], &[0; 2]].concat();
    let empty: String = empty.iter().map(|byte| format!("\\{byte:03}")).collect();
    format!(
        "local VERSION, EMPTY = {VERSION}, '{empty}'\n\
         local MEMORY, MARGIN, REFILL, KEEP, KEEP_TEXT = {memory}, {margin}, {refill}, {keep}, '{keep}'\n\
         local PROVEN, PROVISIONAL, PUT_BACK, LIVE_ENDS, OTHER_ENDS = {proven}, {provisional}, {MAX_PUT_BACK}, {live_ends}, {other_ends}\n"
    )
}

/// A span in milliseconds, and no longer than what a record has room for: some two thousand years.
pub(in crate::store::redis) fn millis(span: Duration) -> u64 {
    const MOST: u64 = 1 << 46;
    u64::try_from(span.as_millis()).unwrap_or(MOST).min(MOST)
}
