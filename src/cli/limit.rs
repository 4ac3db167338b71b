//! `limit`: shows, sets and removes the limit of one user.

use std::ffi::OsString;
use std::io::Write;
use std::time::{Duration, SystemTime};

use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::client::{Api, ApiArgs, ApiResponse, NoAnswer};
use super::show::{ahead, line, plain};
use super::{CommandStatus, complain, print};
use crate::http::escaped;
use crate::identity::{PlanName, UserId};
use crate::session::LimitOverride;

/// The arguments of `limit`.
#[derive(Debug, clap::Args)]
pub(super) struct LimitArgs {
    /// The user.
    #[arg(value_name = "USER", value_parser = UserId::parse)]
    user: UserId,
    /// The limit to set, from 0 to 1000; 0 refuses every start. Without it, the limit is shown.
    #[arg(value_name = "LIMIT", conflicts_with = "remove", value_parser = clap::value_parser!(u32).range(0..=i64::from(LimitOverride::MOST)))]
    limit: Option<u32>,
    /// How long the limit lasts, such as 12h or 7d: 30 days unless you say otherwise, 90 at most.
    #[arg(long = "for", value_name = "SPAN", requires = "limit", conflicts_with = "until", value_parser = span)]
    span: Option<Duration>,
    /// Until when the limit lasts, in UTC, such as 2027-01-15T08:00:00Z.
    #[arg(long, value_name = "TIME", requires = "limit", value_parser = time)]
    until: Option<String>,
    /// Remove the limit that was set for the user; the configured one applies again.
    #[arg(long)]
    remove: bool,
    /// The user's plan, to show the limit with it.
    #[arg(long, value_name = "PLAN", conflicts_with_all = ["limit", "remove"], value_parser = PlanName::parse)]
    plan: Option<PlanName>,
    /// Print the API's answer unchanged, as JSON; a problem document too.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: ApiArgs,
}

/// The part of the answer that is shown. Fields that another version adds are ignored.
#[derive(Debug, Deserialize)]
struct ShownLimit {
    /// How many streams the user may watch at once.
    limit: u32,
    /// Where that comes from.
    source: String,
    /// When it expires.
    expires_at: Option<String>,
    /// What applies without it.
    configured: Option<u32>,
}

/// Asks the instance, and shows its answer.
pub(super) fn run(
    args: &LimitArgs,
    variable: impl Fn(&str) -> Option<OsString>,
    out: &mut impl Write,
    errors: &mut impl Write,
) -> CommandStatus {
    let api = match args.api.open(variable, errors) {
        Ok(api) => api,
        Err(error) => return complain(errors, error, CommandStatus::Usage),
    };
    let answer = match args.ask(&api) {
        Ok(answer) => answer,
        Err(error) => return complain(errors, error, CommandStatus::Outage),
    };
    if args.remove && answer.status == StatusCode::NO_CONTENT {
        let told = match args.json {
            true => String::new(),
            false => format!(
                "{}: the configured limit applies\n",
                plain(args.user.as_str())
            ),
        };
        return print(told, out, errors);
    }
    match shown_limit(&answer) {
        Some(_) if args.json => print(line(&answer.body), out, errors),
        Some(limit) => print(limit.text(&args.user, answer.given_at), out, errors),
        None => {
            let came = answer.disappoints(api.has_token());
            came.tell(Some(&args.user), args.json, out, errors)
        }
    }
}

impl LimitArgs {
    /// Makes the call.
    fn ask(&self, api: &Api) -> Result<ApiResponse, NoAnswer> {
        let path = format!("/v1/users/{}/limit", escaped(self.user.as_str()));
        let Some(limit) = self.limit else {
            return match (&self.plan, self.remove) {
                (_, true) => api.ask(Method::DELETE, &path),
                (None, false) => api.ask(Method::GET, &path),
                (Some(plan), false) => {
                    let path = format!("{path}?plan={}", escaped(plan.as_str()));
                    api.ask(Method::GET, &path)
                }
            };
        };
        let body = match (self.span, &self.until) {
            (Some(span), _) => json!({"limit": limit, "expires_in_seconds": span.as_secs()}),
            (None, Some(until)) => json!({"limit": limit, "expires_at": until}),
            (None, None) => json!({"limit": limit}),
        };
        api.send(Method::PUT, &path, &body)
    }
}

impl ShownLimit {
    /// The limit as text for people.
    fn text(&self, user: &UserId, now: Option<SystemTime>) -> String {
        let streams = if self.limit == 1 { "stream" } else { "streams" };
        let source = match self.source.as_str() {
            "override" => "set by an operator",
            "user" => "configured for this user",
            "plan" => "configured for the plan",
            "default" => "the default",
            other => &plain(other),
        };
        let mut text = format!(
            "{}: {} {streams}, {source}",
            plain(user.as_str()),
            self.limit
        );
        if let Some(expires_at) = &self.expires_at {
            text.push_str(&format!(", expires {}", ahead(expires_at, now)));
        }
        if let (Some(configured), "override") = (self.configured, self.source.as_str()) {
            text.push_str(&format!("; configured: {configured}"));
        }
        text.push('\n');
        text
    }
}

/// The limit, if the answer tells it.
fn shown_limit(answer: &ApiResponse) -> Option<ShownLimit> {
    let is_told = matches!(answer.status, StatusCode::OK | StatusCode::CREATED);
    serde_json::from_str(is_told.then_some(&answer.body)?).ok()
}

/// Parses how long a limit lasts.
fn span(text: &str) -> Result<Duration, String> {
    let allowed = || "allowed: 1s to 90d, such as 12h or 7d".to_owned();
    let span = humantime::parse_duration(text).map_err(|_| allowed())?;
    let longest = LimitOverride::LONGEST;
    let is_allowed = (Duration::from_secs(1)..=longest).contains(&span);
    is_allowed.then_some(span).ok_or_else(allowed)
}

/// Checks a time.
fn time(text: &str) -> Result<String, String> {
    match humantime::parse_rfc3339(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("allowed: a time in UTC, such as 2027-01-15T08:00:00Z".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_says_where_it_comes_from_and_when_it_expires() {
        let now = humantime::parse_rfc3339("2027-01-15T08:00:00Z").ok();
        let user = UserId::parse("anna").unwrap();
        for (body, expected) in [
            (
                r#"{"limit":0,"source":"override","expires_at":"2027-01-16T08:00:00.500Z","configured":3}"#,
                "anna: 0 streams, set by an operator, expires in 1d 0h; configured: 3\n",
            ),
            (
                r#"{"limit":1,"source":"default","configured":1,"news":2}"#,
                "anna: 1 stream, the default\n",
            ),
            (
                r#"{"limit":4,"source":"pl\u001ban"}"#,
                "anna: 4 streams, pl\\u{1b}an\n",
            ),
        ] {
            let limit: ShownLimit = serde_json::from_str(body).unwrap();
            assert_eq!(limit.text(&user, now), expected);
        }
    }

    #[test]
    fn a_span_is_at_most_ninety_days() {
        for (text, seconds) in [("1s", 1), ("12h", 43_200), ("90d", 7_776_000)] {
            assert_eq!(span(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "0s", "91d", "7", "-1d", "soon"] {
            assert!(span(text).is_err(), "{text}");
        }
        assert!(time("2027-01-15T08:00:00Z").is_ok() && time("tomorrow").is_err());
    }
}
