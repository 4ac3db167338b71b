//! `sessions` without a user: everybody's live sessions, page by page as the API gives them.

use std::io::Write;
use std::time::SystemTime;

use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use super::client::{Api, ApiResponse};
use super::sessions::{HEAD, Listed};
use super::show::{plain, table};
use super::{CommandStatus, complain, print};
use crate::http::escaped;
use crate::identity::Kind;

/// The number of sessions to ask for at a time: the most that the API allows.
const PAGE: usize = 1000;

/// Which sessions are shown; all of them by default.
#[derive(Debug, Default, clap::Args)]
pub(super) struct SessionFilter {
    /// Without USER: show only sessions of this kind.
    #[arg(long, value_name = "KIND", conflicts_with = "user", value_parser = super::release::kinds())]
    kind: Option<Kind>,
    /// Without USER: show only sessions that play this content.
    #[arg(long, value_name = "CONTENT", conflicts_with = "user")]
    content: Option<String>,
    /// Without USER: show only sessions on this device.
    #[arg(long, value_name = "DEVICE", conflicts_with = "user")]
    device: Option<String>,
}

/// A page of the list. Fields that another version adds are ignored.
#[derive(Debug, Deserialize)]
struct ListPage {
    /// The sessions, as they came.
    sessions: Vec<Value>,
    /// Where the next page begins.
    next: Option<String>,
    /// Why it may lack some.
    may_miss: Option<String>,
}

/// A session of somebody.
#[derive(Debug, Deserialize)]
pub(super) struct SomebodysSession {
    /// Whose it is.
    user: String,
    /// The session.
    #[serde(flatten)]
    session: Listed,
}

impl SessionFilter {
    /// Whether a session is shown.
    fn admits(&self, session: &Listed) -> bool {
        let is = |wanted: Option<&str>, found: Option<&str>| {
            wanted.is_none_or(|wanted| found == Some(wanted))
        };
        is(self.kind.map(Kind::as_str), Some(&session.kind))
            && is(self.content.as_deref(), session.content.as_deref())
            && is(self.device.as_deref(), session.device.as_deref())
    }
}

/// Shows everybody's sessions that the filter admits, each page as soon as it is there, so that
/// memory doesn't grow with their number.
pub(super) fn run(
    api: &Api,
    filter: &SessionFilter,
    json: bool,
    out: &mut impl Write,
    errors: &mut impl Write,
) -> CommandStatus {
    let (mut cursor, mut shown, mut warned) = (None::<String>, 0_usize, false);
    loop {
        let answer = match api.ask(Method::GET, &path(PAGE, cursor.as_deref())) {
            Ok(answer) => answer,
            Err(error) => return complain(errors, error, CommandStatus::Outage),
        };
        let Some(page) = page(&answer) else {
            let came = answer.disappoints(api.has_token());
            return came.tell(None, json, out, errors);
        };
        let (text, count) = page.text(filter, json, shown == 0, answer.given_at);
        shown += count;
        let printed = print(text, out, errors);
        if printed != CommandStatus::Ok || is_closed(out) {
            return printed;
        }
        if let (Some(reason), false) = (&page.may_miss, warned) {
            warned = true;
            let told = format_args!("warning: the list may be incomplete: {}", plain(reason));
            // The list itself is the result.
            let _ = complain(errors, told, CommandStatus::Ok);
        }
        if page.next.is_none() || page.next == cursor {
            break;
        }
        cursor = page.next;
    }
    match (shown, json) {
        (0, false) => print("no live session\n", out, errors),
        _ => CommandStatus::Ok,
    }
}

/// The path of a page.
pub(super) fn path(size: usize, cursor: Option<&str>) -> String {
    match cursor {
        None => format!("/v1/sessions?limit={size}"),
        Some(cursor) => format!("/v1/sessions?limit={size}&cursor={}", escaped(cursor)),
    }
}

/// The sessions of the first page, as rows of a table.
pub(super) fn rows(answer: &ApiResponse) -> Option<Vec<[String; 8]>> {
    let page = page(answer)?;
    let sessions = page.sessions.into_iter();
    let sessions = sessions.filter_map(|session| serde_json::from_value(session).ok());
    Some(
        sessions
            .map(|session: SomebodysSession| session.row(answer.given_at))
            .collect(),
    )
}

