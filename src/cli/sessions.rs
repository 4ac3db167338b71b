//! `sessions`: shows which sessions hold a user's slots, or everybody's sessions.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write;
use std::time::SystemTime;

use http::{Method, StatusCode};
use serde::Deserialize;

use super::client::{ApiArgs, ApiResponse};
use super::everybody::{self, SessionFilter};
use super::show::{ago, ahead, line, plain, position, table};
use super::{CommandStatus, complain, print};
use crate::http::escaped;
use crate::identity::UserId;

/// The arguments of `sessions`.
#[derive(Debug, clap::Args)]
pub(super) struct SessionsArgs {
    /// The user. Without one, everybody's sessions are listed, which needs an operator's token.
    #[arg(value_name = "USER", value_parser = UserId::parse)]
    user: Option<UserId>,
    #[command(flatten)]
    filter: SessionFilter,
    /// Print the API's answer unchanged, as JSON; a problem document too. Without USER, one JSON
    /// object for each session.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: ApiArgs,
}

/// The part of the answer that is shown. Fields that another version adds are ignored.
#[derive(Debug, Deserialize)]
struct SessionList {
    /// How many streams the user may watch at once.
    limit: u32,
    /// How many sessions are live.
    active: usize,
    /// The live sessions.
    sessions: Vec<Listed>,
}

/// One live session.
#[derive(Debug, Deserialize)]
pub(super) struct Listed {
    /// Its id.
    session: String,
    /// What kind of stream it is.
    pub(super) kind: String,
    /// The device it plays on.
    pub(super) device: Option<String>,
    /// What it plays.
    pub(super) content: Option<String>,
    /// The position in the content, in seconds.
    position: Option<u64>,
    /// When it started.
    started_at: String,
    /// When its lease ends.
    expires_at: String,
}

/// The head of the table of sessions.
pub(super) const HEAD: [&str; 7] = [
    "KIND", "SESSION", "DEVICE", "CONTENT", "POSITION", "STARTED", "EXPIRES",
];

/// Asks the instance, and shows its answer.
pub(super) fn run(
    args: &SessionsArgs,
    variable: impl Fn(&str) -> Option<OsString>,
    out: &mut impl Write,
    errors: &mut impl Write,
) -> CommandStatus {
    let api = match args.api.open(variable, errors) {
        Ok(api) => api,
        Err(error) => return complain(errors, error, CommandStatus::Usage),
    };
    let Some(user) = &args.user else {
        return everybody::run(&api, &args.filter, args.json, out, errors);
    };
    let path = format!("/v1/users/{}/sessions", escaped(user.as_str()));
    let answer = match api.ask(Method::GET, &path) {
        Ok(answer) => answer,
        Err(error) => return complain(errors, error, CommandStatus::Outage),
    };
    match listing(&answer) {
        Some(_) if args.json => print(line(&answer.body), out, errors),
        Some(listing) => print(shown(user, &listing, answer.given_at), out, errors),
        None => {
            let came = answer.disappoints(api.has_token());
            came.tell(Some(user), args.json, out, errors)
        }
    }
}

/// The user's sessions, if the answer tells them.
fn listing(answer: &ApiResponse) -> Option<SessionList> {
    let told = (answer.status == StatusCode::OK).then_some(&answer.body)?;
    serde_json::from_str(told).ok()
}

/// The sessions as text for people. Times are relative to `now`, the time at the instance.
fn shown(user: &UserId, listing: &SessionList, now: Option<SystemTime>) -> String {
    let mut shown = format!(
        "{}: {} of {} {} in use\n",
        plain(user.as_str()),
        listing.active,
        listing.limit,
        if listing.limit == 1 {
            "stream"
        } else {
            "streams"
        },
    );
    if !listing.sessions.is_empty() {
        let rows: Vec<_> = listing
            .sessions
            .iter()
            .map(|session| session.row(now))
            .collect();
        // To write to a string can't fail.
        let _ = write!(shown, "\n{}", table(HEAD, &rows));
    }
    shown
}

impl Listed {
    /// Its row in the table.
    pub(super) fn row(&self, now: Option<SystemTime>) -> [String; 7] {
        let optional = |text: &Option<String>| text.as_deref().map_or("-".to_owned(), plain);
        [
            plain(&self.kind),
            plain(&self.session),
            optional(&self.device),
            optional(&self.content),
            self.position.map_or("-".to_owned(), position),
            ago(&self.started_at, now),
            ahead(&self.expires_at, now),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(body: &str) -> String {
        let listing = serde_json::from_str(body).unwrap();
        let now = humantime::parse_rfc3339("2027-01-15T08:00:00Z").unwrap();
        shown(&UserId::parse("anna").unwrap(), &listing, Some(now))
    }

    #[test]
    fn what_holds_the_slots_is_a_table() {
        let body = r#"{"user":"anna","limit":3,"active":2,"can_start":true,"news":1,"sessions":[
            {"session":"p1","kind":"playback","device":"wohnzimmer-tv","content":"映画","position":3725,
             "started_at":"2027-01-15T07:48:00.000Z","expires_at":"2027-01-15T08:00:21.000Z"},
            {"session":"5f0c","kind":"request",
             "started_at":"2027-01-15T07:59:57.000Z","expires_at":"2027-01-15T08:00:12.000Z"}]}"#;
        assert_eq!(
            text(body),
            "anna: 2 of 3 streams in use\n\
             \n\
             KIND      SESSION  DEVICE         CONTENT  POSITION  STARTED  EXPIRES\n\
             playback  p1       wohnzimmer-tv  映画     1:02:05   12m ago  in 21s\n\
             request   5f0c     -              -        -         3s ago   in 12s\n"
        );
    }

    #[test]
    fn no_session_is_one_line() {
        let body = r#"{"limit":1,"active":0,"sessions":[]}"#;
        assert_eq!(text(body), "anna: 0 of 1 stream in use\n");
    }
}
