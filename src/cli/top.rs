//! `top`: the numbers of the whole installation and who is watching, again and again in a terminal.
//!
//! It reads `GET /v1/stats` and the first page of `GET /v1/sessions`. Where one of them is missing,
//! the screen says so and shows the other.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write;
use std::thread;
use std::time::Duration;

use http::{Method, StatusCode};

use super::client::{Api, ApiArgs};
use super::everybody;
use super::show::{plain, table};
use super::stats::InstallationNumbers;
use super::{CommandStatus, complain, print};

/// The arguments of `top`.
#[derive(Debug, clap::Args)]
pub(super) struct TopArgs {
    /// How many seconds pass between two looks.
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
    /// How many sessions are shown, about.
    #[arg(long, value_name = "COUNT", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=1000))]
    rows: u64,
    /// Look once, and print plain text; so it does where standard output is no terminal.
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    api: ApiArgs,
}

/// How many contents are shown.
const MOST_CONTENTS: usize = 5;

/// How many plans are shown.
const MOST_PLANS: usize = 8;

/// Goes to the upper left corner, and lets long lines end at the edge.
const BEGIN: &str = "\x1b[H\x1b[?7l";

/// Erases the rest of a line.
const END_OF_LINE: &str = "\x1b[K\n";

/// Erases what is below, and lets long lines wrap again.
const END: &str = "\x1b[J\x1b[?7h";

/// Looks again and again, or once.
pub(super) fn run(
    args: &TopArgs,
    variable: impl Fn(&str) -> Option<OsString>,
    is_terminal: bool,
    out: &mut impl Write,
    errors: &mut impl Write,
) -> CommandStatus {
    let api = match args.api.open(variable, errors) {
        Ok(api) => api,
        Err(error) => return complain(errors, error, CommandStatus::Usage),
    };
    if args.once || !is_terminal {
        let (text, outcome) = look(&api, args.rows);
        return print(text, out, errors).max(outcome);
    }
    // What stood on the screen before is kept above.
    if print("\x1b[2J", out, errors) != CommandStatus::Ok {
        return CommandStatus::Outage;
    }
    loop {
        let (text, _) = look(&api, args.rows);
        let printed = print(frame(&text), out, errors);
        if printed != CommandStatus::Ok {
            return printed;
        }
        thread::sleep(Duration::from_secs(args.interval));
    }
}

/// A text that takes the place of the screen's.
fn frame(text: &str) -> String {
    let lines: String = text
        .lines()
        .map(|line| format!("{line}{END_OF_LINE}"))
        .collect();
    format!("{BEGIN}{lines}{END}")
}

/// Looks once: what there is to show, and what it came to.
fn look(api: &Api, rows: u64) -> (String, CommandStatus) {
    let mut text = format!("streamgate top  {}\n", api.place());
    let numbers = numbers(api, &mut text);
    let sessions = sessions(api, rows, &mut text);
    // Without the numbers, as from an older version, the sessions are still worth a look.
    (text, sessions.max(numbers))
}

/// Adds the installation's numbers.
fn numbers(api: &Api, text: &mut String) -> CommandStatus {
    let answer = match api.ask(Method::GET, "/v1/stats") {
        Ok(answer) => answer,
        Err(error) => {
            // Writing to a string can't fail.
            let _ = writeln!(text, "no numbers: {}", plain(&error.to_string()));
            return CommandStatus::Outage;
        }
    };
    if answer.status == StatusCode::NOT_FOUND {
        text.push_str("no numbers: this instance has no GET /v1/stats; its version may be older\n");
        return CommandStatus::Ok;
    }
    let stats = (answer.status == StatusCode::OK).then_some(&answer.body);
    match stats.and_then(|body| serde_json::from_str::<InstallationNumbers>(body).ok()) {
        Some(stats) => {
            text.push_str(&as_lines(&stats));
            CommandStatus::Ok
        }
        None => {
            let came = answer.disappoints(api.has_token());
            let _ = writeln!(text, "no numbers: {}", came.told);
            came.outcome
        }
    }
}

/// Adds who is watching.
fn sessions(api: &Api, rows: u64, text: &mut String) -> CommandStatus {
    text.push('\n');
    let rows = usize::try_from(rows).unwrap_or(usize::MAX);
    let answer = match api.ask(Method::GET, &everybody::path(rows, None)) {
        Ok(answer) => answer,
        Err(error) => {
            let _ = writeln!(text, "no sessions: {}", plain(&error.to_string()));
            return CommandStatus::Outage;
        }
    };
    match everybody::rows(&answer) {
        Some(mut shown) => {
            shown.truncate(rows);
            text.push_str(&table(everybody::head(), &shown));
            CommandStatus::Ok
        }
        None => {
            let came = answer.disappoints(api.has_token());
            let _ = writeln!(text, "no sessions: {}", came.told);
            came.outcome
        }
    }
}

