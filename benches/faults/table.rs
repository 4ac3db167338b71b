//! The table: a row for each fault on each topology.

use std::fmt::Write as _;
use std::time::Duration;

use streamgate::config::Topology;
use testkit::tools::repository;

use crate::control::Delays;
use crate::fault::Fault;
use crate::installation::{TOPOLOGIES, word};
use crate::truth::Tally;

/// Where the table is written.
const WRITTEN: &str = "target/faults.md";

/// A fault on a topology, with a rule for outages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) topology: Topology,
    pub(crate) fault: Fault,
    pub(crate) rule: &'static str,
}

/// What was seen.
pub(crate) struct Seen {
    /// The tally when the fault began, and at the end.
    pub(crate) before: Tally,
    pub(crate) after: Tally,
    /// When the fault began.
    pub(crate) began: Duration,
    /// How many sessions counted a lease after the last viewer had left; `None` if nobody could
    /// tell.
    pub(crate) left_over: Option<usize>,
    /// How long the machine itself delayed who ran on it.
    pub(crate) delays: Delays,
}

impl Row {
    pub(crate) fn describe(&self) -> String {
        let (topology, fault) = (word(self.topology), self.fault.name());
        format!("{topology}: {fault}: {}", self.rule)
    }
}

impl Seen {
    /// The longest check, less what the machine added to it.
    fn longest_check(&self) -> Duration {
        let excess = |&(sent, answered): &(Duration, Duration)| {
            let delays = self.delays.within(sent, answered);
            (answered - sent).saturating_sub(delays)
        };
        self.after.slow.iter().map(excess).max().unwrap_or_default()
    }

    /// How long after the beginning of the fault the last thing happened that shouldn't.
    fn normal_after(&self) -> Duration {
        let last = self.after.last_trouble.unwrap_or_default();
        last.saturating_sub(self.began)
    }
}

/// The heading of the table's columns.
const HEADING: &str = "\
| fault | `store.outage` | starts tried | above the limit | wrongly refused | cut off | 503 | leaked, slot-seconds | longest leak, s | longest check, ms | normal after, s |
|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|
";

/// A row of the table.
pub(crate) fn cells(row: &Row, seen: &Seen) -> String {
    let (before, after) = (&seen.before, &seen.after);
    let longest = seen.longest_check().as_millis();
    let longest = if longest == 0 {
        "< 20".to_owned()
    } else {
        longest.to_string()
    };
    format!(
        "| {} | `{}` | {} | {} | {} | {} | {} | {:.0} | {:.1} | {longest} | {:.1} |",
        row.fault.name(),
        row.rule,
        after.starts - before.starts,
        after.above - before.above,
        after.wrongly_refused - before.wrongly_refused,
        after.cut_off - before.cut_off,
        after.failed - before.failed,
        (after.leaked - before.leaked).as_secs_f64(),
        after.longest_leak.as_secs_f64(),
        seen.normal_after().as_secs_f64(),
    )
}

/// A row for who watches the run.
pub(crate) fn line(row: &Row, seen: &Seen) -> String {
    let before = &seen.before;
    let trouble = before.above + before.wrongly_refused + before.cut_off + before.failed;
    format!(
        "| {} {} (before the fault: {trouble} of {} checks in trouble; left over {:?}; the machine's longest delay {:.0} ms)",
        word(row.topology),
        cells(row, seen),
        before.checks,
        seen.left_over,
        seen.delays.longest().as_secs_f64() * 1000.0,
    )
}

/// Writes the whole table.
pub(crate) fn write(rows: &[(Row, Seen)]) {
    let mut text = String::from("# What a fault does to the count\n");
    for (topology, _) in TOPOLOGIES {
        let title = match topology {
            Topology::Standalone => "One server",
            Topology::Sentinel => "A master and its replica, three sentinels",
            Topology::Cluster => "A cluster of three masters and three replicas",
        };
        let _ = write!(text, "\n## {title}\n\n{HEADING}");
        for (row, seen) in rows.iter().filter(|(row, _)| row.topology == topology) {
            let _ = writeln!(text, "{}", cells(row, seen));
        }
    }
    std::fs::write(repository(WRITTEN), text).unwrap();
}
