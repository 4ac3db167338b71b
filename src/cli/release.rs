//! `release`: frees slots of a user whose players can't release their sessions themselves.

use std::ffi::OsString;
use std::fmt;
use std::io::Write;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use super::client::{Api, ApiArgs, ApiResponse, Disappointment, NoAnswer};
use super::show::plain;
use super::{CommandStatus, complain, print};
use crate::http::escaped;
use crate::identity::{EndMessage, Kind, SessionId, UserId};

/// The arguments of `release`.
#[derive(Debug, clap::Args)]
pub(super) struct ReleaseArgs {
    /// The user.
    #[arg(value_name = "USER", value_parser = UserId::parse)]
    user: UserId,
    /// The sessions. All are tried, and the worst exit code counts.
    #[arg(value_name = "SESSION", required_unless_present = "all", value_parser = SessionId::parse)]
    sessions: Vec<SessionId>,
    /// End all sessions of the user against their viewers' will, which needs an operator's token.
    /// Those that run inside Envoy can't be ended, and exit with 1.
    #[arg(long, conflicts_with_all = ["sessions", "kind"])]
    all: bool,
    /// What the viewers are told, at most 200 characters. The sessions end against their viewers'
    /// will then, which needs an operator's token.
    #[arg(long, value_name = "TEXT", value_parser = EndMessage::parse)]
    message: Option<EndMessage>,
    /// The kind of the sessions, as `sessions` shows it. A `request` that still runs inside Envoy
    /// is counted again.
    #[arg(long, value_name = "KIND", default_value = "playback", value_parser = kinds())]
    kind: Kind,
    /// Print one JSON object for each session: `session`, `kind`, `outcome`, and the API's
    /// `problem`, if there is one.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: ApiArgs,
}

/// What has become of all sessions of a user. Fields that another version adds are ignored.
#[derive(Debug, Deserialize)]
struct EndedList {
    /// Those that have ended.
    ended: Vec<EndedSession>,
    /// Those that run inside Envoy.
    not_stoppable: Vec<EndedSession>,
}

/// One of them.
#[derive(Debug, Deserialize)]
struct EndedSession {
    /// Its id.
    session: String,
    /// What kind of stream it is.
    kind: String,
}

/// The result for a session.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// It holds no slot any more.
    Released,
    /// It will be released when the store is back.
    Accepted,
    /// The release failed.
    Other(Disappointment),
}

/// The JSON object for a session, without its problem.
#[derive(Debug, Serialize)]
struct ReleaseReport<'a> {
    /// Its id.
    session: &'a str,
    /// What kind of stream it is.
    kind: &'a str,
    /// The result, in a word.
    outcome: &'static str,
}

/// Releases the sessions, one after the other.
pub(super) fn run(
    args: &ReleaseArgs,
    variable: impl Fn(&str) -> Option<OsString>,
    out: &mut impl Write,
    errors: &mut impl Write,
) -> CommandStatus {
    let api = match args.api.open(variable, errors) {
        Ok(api) => api,
        Err(error) => return complain(errors, error, CommandStatus::Usage),
    };
    if args.all {
        return release_all(&api, args, out, errors);
    }
    let mut worst = CommandStatus::Ok;
    for session in &args.sessions {
        let fate = release(&api, args, session);
        let told = tell(args, session, fate, out, errors);
        worst = worst.max(told);
    }
    worst
}

/// Releases one session.
fn release(api: &Api, args: &ReleaseArgs, session: &SessionId) -> Fate {
    let path = format!(
        "/v1/users/{}/sessions/{}?kind={}",
        escaped(args.user.as_str()),
        escaped(session.as_str()),
        args.kind
    );
    match args.delete(api, &path) {
        Ok(answer) => Fate::of(answer, api.has_token()),
        Err(error) => Fate::Other(Disappointment {
            outcome: CommandStatus::Outage,
            told: error.to_string(),
            problem: None,
        }),
    }
}

/// Ends all sessions of the user, and prints what has become of each.
fn release_all(
    api: &Api,
    args: &ReleaseArgs,
    out: &mut impl Write,
    errors: &mut impl Write,
) -> CommandStatus {
    let path = format!("/v1/users/{}/sessions", escaped(args.user.as_str()));
    let answer = match args.delete(api, &path) {
        Ok(answer) => answer,
        Err(error) => return complain(errors, error, CommandStatus::Outage),
    };
    let ended = (answer.status == StatusCode::OK).then_some(&answer.body);
    let Some(ended) = ended.and_then(|body| serde_json::from_str::<EndedList>(body).ok()) else {
        let came = answer.disappoints(api.has_token());
        return came.tell(Some(&args.user), args.json, out, errors);
    };
    let printed = print(ended.text(args.json), out, errors);
    if ended.not_stoppable.is_empty() {
        printed
    } else {
        printed.max(CommandStatus::Refused)
    }
}

/// Prints the result: successes to standard output, failures to standard error; as JSON, all to
/// standard output.
fn tell(
    args: &ReleaseArgs,
    session: &SessionId,
    fate: Fate,
    out: &mut impl Write,
    errors: &mut impl Write,
) -> CommandStatus {
    let name = format!("{} {}", args.kind, plain(session.as_str()));
    let printed = if args.json {
        print(fate.json(args.kind, session), out, errors)
    } else {
        match &fate {
            Fate::Released => print(format_args!("{name}: released\n"), out, errors),
            Fate::Accepted => print(
                format_args!("{name}: accepted: it will be released when the store is back\n"),
                out,
                errors,
            ),
            Fate::Other(_) => CommandStatus::Ok,
        }
    };
    match fate {
        Fate::Released | Fate::Accepted => printed,
        Fate::Other(other) => {
            let told: &dyn fmt::Display = &format_args!("{name}: {}", other.told);
            complain(errors, told, other.outcome.max(printed))
        }
    }
}