/// The head of the table of everybody's sessions.
pub(super) const fn head() -> [&'static str; 8] {
    let [kind, session, device, content, position, started, expires] = HEAD;
    [
        "USER", kind, session, device, content, position, started, expires,
    ]
}

/// The page, if the answer is one.
fn page(answer: &ApiResponse) -> Option<ListPage> {
    let told = (answer.status == StatusCode::OK).then_some(&answer.body)?;
    serde_json::from_str(told).ok()
}

/// Whether nobody reads the output any more, so that further pages would be for nothing.
fn is_closed(out: &mut impl Write) -> bool {
    out.write_all(b"").and_then(|()| out.flush()).is_err()
}

impl ListPage {
    /// The page as text, and how many sessions it shows.
    fn text(
        &self,
        filter: &SessionFilter,
        json: bool,
        is_first: bool,
        now: Option<SystemTime>,
    ) -> (String, usize) {
        let (mut lines, mut rows) = (String::new(), Vec::new());
        for value in &self.sessions {
            let Ok(session) = SomebodysSession::deserialize(value) else {
                continue;
            };
            if filter.admits(&session.session) {
                if json {
                    lines.push_str(&value.to_string());
                    lines.push('\n');
                }
                rows.push(session.row(now));
            }
        }
        if json || rows.is_empty() {
            return (lines, rows.len());
        }
        let table = table(head(), &rows);
        let table = match table.split_once('\n') {
            Some((_, body)) if !is_first => body.to_owned(),
            _ => table,
        };
        (table, rows.len())
    }
}

impl SomebodysSession {
    /// Its row in the table.
    fn row(&self, now: Option<SystemTime>) -> [String; 8] {
        let [kind, session, device, content, position, started, expires] = self.session.row(now);
        [
            plain(&self.user),
            kind,
            session,
            device,
            content,
            position,
            started,
            expires,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r#"{"sessions": [
        {"user":"anna","session":"p1","kind":"playback","device":"tv","content":"film-7",
         "started_at":"2027-01-15T07:48:00.000Z","expires_at":"2027-01-15T08:00:21.000Z"},
        {"user":"ben","session":"5f0c","kind":"request",
         "started_at":"2027-01-15T07:59:57.000Z","expires_at":"2027-01-15T08:00:12.000Z"}],
        "next": "7", "news": 1}"#;

    fn text(filter: &SessionFilter, json: bool, is_first: bool) -> (String, usize) {
        let page: ListPage = serde_json::from_str(PAGE).unwrap();
        let now = humantime::parse_rfc3339("2027-01-15T08:00:00Z").ok();
        page.text(filter, json, is_first, now)
    }

    #[test]
    fn everybody_s_sessions_are_a_table_with_one_head() {
        let rows = "anna  playback  p1       tv      film-7   -         12m ago  in 21s\n\
                    ben   request   5f0c     -       -        -         3s ago   in 12s\n";
        let head = "USER  KIND      SESSION  DEVICE  CONTENT  POSITION  STARTED  EXPIRES\n";
        let all = SessionFilter::default();
        assert_eq!(text(&all, false, true), (format!("{head}{rows}"), 2));
        assert_eq!(text(&all, false, false), (rows.to_owned(), 2));
    }

    #[test]
    fn a_filter_shows_what_matches_all_of_it_and_json_is_a_line_each() {
        let filter = |kind, content: Option<&str>| SessionFilter {
            kind,
            content: content.map(str::to_owned),
            device: None,
        };
        for (filter, count) in [
            (filter(None, None), 2),
            (filter(Some(Kind::Request), None), 1),
            (filter(Some(Kind::Playback), Some("film-7")), 1),
            (filter(Some(Kind::Request), Some("film-7")), 0),
            (filter(None, Some("film")), 0),
        ] {
            let (lines, shown) = text(&filter, true, true);
            assert_eq!((lines.lines().count(), shown), (count, count), "{filter:?}");
            let parsed = lines.lines().all(|line| {
                serde_json::from_str::<Value>(line).is_ok_and(|line| line["user"].is_string())
            });
            assert!(parsed, "{lines}");
        }
    }

    #[test]
    fn a_cursor_is_escaped() {
        assert_eq!(path(5, None), "/v1/sessions?limit=5");
        assert_eq!(path(5, Some("a&b")), "/v1/sessions?limit=5&cursor=a%26b");
    }
}
