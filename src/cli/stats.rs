//! `stats`: shows the numbers of the whole installation.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write;

use http::{Method, StatusCode};
use serde::Deserialize;

use super::client::{ApiArgs, ApiResponse};
use super::show::{line, plain, table};
use super::{CommandStatus, complain, print};

/// The arguments of `stats`.
#[derive(Debug, clap::Args)]
pub(super) struct StatsArgs {
    /// Print the API's answer unchanged, as JSON; a problem document too.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: ApiArgs,
}

/// The part of the answer that commands show. Fields that another version adds are ignored.
#[derive(Debug, Deserialize)]
pub(super) struct InstallationNumbers {
    /// The store's time.
    pub(super) at: String,
    /// Whose numbers they are: `installation`, or `instance` without a shared store.
    pub(super) scope: String,
    /// How many instances have reported.
    pub(super) instances: u64,
    /// Whether all instances' reports are in the numbers.
    pub(super) complete: bool,
    /// The live streams.
    pub(super) streams: u64,
    /// The users who watch something.
    pub(super) users: u64,
    /// The users who watch as many streams as they may.
    pub(super) users_at_limit: u64,
    /// The standard errors of estimated numbers.
    pub(super) approximate: BTreeMap<String, f64>,
    /// The live streams by kind.
    pub(super) by_kind: BTreeMap<String, u64>,
    /// The live streams by plan.
    pub(super) by_plan: BTreeMap<String, u64>,
    /// The contents with the most streams.
    pub(super) top_content: Vec<ContentLine>,
    /// What happened in the last minute.
    pub(super) last_minute: LastMinute,
    /// The refusals of the last hour by reason.
    pub(super) refusals_last_hour: BTreeMap<String, u64>,
}

/// A content and its streams.
#[derive(Debug, Deserialize)]
pub(super) struct ContentLine {
    /// The content.
    pub(super) content: String,
    /// Its live streams.
    pub(super) streams: u64,
}

/// What happened in the last minute.
#[derive(Debug, Deserialize)]
pub(super) struct LastMinute {
    /// Sessions that started.
    pub(super) starts: u64,
    /// Answers that refused a stream.
    pub(super) refusals: u64,
    /// Sessions that gave way to another.
    pub(super) displacements: u64,
    /// Slots that were freed.
    pub(super) releases: u64,
}

/// Asks the instance, and shows its answer.
pub(super) fn run(
    args: &StatsArgs,
    variable: impl Fn(&str) -> Option<OsString>,
    out: &mut impl Write,
    errors: &mut impl Write,
) -> CommandStatus {
    ask(&args.api, args.json, shown, variable, out, errors)
}

/// Asks an instance for its numbers, and shows them as text, or unchanged.
pub(super) fn ask(
    api: &ApiArgs,
    json: bool,
    show: impl Fn(&str) -> Option<String>,
    variable: impl Fn(&str) -> Option<OsString>,
    out: &mut impl Write,
    errors: &mut impl Write,
) -> CommandStatus {
    let api = match api.open(variable, errors) {
        Ok(api) => api,
        Err(error) => return complain(errors, error, CommandStatus::Usage),
    };
    let answer: ApiResponse = match api.ask(Method::GET, "/v1/stats") {
        Ok(answer) => answer,
        Err(error) => return complain(errors, error, CommandStatus::Outage),
    };
    let is_ok = answer.status == StatusCode::OK;
    match is_ok.then(|| show(&answer.body)).flatten() {
        Some(_) if json => print(line(&answer.body), out, errors),
        Some(shown) => print(shown, out, errors),
        None => {
            let came = answer.disappoints(api.has_token());
            came.tell(None, json, out, errors)
        }
    }
}

