//! `what-if`: shows what other limits would refuse.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write;

use clap::ValueEnum;
use serde::Deserialize;

use super::client::ApiArgs;
use super::show::{plain, table};
use super::{CommandStatus, stats};

/// The arguments of `what-if`.
#[derive(Debug, clap::Args)]
pub(super) struct WhatIfArgs {
    /// Which starts to go by: those of the last hour, day or week.
    #[arg(long, value_enum, default_value_t = Period::Day)]
    period: Period,
    /// Show only the users of this plan.
    #[arg(long, value_name = "PLAN")]
    plan: Option<String>,
    /// Print the API's answer unchanged, as JSON; a problem document too.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: ApiArgs,
}

/// The time whose starts count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Period {
    /// The last hour.
    Hour,
    /// The last day.
    Day,
    /// The last week.
    Week,
}

/// The part of the answer that is shown. Fields that another version adds are ignored.
#[derive(Debug, Deserialize)]
struct Numbered {
    /// What limits would do.
    would_refuse: LimitTables,
    /// Whether all instances' starts are counted.
    complete: bool,
}

/// What limits would do.
#[derive(Debug, Deserialize)]
struct LimitTables {
    /// The last hour.
    hour: Vec<LimitLine>,
    /// The last day.
    day: Vec<LimitLine>,
    /// The last week.
    week: Vec<LimitLine>,
    /// How many starts and users that is by.
    counted: BTreeMap<String, CountedLine>,
    /// The same by plan and period.
    plans: BTreeMap<String, BTreeMap<String, PlanTable>>,
}

/// What limits would do to the users of one plan.
#[derive(Debug, Deserialize)]
struct PlanTable {
    /// How many starts and users that is by.
    counted: CountedLine,
    /// Each limit.
    limits: Vec<LimitLine>,
}

/// How many starts and users there were.
#[derive(Debug, Deserialize)]
struct CountedLine {
    /// The starts.
    starts: u64,
    /// The users.
    users: u64,
}

/// What a limit would refuse.
#[derive(Debug, Deserialize)]
struct LimitLine {
    /// The limit.
    limit: u64,
    /// The part of the starts.
    starts_refused: f64,
    /// The part of the users.
    users_refused: f64,
    /// The standard error of that part.
    users_error: f64,
    /// Whether it would be more.
    lower_bound: bool,
}

// === impl Period ===

impl Period {
    /// Its name in the answer.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
        }
    }
}

/// Asks the instance, and shows its answer.
pub(super) fn run(
    args: &WhatIfArgs,
    variable: impl Fn(&str) -> Option<OsString>,
    out: &mut impl Write,
    errors: &mut impl Write,
) -> CommandStatus {
    let show = |body: &str| {
        let numbers: Numbered = serde_json::from_str(body).ok()?;
        Some(shown(&numbers, args.period, args.plan.as_deref()))
    };
    stats::ask(&args.api, args.json, show, variable, out, errors)
}

/// The tables as text for people.
fn shown(numbers: &Numbered, period: Period, only: Option<&str>) -> String {
    let (tables, name) = (&numbers.would_refuse, period.as_str());
    let mut text = String::new();
    if only.is_none() {
        let limits = match period {
            Period::Hour => &tables.hour,
            Period::Day => &tables.day,
            Period::Week => &tables.week,
        };
        text += &table_of("all users", name, tables.counted.get(name), limits);
    }
    let plans = tables.plans.iter();
    for (plan, periods) in plans.filter(|(plan, _)| only.is_none_or(|only| only == *plan)) {
        if let Some(PlanTable { counted, limits }) = periods.get(name) {
            let separator = if text.is_empty() { "" } else { "\n" };
            let whose = format!("users of plan {}", plain(plan));
            text = format!(
                "{text}{separator}{}",
                table_of(&whose, name, Some(counted), limits)
            );
        }
    }
    if let (true, Some(plan)) = (text.is_empty(), only) {
        text = format!(
            "no start by a user of plan {} in the last {name}\n",
            plain(plan)
        );
    }
    if !numbers.complete {
        text += "\nincomplete: an instance is late, or the store does not answer\n";
    }
    let all = [&tables.hour, &tables.day, &tables.week];
    if all
        .iter()
        .any(|limits| limits.iter().any(|limit| limit.lower_bound))
    {
        text += "\nat least: a lower limit was in force, and what it refused never counted\n";
    }
    text
}

/// One table.
fn table_of(
    whose: &str,
    period: &str,
    counted: Option<&CountedLine>,
    limits: &[LimitLine],
) -> String {
    let (starts, users) = counted.map_or((0, 0), |counted| (counted.starts, counted.users));
    let rows: Vec<_> = limits
        .iter()
        .map(|limit| {
            let share = |share: f64| {
                let at_least = if limit.lower_bound { "at least " } else { "" };
                format!("{at_least}{:.1} %", share * 100.0)
            };
            let mut users = share(limit.users_refused);
            if limit.users_error > 0.0 {
                // To write to a string can't fail.
                let _ = write!(users, " (± {:.1})", limit.users_error * 100.0);
            }
            [limit.limit.to_string(), share(limit.starts_refused), users]
        })
        .collect();
    let head = ["LIMIT", "STARTS REFUSED", "USERS REFUSED"];
    format!(
        "{whose}: {starts} starts by {users} users in the last {period}\n{}",
        table(head, &rows)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = r#"{"complete":true,"would_refuse":{"hour":[],"week":[],
        "day":[{"limit":1,"starts_refused":0.12,"users_refused":0.3,"users_error":0.004,"lower_bound":false},
               {"limit":2,"starts_refused":0.007,"users_refused":0.031,"users_error":0,"lower_bound":true}],
        "counted":{"day":{"starts":1000,"users":200}},
        "plans":{"basic":{"day":{"counted":{"starts":10,"users":2},"limits":[]}}}}}"#;

    #[test]
    fn each_limit_has_a_row() {
        let numbers = serde_json::from_str(BODY).unwrap();
        assert_eq!(
            shown(&numbers, Period::Day, None),
            "all users: 1000 starts by 200 users in the last day\n\
             LIMIT  STARTS REFUSED  USERS REFUSED\n\
             1      12.0 %          30.0 % (± 0.4)\n\
             2      at least 0.7 %  at least 3.1 %\n\
             \n\
             users of plan basic: 10 starts by 2 users in the last day\n\
             LIMIT  STARTS REFUSED  USERS REFUSED\n\
             \n\
             at least: a lower limit was in force, and what it refused never counted\n"
        );
        assert!(shown(&numbers, Period::Week, Some("gold")).starts_with("no start by"));
    }
}
