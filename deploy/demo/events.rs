//! One line for each start, refusal and end, while the demo runs. Starts and ends come from streamgate's list of live
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

/// How often to look. A stream that is shorter than this may get no line.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What has been told so far.
#[derive(Debug)]
pub(crate) struct Events {
    client: Client,
    /// Where streamgate lists the sessions of all users.
    list: String,
    /// Live sessions, by user, kind and id.
    live: BTreeMap<[String; 3], Value>,
    refusals: Refusals,
}

impl Events {
    /// Events of the stack that writes its logs to that folder.
    pub(crate) fn of(ports: Ports, logs: &Path) -> Result<Self, Failure> {
        let client = Client::builder().no_proxy().build();
        Ok(Self {
            client: client.doing(|| "make an HTTP client".to_owned())?,
            list: format!("http://{}/v1/sessions?limit=1000", loopback(ports.http)),
            live: BTreeMap::new(),
            refusals: Refusals {
                log: logs.join("envoy.log"),
                read: 0,
            },
        })
    }

    /// Prints them until the future is dropped, or until what they come from can't be read.
    pub(crate) async fn tell(mut self) -> Result<Infallible, Failure> {
        loop {
            self.tell_sessions().await?;
            for refusal in self.refusals.unread()? {
                println!("{refusal}");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Compares the live sessions with the ones before.
    async fn tell_sessions(&mut self) -> Result<(), Failure> {
        let asking = || format!("read {}", self.list);
        let answer = self.client.get(&self.list).send().await.doing(asking)?;
        // In an outage of the store nobody knows; the next look tells.
        if answer.status().is_server_error() {
            return Ok(());
        }
        let answer: Value = answer.json().await.doing(asking)?;
        let sessions = answer.get("sessions").and_then(Value::as_array);
        let live: BTreeMap<_, _> = sessions
            .into_iter()
            .flatten()
            .map(|session| (key(session), session.clone()))
            .collect();
        for line in changes(&self.live, &live) {
            println!("{line}");
        }
        self.live = live;
        Ok(())
    }
}

/// A line for each session that is only in one of the lists, ends first.
fn changes(
    before: &BTreeMap<[String; 3], Value>,
    now: &BTreeMap<[String; 3], Value>,
) -> Vec<String> {
    let only_in = |these: &BTreeMap<[String; 3], Value>, those: &BTreeMap<_, _>, what: &str| {
        let only = these.iter().filter(|(key, _)| !those.contains_key(*key));
        let line = |([user, kind, id], session): (&[String; 3], &Value)| {
            let count = now.keys().filter(|[other, ..]| other == user).count();
            let of_what = described(kind, id, session);
            format!("{what:<8} {user}: {of_what} ({user} now watches {count})")
        };
        only.map(line).collect::<Vec<_>>()
    };
    let mut lines = only_in(before, now, "ended");
    lines.extend(only_in(now, before, "started"));
    lines
}

/// Device and content where they are known, else kind and id.
fn described(kind: &str, id: &str, session: &Value) -> String {
    let facts: Vec<&str> = ["device", "content"]
        .iter()
        .filter_map(|fact| session.get(fact)?.as_str())
        .collect();
    if facts.is_empty() {
        format!("{kind} {id}")
    } else {
        facts.join(", ")
    }
}

/// What identifies a session.
fn key(session: &Value) -> [String; 3] {
    ["user", "kind", "session"].map(|part| text(session, part).to_owned())
}

/// An empty text where there is none.
fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Refusals in Envoy's log, which has other lines too.
#[derive(Debug)]
struct Refusals {
    log: PathBuf,
    /// How many bytes of it have been read.
    read: u64,
}

impl Refusals {
    /// A line for each that has not been read yet.
    fn unread(&mut self) -> Result<Vec<String>, Failure> {
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
        Ok(String::from_utf8_lossy(&new)
            .lines()
            .filter_map(refusal)
            .collect())
    }
}

/// What Envoy has logged about a refusal.
fn refusal(line: &str) -> Option<String> {
    let logged: Value = serde_json::from_str(line).ok()?;
    let reason = logged.get("refused")?.as_str()?;
    let user = text(&logged, "user");
    let what = [text(&logged, "device"), text(&logged, "path")];
    let what: Vec<&str> = what.into_iter().filter(|part| !part.is_empty()).collect();
    Some(format!("refused  {user}: {} ({reason})", what.join(", ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn list(sessions: &[Value]) -> BTreeMap<[String; 3], Value> {
        let sessions = sessions.iter().cloned();
        sessions.map(|session| (key(&session), session)).collect()
    }

    #[test]
    fn a_start_and_an_end_are_a_line_each() {
        let tv = json!({"user": "alice", "kind": "playback", "session": "1", "device": "TV", "content": "news"});
        let live = json!({"user": "alice", "kind": "request", "session": "2"});
        let (before, now) = (list(&[tv]), list(&[live]));
        let expected = [
            "ended    alice: TV, news (alice now watches 1)",
            "started  alice: request 2 (alice now watches 1)",
        ];
        assert_eq!(changes(&before, &now), expected);
        assert_eq!(changes(&now, &now), Vec::<String>::new());
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
