//! Prints one line for each start, refusal and end while the demo runs. Starts come from
//! streamgate's log, so even the shortest stream has its line. Ends come from its list of live
//! sessions, so it doesn't matter how a stream ended. Refusals come from Envoy's access log.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Client;
use serde_json::Value;

use crate::failure::{Doing, Failure};
use crate::ports::{Ports, loopback};

/// How often to look.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Sessions from streamgate's list.
type Sessions = BTreeMap<Key, Value>;

/// What has been printed so far.
#[derive(Debug)]
pub(crate) struct Events {
    client: Client,
    /// Where streamgate lists the sessions of all users.
    list: String,
    /// Live sessions whose start has been printed.
    live: Sessions,
    starts: LogReader,
    refusals: LogReader,
}

impl Events {
    /// The events of the stack that writes its logs to that folder.
    pub(crate) fn of(ports: Ports, logs: &Path) -> Result<Self, Failure> {
        let client = Client::builder().no_proxy().build();
        Ok(Self {
            client: client.doing(|| "make an HTTP client".to_owned())?,
            list: format!("http://{}/v1/sessions?limit=1000", loopback(ports.http)),
            live: Sessions::new(),
            starts: LogReader::at_start_of(logs.join("streamgate.log")),
            refusals: LogReader::at_start_of(logs.join("envoy.log")),
        })
    }