/// The numbers as lines of text.
fn as_lines(numbers: &InstallationNumbers) -> String {
    let of = match (numbers.scope.as_str(), numbers.instances) {
        ("installation", 1) => "1 instance".to_owned(),
        ("installation", instances) => format!("{instances} instances"),
        ("instance", _) => "this instance alone".to_owned(),
        (other, _) => plain(other),
    };
    let stale = if numbers.complete {
        ""
    } else {
        ", INCOMPLETE: an instance is late or the store is out"
    };
    let mut text = format!("{}  of {of}{stale}\n\n", plain(&numbers.at));
    let mut add = |name: &str, what: String| {
        if !what.is_empty() {
            // Writing to a string can't fail.
            let _ = writeln!(text, "{name:<16}{what}");
        }
    };
    let number = |name: &str, number: u64| match numbers.approximate.contains_key(name) {
        true => format!("~{number}"),
        false => number.to_string(),
    };
    add(
        "now",
        format!(
            "streams {}, users {}, at their limit {}",
            number("streams", numbers.streams),
            number("users", numbers.users),
            number("users_at_limit", numbers.users_at_limit)
        ),
    );
    let minute = &numbers.last_minute;
    add(
        "last minute",
        format!(
            "starts {}, refusals {}, displacements {}, releases {}",
            minute.starts, minute.refusals, minute.displacements, minute.releases
        ),
    );
    add(
        "refused, hour",
        counts(&numbers.refusals_last_hour, usize::MAX),
    );
    add("kinds", counts(&numbers.by_kind, usize::MAX));
    add("plans", counts(&numbers.by_plan, MOST_PLANS));
    let contents = numbers.top_content.iter().take(MOST_CONTENTS);
    let contents = contents.map(|top| format!("{} {}", plain(&top.content), top.streams));
    add("content", contents.collect::<Vec<_>>().join(", "));
    text
}

/// The highest counts, with their names.
fn counts(counts: &BTreeMap<String, u64>, most: usize) -> String {
    let mut counts: Vec<_> = counts.iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let left_out = counts.len().saturating_sub(most);
    counts.truncate(most);
    let mut told: Vec<_> = counts
        .into_iter()
        .map(|(name, count)| match name.as_str() {
            "" => format!("(none) {count}"),
            name => format!("{} {count}", plain(name)),
        })
        .collect();
    if left_out > 0 {
        told.push(format!("and {left_out} more"));
    }
    told.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of numbers that were counted so.
    fn lines(scope: &str, complete: bool) -> String {
        let body = format!(
            r#"{{"at":"2027-01-15T08:00:00Z","scope":"{scope}","instances":2,
            "complete":{complete},"streams":1234,"users":1100,"users_at_limit":40,
            "approximate":{{"users":0.02}},"by_kind":{{"playback":1200,"request":34}},
            "by_plan":{{"premium":800,"":434}},"top_content":[{{"content":"film\u001b-7","streams":99}}],
            "last_minute":{{"starts":60,"refusals":3,"displacements":1,"releases":55}},
            "refusals_last_hour":{{"full":12}},"news":[1]}}"#
        );
        as_lines(&serde_json::from_str(&body).unwrap())
    }

    #[test]
    fn numbers_are_lines_and_estimates_are_marked() {
        assert_eq!(
            lines("installation", true),
            "2027-01-15T08:00:00Z  of 2 instances\n\
             \n\
             now             streams 1234, users ~1100, at their limit 40\n\
             last minute     starts 60, refusals 3, displacements 1, releases 55\n\
             refused, hour   full 12\n\
             kinds           playback 1200, request 34\n\
             plans           premium 800, (none) 434\n\
             content         film\\u{1b}-7 99\n"
        );
    }

    #[test]
    fn numbers_that_are_not_of_now_say_so() {
        let text = lines("instance", false);
        assert!(text.contains("this instance alone, INCOMPLETE"), "{text}");
    }

    #[test]
    fn many_counts_are_cut() {
        let all = (0..10).map(|n| (format!("p{n}"), n)).collect();
        assert_eq!(counts(&all, 2), "p9 9, p8 8, and 8 more");
    }

    #[test]
    fn a_frame_erases_what_stood_there() {
        assert_eq!(
            frame("a\nb\n"),
            "\x1b[H\x1b[?7la\x1b[K\nb\x1b[K\n\x1b[J\x1b[?7h"
        );
    }
}
