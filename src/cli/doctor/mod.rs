//! `doctor`: checks whether instances are connected right. Each check prints one line: `ok`,
//! `WRONG` or `unknown`, and what to do.

mod checks;
mod counts;
mod envoy;
mod store;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write;

use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use super::client::{AccessArgs, Api};
use super::show::plain;
use super::{CommandStatus, complain, print};
use crate::identity::Source;
use checks::{all_together, each};
use counts::Counts;

/// The arguments of `doctor`.
#[derive(Debug, clap::Args)]
pub(super) struct DoctorArgs {
    /// The address of an instance's HTTP API. Repeat it for each instance, so that they are
    /// compared.
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
    /// Who verifies the user, where Envoy doesn't: `header:NAME`, `cookie:NAME` or `basic` for a
    /// proxy in front of it.
    #[arg(long, value_name = "SOURCE", requires = "envoy_admins")]
    envoy_user: Option<Source>,
    /// Print one JSON object for each check: `state` (`ok`, `wrong`, `unknown`), `instance` (absent
    /// if it is about all instances), `check`, `told`.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    access: AccessArgs,
}

/// The answer of `/v1/instance`. Fields that another version adds are ignored.
#[derive(Debug, Deserialize)]
struct Instance {
    /// What it calls itself.
    instance: String,
    /// The version that runs.
    version: String,
    /// Whether it starts, serves or drains.
    phase: String,
    /// Envoy's port.
    grpc: GrpcPort,
    /// Its store.
    store: StoreStatus,
    /// Envoy's access log.
    access_log: AccessLogStatus,
    /// The settings that must be equal in all instances.
    settings: std::collections::BTreeMap<String, String>,
}

/// Envoy's port.
#[derive(Debug, Deserialize)]
struct GrpcPort {
    /// Where it listens.
    listen: String,
    /// What is wrong if other machines reach it without showing a certificate.
    exposed: Option<String>,
}

/// The store of an instance.
#[derive(Debug, Deserialize)]
struct StoreStatus {
    /// Whether that is a Redis.
    shared: bool,
    /// Whether it answers.
    up: bool,
    /// What is wrong with it.
    trouble: Option<String>,
    /// The Redis.
    server: Option<String>,
    /// The `run_id` of the Redis.
    run_id: Option<String>,
    /// Its database.
    database: Option<i64>,
    /// Its `maxmemory-policy`.
    eviction_policy: Option<String>,
    /// The shards, if it is a cluster.
    shards: Option<ShardsStatus>,
    /// The masters, if it is a cluster.
    #[serde(default)]
    masters: Vec<Master>,
}

/// The shards of a cluster.
#[derive(Debug, Deserialize)]
struct ShardsStatus {
    /// How many there are.
    known: usize,
    /// Those with which something is wrong.
    troubles: Vec<TroubledShard>,
}

/// A shard with which something is wrong.
#[derive(Debug, Deserialize)]
struct TroubledShard {
    /// The address of its master; `unowned` for the slots that no master owns.
    shard: String,
    /// What is wrong.
    trouble: String,
}

/// A master of a cluster.
#[derive(Debug, Deserialize)]
struct Master {
    /// Its address.
    address: String,
    /// Its `run_id`.
    run_id: Option<String>,
    /// Its `maxmemory-policy`.
    eviction_policy: Option<String>,
    /// Its `cluster-require-full-coverage`.
    requires_full_coverage: Option<bool>,
}

/// Envoy's access log.
#[derive(Debug, Deserialize)]
struct AccessLogStatus {
    /// Whether it arrives: `unknown`, `arrives` or `missing`.
    state: String,
}

/// An instance, and its answers.
#[derive(Debug)]
struct InstanceReply {
    /// Where it is.
    url: String,
    /// The answer of `/v1/instance`, or why there is none.
    instance: Result<Instance, Silence>,
    /// The counts in its metrics; `None` if they can't be read.
    counts: Option<Counts>,
}

/// Why `/v1/instance` has no answer.
#[derive(Debug)]
enum Silence {
    /// The instance doesn't answer.
    Absent(String),
    /// The instance refuses the caller.
    Refused(String),
    /// The version of the instance has no such page.
    Old,
    /// Another answer, which says what to do.
    Strange(String),
}

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum CheckStatus {
    /// All is well.
    Ok,
    /// The check can't tell.
    Unknown,
    /// Something must be done.
    Wrong,
}

/// The finding of one check.
#[derive(Debug, Serialize)]
struct CheckReport {
    /// The result.
    state: CheckStatus,
    /// The address of the instance or the Envoy; `None` if the finding is about all instances.
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
    /// The name of the check.
    check: &'static str,
    /// The finding, and what to do about it.
    told: String,
}

/// Checks all instances, and prints the findings.
pub(super) fn run(
    args: &DoctorArgs,
    variable: impl Fn(&str) -> Option<OsString>,
    out: &mut impl Write,
    errors: &mut impl Write,
) -> CommandStatus {
    let mut asked = Vec::new();
    for url in &args.urls {
        match args.access.open(url, &variable, errors) {
            Ok(api) => asked.push(InstanceReply::of(&api)),
            Err(error) => return complain(errors, error, CommandStatus::Usage),
        }
    }
    let mut findings: Vec<CheckReport> = asked.iter().flat_map(each).collect();
    findings.extend(all_together(&asked));
    for url in &args.envoy_admins {
        // Envoy's administrator asks for no token, and is shown none.
        match AccessArgs::default().open(url, |_| None, errors) {
            Ok(admin) => findings.extend(envoy::findings(&admin, args.envoy_user.as_ref())),
            Err(error) => return complain(errors, error, CommandStatus::Usage),
        }
    }
    let printed = if args.json {
        print(as_json(&findings), out, errors)
    } else {
        print(as_lines(&findings), out, errors)
    };
    let is_wrong = findings
        .iter()
        .any(|found| found.state == CheckStatus::Wrong);
    printed.max(if is_wrong {
        CommandStatus::Refused
    } else {
        CommandStatus::Ok
    })
}

/// A line of JSON for each finding.
fn as_json(findings: &[CheckReport]) -> String {
    // Strings always serialise.
    let lines = findings.iter().map(serde_json::to_string);
    let lines = lines.map(Result::unwrap_or_default);
    lines.map(|line| line + "\n").collect()
}

/// A line of text for each finding. Texts from an instance can't control the terminal.
fn as_lines(findings: &[CheckReport]) -> String {
    let place = |found: &CheckReport| {
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
        // Writing to a string can't fail.
        let _ = writeln!(lines, "{state:<7}  {place:<width$}  {check}: {told}");
    }
    lines
}

impl CheckStatus {
    /// The word in a line of text: `WRONG` catches the eye.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Wrong => "WRONG",
        }
    }
}

impl InstanceReply {
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

/// The answer of `/v1/instance`. `has_metrics` says whether the instance's metrics could be read.
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
    /// The meaning of an answer with this status; `told` describes the answer.
    fn of(status: StatusCode, told: String, has_metrics: bool) -> Self {
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Self::Refused(told),
            StatusCode::NOT_FOUND if has_metrics => Self::Old,
            _ => Self::Strange(told),
        }
    }
}