    /// Prints events until the future is dropped, or until their sources can't be read.
    pub(crate) async fn tell(mut self) -> Result<Infallible, Failure> {
        loop {
            // The log before the list: a session in neither has ended.
            let starts: Vec<Start> = self.starts.unread(start)?;
            self.tell_sessions(starts).await?;
            for refusal in self.refusals.unread(refusal)? {
                println!("{refusal}");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn tell_sessions(&mut self, starts: Vec<Start>) -> Result<(), Failure> {
        // During an outage of the store nobody knows the live sessions; the next look will.
        let listed = self.listed().await?;
        for line in changes(&mut self.live, starts, listed) {
            println!("{line}");
        }
        Ok(())
    }

    /// The live sessions; `None` if streamgate can't tell.
    async fn listed(&self) -> Result<Option<Sessions>, Failure> {
        let asking = || format!("read {}", self.list);
        let answer = self.client.get(&self.list).send().await.doing(asking)?;
        if answer.status().is_server_error() {
            return Ok(None);
        }
        let answer: Value = answer.json().await.doing(asking)?;
        let sessions = answer.get("sessions").and_then(Value::as_array);
        let sessions = sessions.into_iter().flatten();
        Ok(Some(
            sessions
                .map(|session| (Key::listed(session), session.clone()))
                .collect(),
        ))
    }
}

/// A line for each session that has started or ended since the last look. Updates `live`.
fn changes(live: &mut Sessions, starts: Vec<Start>, listed: Option<Sessions>) -> Vec<String> {
    let mut lines = listed.as_ref().map_or_else(Vec::new, |now| ends(live, now));
    for Start { key, count } in starts {
        let session = listed.as_ref().and_then(|now| now.get(&key));
        let session = session.cloned().unwrap_or_default();
        lines.push(line("started", &key, &session, count));
        live.insert(key, session);
    }
    // A stream that started after the last look may have ended before this one.
    lines.extend(listed.map_or_else(Vec::new, |now| ends(live, &now)));
    lines
}

/// Removes the sessions from `live` that are not in the list; returns a line for each.
fn ends(live: &mut Sessions, now: &Sessions) -> Vec<String> {
    let ended = live.extract_if(.., |key, _| !now.contains_key(key));
    let told = ended.map(|(key, session)| {
        let count = now.keys().filter(|other| other.user == key.user).count();
        line("ended", &key, &session, count as u64)
    });
    told.collect()
}

fn line(what: &str, key: &Key, session: &Value, count: u64) -> String {
    let of_what = described(key, session);
    let user = &key.user;
    format!("{what:<8} {user}: {of_what} ({user} now watches {count})")
}

/// Device and content if known, otherwise kind and id.
fn described(key: &Key, session: &Value) -> String {
    let facts: Vec<&str> = ["device", "content"]
        .iter()
        .filter_map(|fact| session.get(fact)?.as_str())
        .collect();
    if facts.is_empty() {
        format!("{} {}", key.kind, key.id)
    } else {
        facts.join(", ")
    }
}

/// What identifies a session.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    user: String,
    kind: String,
    id: String,
}

impl Key {
    /// The key of a session in streamgate's list.
    fn listed(session: &Value) -> Self {
        Self {
            user: text(session, "user").to_owned(),
            kind: text(session, "kind").to_owned(),
            id: text(session, "session").to_owned(),
        }
    }
}

/// The text, or an empty one if there is none.
fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// A start in streamgate's log.
#[derive(Debug)]
struct Start {
    key: Key,
    /// How many sessions of the user were live then, including this one.
    count: u64,
}

/// Parses a start from a line of streamgate's log.
fn start(line: &str) -> Option<Start> {
    let logged: Value = serde_json::from_str(line).ok()?;
    if text(&logged, "message") != "a stream has started" {
        return None;
    }
    let (kind, id) = text(&logged, "session.key").split_once(':')?;
    Some(Start {
        key: Key {
            user: text(&logged, "user.id").to_owned(),
            kind: kind.to_owned(),
            id: id.to_owned(),
        },
        count: logged.get("count")?.as_u64()?,
    })
}

/// The line to print for a refusal in Envoy's log.
fn refusal(line: &str) -> Option<String> {
    let logged: Value = serde_json::from_str(line).ok()?;
    let reason = logged.get("refused")?.as_str()?;
    let user = text(&logged, "user");
    let what = [text(&logged, "device"), text(&logged, "path")];
    let what: Vec<&str> = what.into_iter().filter(|part| !part.is_empty()).collect();
    Some(format!("refused  {user}: {} ({reason})", what.join(", ")))
}

/// A log that is read while it is written.
#[derive(Debug)]
struct LogReader {
    log: PathBuf,
    /// How many bytes of it have been read.
    read: u64,
}

impl LogReader {
    fn at_start_of(log: PathBuf) -> Self {
        Self { log, read: 0 }
    }

    /// The parsed lines that have not been read yet; `parse` skips the others.
    fn unread<T>(&mut self, parse: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, Failure> {
        let reading = || format!("read {}", self.log.display());
        let mut file = std::fs::File::open(&self.log).doing(reading)?;
        file.seek(SeekFrom::Start(self.read)).doing(reading)?;
        let mut new = Vec::new();
        file.read_to_end(&mut new).doing(reading)?;
        // A line may still be incomplete.
        let whole = new
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
        new.truncate(whole);
        self.read += new.len() as u64;
        let lines = String::from_utf8_lossy(&new);
        Ok(lines.lines().filter_map(parse).collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn list(sessions: &[Value]) -> Sessions {
        let sessions = sessions.iter().cloned();
        sessions
            .map(|session| (Key::listed(&session), session))
            .collect()
    }

    fn started(key: &str, count: u64) -> Start {
        let logged = json!({
            "message": "a stream has started", "user.id": "alice", "session.key": key, "count": count,
        });
        start(&logged.to_string()).unwrap()
    }

    #[test]
    fn a_start_and_an_end_are_a_line_each() {
        let tv = json!({"user": "alice", "kind": "playback", "session": "1", "device": "TV", "content": "news"});
        let live = json!({"user": "alice", "kind": "request", "session": "2"});
        let mut told = list(&[tv]);
        let now = || Some(list(std::slice::from_ref(&live)));
        let expected = [
            "ended    alice: TV, news (alice now watches 1)",
            "started  alice: request 2 (alice now watches 1)",
        ];
        assert_eq!(
            changes(&mut told, vec![started("request:2", 1)], now()),
            expected
        );
        assert_eq!(changes(&mut told, Vec::new(), now()), Vec::<String>::new());
    }

    #[test]
    fn a_stream_that_ended_before_anybody_looked_has_both_its_lines() {
        let mut told = Sessions::new();
        let starts = vec![started("playback:a:1", 1)];
        let expected = [
            "started  alice: playback a:1 (alice now watches 1)",
            "ended    alice: playback a:1 (alice now watches 0)",
        ];
        assert_eq!(changes(&mut told, starts, Some(Sessions::new())), expected);
    }

    #[test]
    fn in_an_outage_starts_are_told_and_ends_later() {
        let mut told = Sessions::new();
        let starts = vec![started("request:1", 1)];
        let expected = ["started  alice: request 1 (alice now watches 1)"];
        assert_eq!(changes(&mut told, starts, None), expected);
        let expected = ["ended    alice: request 1 (alice now watches 0)"];
        assert_eq!(
            changes(&mut told, Vec::new(), Some(Sessions::new())),
            expected
        );
    }

    #[test]
    fn a_line_is_read_once_and_only_when_it_is_whole() {
        use std::io::Write;

        let mut log = tempfile::NamedTempFile::new().unwrap();
        let mut reader = LogReader::at_start_of(log.path().to_owned());
        let mut then_unread = |text: &str| {
            log.write_all(text.as_bytes()).unwrap();
            reader.unread(|line| Some(line.to_owned())).unwrap()
        };
        assert_eq!(then_unread("a\nb"), ["a"]);
        assert_eq!(then_unread("c\n"), ["bc"]);
        assert_eq!(then_unread(""), Vec::<String>::new());
    }

    #[test]
    fn a_refusal_is_a_line_and_what_else_envoy_logs_is_not() {
        let line = r#"{"refused":"full","user":"alice","device":null,"path":"/live/4"}"#;
        let told = Some("refused  alice: /live/4 (full)".to_owned());
        assert_eq!(refusal(line), told);
        assert_eq!(refusal("[2026-01-01][info] starting"), None);
        assert_eq!(refusal(r#"{"else": 1}"#), None);
    }
}
