//! `release`: frees slots of a user whose players can't release their sessions themselves.

use std::ffi::OsString;
use std::fmt;
use std::io::Write;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use http::{Method, StatusCode};
use serde::Serialize;

use super::client::{Api, ApiArgs, ApiResponse, Disappointment};
use super::show::plain;
use super::{CommandStatus, complain, print};
use crate::http::escaped;
use crate::identity::{Kind, SessionId, UserId};

/// The arguments of `release`.
#[derive(Debug, clap::Args)]
pub(super) struct ReleaseArgs {
    /// The user.
    #[arg(value_name = "USER", value_parser = UserId::parse)]
    user: UserId,
    /// The sessions. All are tried, and the worst exit code counts.
    #[arg(value_name = "SESSION", required = true, value_parser = SessionId::parse)]
    sessions: Vec<SessionId>,
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
    kind: &'static str,
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
    match api.ask(Method::DELETE, &path) {
        Ok(answer) => Fate::of(answer, api.has_token()),
        Err(error) => Fate::Other(Disappointment {
            outcome: CommandStatus::Outage,
            told: error.to_string(),
            problem: None,
        }),
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
fn kinds() -> impl TypedValueParser<Value = Kind> {
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
}
