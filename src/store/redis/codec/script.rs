//! The Lua scripts: assembled, loaded, called by their digest, and loaded again when the server has
//! lost them.

use std::fmt;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, RedisError, ServerErrorKind, Value};

use super::layout::{self, RecordVersions};
use super::question::Question;
use crate::session::Terms;
use crate::store::redis::route::CallLink;

/// One operation as a script.
pub(in crate::store::redis) struct Script {
    /// The text and its digest.
    inner: redis::Script,
    /// The text again, for a server that doesn't know the digest.
    source: String,
}

/// All scripts.
#[derive(Debug)]
pub(in crate::store::redis) struct Scripts {
    /// Starts a session.
    pub(in crate::store::redis) admit: Script,
    /// Handles a sighting.
    pub(in crate::store::redis) renew: Script,
    /// Handles many sightings.
    pub(in crate::store::redis) renew_all: Script,
    /// Records that a request of a session reached its viewer.
    pub(in crate::store::redis) played: Script,
    /// Ends a session.
    pub(in crate::store::redis) release: Script,
    /// Returns the roster unchanged.
    pub(in crate::store::redis) list: Script,
    /// Sets or clears the limit of one user.
    pub(in crate::store::redis) override_limit: Script,
}

impl Scripts {
    /// The scripts for those terms and format versions. The terms are part of the text, because
    /// they are the same for every call and passing them as arguments would cost more.
    pub(in crate::store::redis) fn new(terms: &Terms, versions: RecordVersions) -> Self {
        let names = layout::names(terms, versions);
        let see = include_str!("lua/see.lua");
        let make = |parts: &[&str]| {
            let text = parts.concat().replace("--@include see.lua\n", see);
            Script::new(layout::resolve(&text, &names))
        };
        let (open, close) = (include_str!("lua/open.lua"), include_str!("lua/close.lua"));
        let (touch, live) = (include_str!("lua/touch.lua"), include_str!("lua/live.lua"));
        let (over, renew) = (
            include_str!("lua/override.lua"),
            include_str!("lua/renew.lua"),
        );
        Self {
            admit: make(&[open, over, include_str!("lua/admit.lua"), close]),
            // The single renewal avoids a function call, which costs as much as the search for the
            // session.
            renew: make(&[
                "do\n",
                live,
                touch,
                "if till then return till end\nend\n",
                open,
                over,
                renew,
                close,
            ]),
            renew_all: make(&[
                "local function touch(name, key, now, lease)\n",
                touch,
                "return till\nend\n",
                include_str!("lua/renew_all.lua"),
            ]),
            played: make(&[open, include_str!("lua/played.lua"), close]),
            release: make(&[open, include_str!("lua/release.lua"), close]),
            list: make(&[include_str!("lua/list.lua")]),
            override_limit: make(&[include_str!("lua/override_limit.lua")]),
        }
    }

    /// All scripts by name.
    fn all(&self) -> [(&'static str, &Script); 7] {
        [
            ("admit", &self.admit),
            ("renew", &self.renew),
            ("renew_all", &self.renew_all),
            ("played", &self.played),
            ("release", &self.release),
            ("list", &self.list),
            ("override_limit", &self.override_limit),
        ]
    }

    /// Loads all scripts into the server in one round trip.
    ///
    /// # Errors
    /// The server can't be reached, or forbids it. The scripts can be called all the same.
    pub(in crate::store::redis) async fn load(
        &self,
        link: &mut MultiplexedConnection,
    ) -> Result<(), RedisError> {
        let mut commands = redis::pipe();
        for (_, script) in self.all() {
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
    /// A script with that text.
    pub(in crate::store::redis) fn new(source: String) -> Self {
        Self {
            inner: redis::Script::new(&source),
            source,
        }
    }

    /// Runs the script on these keys. If the server doesn't have it, nothing has been done yet, and
    /// we send the text to the same server.
    ///
    /// # Errors
    /// The server can't be reached, or answers with an error.
    pub(in crate::store::redis) async fn call(
        &self,
        mut link: CallLink,
        keys: &[String],
        arguments: &[&[u8]],
    ) -> Result<Value, RedisError> {
        let ask = |command: &str, script: &str| {
            let mut ask = redis::cmd(command);
            ask.arg(script).arg(keys.len()).arg(keys).arg(arguments);
            ask
        };
        match link.query(&ask("EVALSHA", self.inner.get_hash())).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                link.query(&ask("EVAL", &self.source)).await
            }
            answer => answer,
        }
    }

    /// The same with a second key that may be missing. While a cluster moves a slot, it refuses a
    /// call of which it has some keys and not others, so that call is made again with the first key
    /// alone. What this server has at the second key comes along as a value; elsewhere it stays
    /// unknown until the slot has moved.
    ///
    /// # Errors
    /// The server can't be reached, or answers with an error.
    pub(in crate::store::redis) async fn call_with_second(
        &self,
        mut link: CallLink,
        keys: &[String; 2],
        question: &Question,
    ) -> Result<Value, RedisError> {
        let Question { key, rest } = question;
        let answer = self.call(link.clone(), keys, &[key, rest]).await;
        let is_moving =
            |error: &RedisError| error.kind() == ErrorKind::Server(ServerErrorKind::TryAgain);
        if !answer.as_ref().is_err_and(is_moving) {
            return answer;
        }
        let [first, second] = keys;
        let mut get = redis::cmd("GET");
        get.arg(second);
        // A redirect means that it isn't here.
        let value: Option<Vec<u8>> = link.query(&get).await.unwrap_or_default();
        let value = value.unwrap_or_default();
        let arguments = [key, rest, &*value];
        self.call(link, std::slice::from_ref(first), &arguments)
            .await
    }
}

impl fmt::Debug for Script {
    /// Shows only the digest, because the text is long.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Script({})", self.inner.get_hash())
    }
}

