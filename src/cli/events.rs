//! `events`: shows what happens in the installation, as it happens.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::thread::sleep;
use std::time::Duration;

use serde::Deserialize;

use super::client::{Api, ApiArgs, Followed};
use super::show::plain;
use super::{CommandStatus, complain, print};
use crate::http::escaped;
use crate::identity::UserId;

/// The longest line that is read. Nothing that streamgate sends is nearly as long.
const MAX_LINE_BYTES: u64 = 1024 * 1024;

/// How long to wait before listening again after a break: at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));

/// The arguments of `events`.
#[derive(Debug, clap::Args)]
pub(super) struct EventsArgs {
    /// Only the events of this user.
    #[arg(long, value_name = "USER", value_parser = UserId::parse)]
    user: Option<UserId>,
    /// Print each event as one JSON object, as the API sends it.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: ApiArgs,
}

/// The part of an event that is shown. Fields that another version adds are ignored.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ShownEvent {
    /// When it happened.
    at: String,
    /// What happened.
    r#type: String,
    /// To whom.
    user: Option<String>,
    /// To which session.
    session: Option<String>,
    /// Its kind.
    kind: Option<String>,
    /// What it plays.
    content: Option<String>,
    /// Where it plays.
    device: Option<String>,
    /// Why it was refused.
    reason: Option<String>,
    /// Why it ended.
    cause: Option<String>,
    /// Who did it.
    by: Option<String>,
    /// The shard of the store.
    shard: Option<String>,
    /// More, in words.
    detail: Option<String>,
}

/// Why a stream of events is over.
enum Over {
    /// The instance has ended it, or the connection broke.
    Broken,
    /// The output can't be written.
    Unprinted(CommandStatus),
}

/// Listens until the output is closed or the process is stopped; after a break, it listens again.
pub(super) fn run(
    args: &EventsArgs,
    variable: impl Fn(&str) -> Option<OsString>,
    out: &mut impl Write,
    errors: &mut impl Write,
) -> CommandStatus {
    let api = match args.api.open(variable, errors) {
        Ok(api) => api,
        Err(error) => return complain(errors, error, CommandStatus::Usage),
    };
    let path = match &args.user {
        None => "/v1/events".to_owned(),
        Some(user) => format!("/v1/events?user={}", escaped(user.as_str())),
    };
    let (mut last, mut pause, mut has_begun) = (None, PAUSE.0, false);
    loop {
        match listen(&api, &path, last.as_deref()) {
            Ok(body) => {
                (has_begun, pause) = (true, PAUSE.0);
                match follow(body, args.json, &mut last, out, errors) {
                    Over::Unprinted(status) => return status,
                    Over::Broken => {}
                }
                let _ = writeln!(errors, "streamgate: the stream has ended; listening again");
            }
            // Another attempt would end the same way.
            Err((told, outcome)) if !has_begun || outcome != CommandStatus::Outage => {
                return complain(errors, told, outcome);
            }
            Err((told, _)) => {
                let _ = writeln!(errors, "streamgate: {told}; listening again");
            }
        }
        sleep(pause);
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// Begins to listen, after that event.
fn listen(
    api: &Api,
    path: &str,
    last: Option<&str>,
) -> Result<impl Read + use<>, (String, CommandStatus)> {
    match api.follow(path, last) {
        Ok(Followed::Stream(body)) => Ok(body),
        Ok(Followed::Answer(answer)) => {
            let came = answer.disappoints(api.has_token());
            Err((came.told, came.outcome))
        }
        Err(error) => Err((error.to_string(), CommandStatus::Outage)),
    }
}

/// Prints events until the stream is over; `last` is the id of the last.
fn follow(
    body: impl Read,
    json: bool,
    last: &mut Option<String>,
    out: &mut impl Write,
    errors: &mut impl Write,
) -> Over {
    let mut lines = BufReader::new(body);
    loop {
        let mut line = String::new();
        match lines.by_ref().take(MAX_LINE_BYTES).read_line(&mut line) {
            Ok(0) | Err(_) => return Over::Broken,
            Ok(_) => {}
        }
        let line = line.trim_end_matches(['\n', '\r']);
        if let Some(id) = line.strip_prefix("id: ") {
            *last = Some(id.to_owned());
        }
        let Some(event) = line.strip_prefix("data: ") else {
            continue;
        };
        let shown = if json {
            format!("{event}\n")
        } else {
            shown(&serde_json::from_str(event).unwrap_or_default())
        };
        // Of a reader that is gone nobody hears while nothing is written.
        if out
            .write_all(shown.as_bytes())
            .and_then(|()| out.flush())
            .is_err()
        {
            return Over::Unprinted(print("", out, errors));
        }
    }
}

/// One line about an event, for people.
fn shown(event: &ShownEvent) -> String {
    let mut line = format!("{}  {:<10}", plain(&event.at), plain(&event.r#type));
    let parts = [
        ("", &event.user),
        ("", &event.session),
        ("", &event.kind),
        ("content=", &event.content),
        ("device=", &event.device),
        ("reason=", &event.reason),
        ("cause=", &event.cause),
        ("by=", &event.by),
        ("shard=", &event.shard),
        ("", &event.detail),
    ];
    for (name, part) in parts {
        if let Some(part) = part {
            // To write to a string can't fail.
            let _ = write!(line, "  {name}{}", plain(part));
        }
    }
    line.truncate(line.trim_end().len());
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is printed of that stream.
    fn printed(stream: &str, json: bool) -> (String, Option<String>) {
        let (mut out, mut last) = (Vec::new(), None);
        let over = follow(
            stream.as_bytes(),
            json,
            &mut last,
            &mut out,
            &mut Vec::new(),
        );
        assert!(matches!(over, Over::Broken));
        (String::from_utf8(out).unwrap(), last)
    }

    #[test]
    fn events_are_lines() {
        let stream = ":\n\nid: 7\nevent: started\ndata: {\"id\":\"7\",\"at\":\"2026-11-30T21:00:05.000Z\",\
            \"type\":\"started\",\"user\":\"an\u{202e}na\",\"session\":\"p1\",\"kind\":\"playback\",\"device\":\"tv\",\"new\":1}\n\n:\n\n";
        let (text, last) = printed(stream, false);
        let expected =
            "2026-11-30T21:00:05.000Z  started     an\\u{202e}na  p1  playback  device=tv\n";
        assert_eq!((text.as_str(), last.as_deref()), (expected, Some("7")));
        let (text, _) = printed(stream, true);
        assert!(
            text.starts_with("{\"id\":\"7\"") && text.lines().count() == 1,
            "{text}"
        );
    }
}