/// The numbers as text for people, if the answer has them.
fn shown(body: &str) -> Option<String> {
    let numbers: InstallationNumbers = serde_json::from_str(body).ok()?;
    let mut text = String::new();
    let about = |name: &str, number: u64| match numbers.approximate.get(name) {
        Some(error) => format!("{number} (± {:.1} %)", error * 100.0),
        None => number.to_string(),
    };
    let whose = match (numbers.scope.as_str(), numbers.instances) {
        ("instance", _) => "this instance".to_owned(),
        (_, 1) => "1 instance".to_owned(),
        (_, instances) => format!("{instances} instances"),
    };
    let late = if numbers.complete {
        ""
    } else {
        "; incomplete: an instance is late, or the store does not answer"
    };
    let minute = &numbers.last_minute;
    let rows = [
        ["streams".to_owned(), about("streams", numbers.streams)],
        ["users".to_owned(), about("users", numbers.users)],
        [
            "users at their limit".to_owned(),
            about("users_at_limit", numbers.users_at_limit),
        ],
        ["starts".to_owned(), a_minute(minute.starts)],
        ["refusals".to_owned(), a_minute(minute.refusals)],
        ["displacements".to_owned(), a_minute(minute.displacements)],
        ["releases".to_owned(), a_minute(minute.releases)],
    ];
    // To write to a string can't fail.
    let _ = write!(
        text,
        "{}",
        table(["NUMBERS OF", &format!("{whose}{late}")], &rows)
    );
    let contents = numbers.top_content.iter();
    let contents: Vec<_> = contents
        .map(|top| (top.content.as_str(), top.streams))
        .collect();
    for (head, counted, counts) in [
        ("KIND", "STREAMS", counted_in(&numbers.by_kind)),
        ("PLAN", "STREAMS", counted_in(&numbers.by_plan)),
        (
            "REFUSED FOR",
            "LAST HOUR",
            counted_in(&numbers.refusals_last_hour),
        ),
        ("CONTENT", "STREAMS", contents),
    ] {
        let rows: Vec<_> = counts
            .into_iter()
            .map(|(name, count)| {
                let name = if name.is_empty() { "-" } else { name };
                [plain(name), count.to_string()]
            })
            .collect();
        if !rows.is_empty() {
            let _ = write!(text, "\n{}", table([head, counted], &rows));
        }
    }
    Some(text)
}

/// What has been counted, by name.
fn counted_in(counts: &BTreeMap<String, u64>) -> Vec<(&str, u64)> {
    let counted = counts.iter().filter(|(_, count)| **count > 0);
    counted
        .map(|(name, count)| (name.as_str(), *count))
        .collect()
}

/// How often something happened in the last minute.
fn a_minute(count: u64) -> String {
    format!("{count} in the last minute")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_tables() {
        let body = r#"{"at":"2027-01-15T08:00:00Z","scope":"installation","instances":2,"complete":true,
            "streams":1234,"users":1100,"users_at_limit":40,"approximate":{"users":0.0213},"news":1,
            "by_kind":{"playback":1200,"request":34,"video":0},"by_plan":{"":434,"premium":800},
            "top_content":[{"content":"film-7","streams":99}],"refusals_last_hour":{"full":12},
            "last_minute":{"starts":60,"refusals":3,"displacements":1,"releases":55}}"#;
        assert_eq!(
            shown(body).unwrap(),
            "NUMBERS OF            2 instances\n\
             streams               1234\n\
             users                 1100 (± 2.1 %)\n\
             users at their limit  40\n\
             starts                60 in the last minute\n\
             refusals              3 in the last minute\n\
             displacements         1 in the last minute\n\
             releases              55 in the last minute\n\
             \n\
             KIND      STREAMS\n\
             playback  1200\n\
             request   34\n\
             \n\
             PLAN     STREAMS\n\
             -        434\n\
             premium  800\n\
             \n\
             REFUSED FOR  LAST HOUR\n\
             full         12\n\
             \n\
             CONTENT  STREAMS\n\
             film-7   99\n"
        );
        assert_eq!(shown("{}"), None);
    }
}