/// A span in milliseconds, capped at what a record can hold: some two thousand years.
pub(in crate::store::redis) fn millis(span: Duration) -> u64 {
    const MOST: u64 = 1 << 46;
    u64::try_from(span.as_millis()).unwrap_or(MOST).min(MOST)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::process::Command;

    use super::*;

    /// The first digit of luacheck's codes for unused variables.
    const UNUSED: char = '2';

    /// Writes the assembled scripts to a temporary directory.
    fn written(scripts: &Scripts) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, script) in scripts.all() {
            let file = directory.path().join(format!("{name}.lua"));
            std::fs::write(file, &script.source).unwrap();
        }
        directory
    }

    /// A piece declares variables for all scripts that include it, and not every script needs all
    /// of them. So an unused variable is a fault only if no script uses it; anything else that the
    /// linter reports is a fault.
    #[test]
    fn every_assembled_script_passes_the_linter() {
        let terms = Terms::new(Duration::from_secs(30), Duration::from_millis(50));
        let scripts = Scripts::new(&terms, RecordVersions::OURS);
        let directory = written(&scripts);
        let linter = Command::new("luacheck")
            .args([
                "--formatter",
                "plain",
                "--codes",
                "--no-config",
                "--no-cache",
            ])
            .args(["--std", "lua51", "--no-max-line-length", "--ignore", "542"])
            .args(["--read-globals", "redis", "struct", "KEYS", "ARGV", "--"])
            .args(scripts.all().map(|(name, _)| format!("{name}.lua")))
            .current_dir(directory.path())
            .output()
            .expect("luacheck is missing: apt-get install -y lua-check");
        let said = String::from_utf8(linter.stdout).unwrap();
        assert!(linter.status.code().is_some_and(|code| code < 2), "{said}");
        let (mut unused, mut faults) = (BTreeMap::new(), BTreeSet::new());
        for fault in said.lines() {
            let Some((name, (line, code))) = parse(fault) else {
                faults.insert(fault.to_owned());
                continue;
            };
            if !code.starts_with(UNUSED) {
                faults.insert(fault.to_owned());
                continue;
            }
            let script = scripts
                .all()
                .into_iter()
                .find(|(script, _)| *script == name);
            let text = script.unwrap().1.source.lines().nth(line - 1).unwrap();
            let what = fault.split_once('(').unwrap().1;
            let found: &mut Vec<_> = unused.entry((text.to_owned(), what)).or_default();
            found.push(fault);
        }
        for ((text, _), found) in unused {
            let has_line =
                |(_, script): &(_, &Script)| script.source.lines().any(|line| line == text);
            if scripts
                .all()
                .iter()
                .filter(|script| has_line(script))
                .count()
                == found.len()
            {
                faults.extend(found.into_iter().map(str::to_owned));
            }
        }
        assert!(faults.is_empty(), "{faults:#?}");
    }

    /// The script, line and code of a linter message such as
    /// `admit.lua:3:28: (W211) unused variable`.
    fn parse(fault: &str) -> Option<(&str, (usize, &str))> {
        let (file, rest) = fault.split_once(".lua:")?;
        let line = rest.split_once(':')?.0.parse().ok()?;
        let code = rest.split_once("(W")?.1.split_once(')')?.0;
        Some((file, (line, code)))
    }

    #[test]
    fn only_whole_word_names_are_replaced() {
        let names = [("PAID", "64".to_owned())];
        let resolved = layout::resolve("PAID PAIDS _PAID x.PAID(PAID", &names);
        assert_eq!(resolved, "64 PAIDS _PAID x.64(64");
    }
}