impl ReleaseArgs {
    /// Sends a `DELETE`, with the message if there is one.
    fn delete(&self, api: &Api, path: &str) -> Result<ApiResponse, NoAnswer> {
        match &self.message {
            None => api.ask(Method::DELETE, path),
            Some(message) => {
                let body = serde_json::json!({"message": message.as_str()});
                api.send(Method::DELETE, path, &body)
            }
        }
    }
}

impl EndedList {
    /// A line for each session.
    fn text(&self, json: bool) -> String {
        let ended = self.ended.iter().map(|session| (session, "ended"));
        let others = self.not_stoppable.iter();
        let others = others.map(|session| (session, "not_stoppable"));
        let lines = ended.chain(others).map(|(session, outcome)| {
            if json {
                let report = ReleaseReport {
                    session: &session.session,
                    kind: &session.kind,
                    outcome,
                };
                // Strings always serialise.
                return serde_json::to_string(&report).unwrap_or_default() + "\n";
            }
            let outcome = match outcome {
                "ended" => "ended",
                _ => "runs inside Envoy and can't be ended from here",
            };
            let (kind, session) = (plain(&session.kind), plain(&session.session));
            format!("{kind} {session}: {outcome}\n")
        });
        let lines: String = lines.collect();
        match (lines.is_empty(), json) {
            (true, false) => "no live session\n".to_owned(),
            _ => lines,
        }
    }
}

impl Fate {
    /// The result that an answer means.
    fn of(answer: ApiResponse, has_token: bool) -> Self {
        match answer.status {
            StatusCode::NO_CONTENT => Self::Released,
            StatusCode::ACCEPTED => Self::Accepted,
            _ => Self::Other(answer.disappoints(has_token)),
        }
    }

    /// The result as a line of JSON.
    fn json(&self, kind: Kind, session: &SessionId) -> String {
        let outcome = match self {
            Self::Released => "released",
            Self::Accepted => "accepted",
            Self::Other(other) => match other.outcome {
                CommandStatus::Ok | CommandStatus::Refused | CommandStatus::Usage => "refused",
                CommandStatus::Outage => "outage",
            },
        };
        let report = ReleaseReport {
            session: session.as_str(),
            kind: kind.as_str(),
            outcome,
        };
        // Strings always serialise.
        let mut report = serde_json::to_string(&report).unwrap_or_default();
        if let Self::Other(Disappointment {
            problem: Some(problem),
            ..
        }) = self
        {
            // The problem was parsed as JSON before; its bytes stay unchanged.
            report.pop();
            report.push_str(&format!(",\"problem\":{}}}", problem.trim()));
        }
        report.push('\n');
        report
    }
}

/// Parses the name of a kind.
pub(super) fn kinds() -> impl TypedValueParser<Value = Kind> {
    PossibleValuesParser::new(Kind::ALL.map(Kind::as_str))
        .try_map(|name| Kind::from_name(&name).ok_or("no kind has that name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_become_of_a_session_is_a_line_of_json() {
        let session = SessionId::parse("a \"b\"").unwrap();
        let other = |outcome, problem: Option<&str>| {
            Fate::Other(Disappointment {
                outcome,
                told: String::new(),
                problem: problem.map(str::to_owned),
            })
        };
        let problem = " {\"status\":403, \"detail\":\"No.\"}\n";
        for (fate, rest) in [
            (Fate::Released, r#""outcome":"released"}"#),
            (Fate::Accepted, r#""outcome":"accepted"}"#),
            (other(CommandStatus::Outage, None), r#""outcome":"outage"}"#),
            (
                other(CommandStatus::Refused, Some(problem)),
                r#""outcome":"refused","problem":{"status":403, "detail":"No."}}"#,
            ),
        ] {
            let expected = format!("{{\"session\":\"a \\\"b\\\"\",\"kind\":\"video\",{rest}\n");
            assert_eq!(fate.json(Kind::Video, &session), expected);
        }
    }

    #[test]
    fn all_sessions_of_a_user_are_a_line_each() {
        let body = r#"{"ended":[{"session":"p\u001b1","kind":"playback"}],"news":1,
            "not_stoppable":[{"session":"r1","kind":"request"}]}"#;
        let all: EndedList = serde_json::from_str(body).unwrap();
        assert_eq!(
            all.text(false),
            "playback p\\u{1b}1: ended\nrequest r1: runs inside Envoy and can't be ended from here\n"
        );
        assert_eq!(
            all.text(true),
            "{\"session\":\"p\\u001b1\",\"kind\":\"playback\",\"outcome\":\"ended\"}\n\
             {\"session\":\"r1\",\"kind\":\"request\",\"outcome\":\"not_stoppable\"}\n"
        );
        let none: EndedList = serde_json::from_str(r#"{"ended":[],"not_stoppable":[]}"#).unwrap();
        assert_eq!(
            (none.text(false).as_str(), none.text(true).as_str()),
            ("no live session\n", "")
        );
    }
}
