//! `doctor`: whether an installation is wired right, one line for each check: `ok`, `WRONG` or `unknown`, and what to do.

mod checks;
mod counts;
mod envoy;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write;

use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use super::client::{AccessArgs, Api};
use super::show::plain;
use super::{Outcome, complain, print};
use crate::identity::Source;
use checks::{all_together, each};
use counts::Counts;

/// Which instances are looked at.
#[derive(Debug, clap::Args)]
pub(super) struct DoctorArgs {
    /// Where an instance's HTTP API is; name each instance, so that they can be compared.
    #[arg(
        long = "url",
        value_name = "URL",
        env = "STREAMGATE_URL",
        hide_env_values = true,
        default_value = "http://127.0.0.1:8080"
    )]
    urls: Vec<String>,
    /// Where an Envoy's administrator is: its configuration is checked, too, as `envoy-check` does.
    #[arg(long = "envoy-admin", value_name = "URL")]
    envoy_admins: Vec<String>,
    /// Who verifies the user, where Envoy doesn't: `header:NAME`, `cookie:NAME` or `basic` for a proxy in front of it.
    #[arg(long, value_name = "SOURCE", requires = "envoy_admins")]
    envoy_user: Option<Source>,
    /// Print one JSON object a check: `state` (`ok`, `wrong`, `unknown`), `instance` (absent where it is about all of them), `check`, `told`.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    access: AccessArgs,
}

/// What an instance tells of itself at `/v1/instance`. What another version adds is no matter.
#[derive(Debug, Deserialize)]
struct Instance {
    /// What it calls itself.
    instance: String,
    /// The version that runs.
    version: String,
    /// Where it is in its life.
    phase: String,
    /// Envoy's port.
    grpc: Grpc,
    /// Where it counts.
    store: Store,
    /// Envoy's access log.
    access_log: AccessLog,
    /// The settings that other instances should have too.
    settings: std::collections::BTreeMap<String, String>,
}

/// Envoy's port.
#[derive(Debug, Deserialize)]
struct Grpc {
    /// Where it listens.
    listen: String,
    /// What is wrong where other machines reach it without showing a certificate.
    exposed: Option<String>,
}

/// Where an instance counts.
#[derive(Debug, Deserialize)]
struct Store {
    /// Whether that is a Redis.
    shared: bool,
    /// Whether it answers.
    up: bool,
    /// What is wrong with it.
    trouble: Option<String>,
    /// The Redis.
    server: Option<String>,
    /// What that calls itself.
    run_id: Option<String>,
    /// Its database.
    database: Option<i64>,
    /// Its `maxmemory-policy`.
    eviction_policy: Option<String>,
}

/// Envoy's access log.
#[derive(Debug, Deserialize)]
struct AccessLog {
    /// Whether it arrives: `unknown`, `arrives` or `missing`.
    state: String,
}

/// An instance that was asked.
#[derive(Debug)]
struct Asked {
    /// Where it is.
    url: String,
    /// What it tells of itself, or why it doesn't.
    instance: Result<Instance, Silence>,
    /// What it has counted; `None` if it doesn't tell.
    counts: Option<Counts>,
}

/// Why an instance doesn't tell of itself.
#[derive(Debug)]
enum Silence {
    /// It gives no answer.
    Absent(String),
    /// It is there, but refuses the caller.
    Refused(String),
    /// It is there, and its version doesn't know the question.
    Old,
    /// It answers something else, which says what to do.
    Strange(String),
}

/// What a check came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// As it should be.
    Ok,
    /// It can't be known.
    Unknown,
    /// Something must be done.
    Wrong,
}

/// What was found out by one check.
#[derive(Debug, Serialize)]
struct Finding {
    /// What it came to.
    state: State,
    /// Where the instance or the Envoy is that it is about; `None` if it is about all instances.
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
    /// What was looked at.
    check: &'static str,
    /// What there is to say, and to do.
    told: String,
}

/// Looks at all of them, and says what it finds.
pub(super) fn run(
    args: &DoctorArgs,
    variable: impl Fn(&str) -> Option<OsString>,
    out: &mut impl Write,
    errors: &mut impl Write,
) -> Outcome {
    let mut asked = Vec::new();
    for url in &args.urls {
        match args.access.open(url, &variable, errors) {
            Ok(api) => asked.push(Asked::of(&api)),
            Err(error) => return complain(errors, error, Outcome::Usage),
        }
    }
    let mut findings: Vec<Finding> = asked.iter().flat_map(each).collect();
    findings.extend(all_together(&asked));
    for url in &args.envoy_admins {
        // Envoy's administrator asks for no token, and is shown none.
        match AccessArgs::default().open(url, |_| None, errors) {
            Ok(admin) => findings.extend(envoy::findings(&admin, args.envoy_user.as_ref())),
            Err(error) => return complain(errors, error, Outcome::Usage),
        }
    }
    let printed = if args.json {
        print(as_json(&findings), out, errors)
    } else {
        print(as_lines(&findings), out, errors)
    };
    let is_wrong = findings.iter().any(|found| found.state == State::Wrong);
    printed.max(if is_wrong {
        Outcome::Refused
    } else {
        Outcome::Ok
    })
}

/// A line of JSON for each.
fn as_json(findings: &[Finding]) -> String {
    // Texts can always be written.
    let lines = findings.iter().map(serde_json::to_string);
    let lines = lines.map(Result::unwrap_or_default);
    lines.map(|line| line + "\n").collect()
}

/// A line for a person for each. What comes from an instance does nothing to their terminal.
fn as_lines(findings: &[Finding]) -> String {
    let place = |found: &Finding| {
        found
            .instance
            .as_deref()
            .unwrap_or("all instances")
            .to_owned()
    };
    let width = findings.iter().map(|found| place(found).len()).max();
    let width = width.unwrap_or_default();
    let mut lines = String::new();
    for found in findings {
        let (state, place) = (found.state.as_str(), place(found));
        let (check, told) = (found.check, plain(&found.told));
        // To write to a string can't fail.
        let _ = writeln!(lines, "{state:<7}  {place:<width$}  {check}: {told}");
    }
    lines
}

impl State {
    /// As people see it: what is wrong leaps to the eye.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Wrong => "WRONG",
        }
    }
}

impl Asked {
    /// What that instance tells.
    fn of(api: &Api) -> Self {
        let counts = api.ask(Method::GET, "/metrics").ok();
        let counts = counts.filter(|answer| answer.status == StatusCode::OK);
        let counts = counts.and_then(|answer| Counts::read(&answer.body));
        Self {
            url: api.place(),
            instance: instance(api, counts.is_some()),
            counts,
        }
    }
}

/// What an instance tells of itself. `has_metrics` says whether its metrics could be read.
fn instance(api: &Api, has_metrics: bool) -> Result<Instance, Silence> {
    let answer = api.ask(Method::GET, "/v1/instance");
    let answer = answer.map_err(|error| Silence::Absent(error.to_string()))?;
    if answer.status == StatusCode::OK
        && let Ok(instance) = serde_json::from_str(&answer.body)
    {
        return Ok(instance);
    }
    let status = answer.status;
    let told = answer.disappoints(api.has_token()).told;
    Err(Silence::of(status, told, has_metrics))
}

impl Silence {
    /// What an answer with that status means; `told` is its description.
    fn of(status: StatusCode, told: String, has_metrics: bool) -> Self {
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Self::Refused(told),
            StatusCode::NOT_FOUND if has_metrics => Self::Old,
            _ => Self::Strange(told),
        }
    }
}
