//! The table: a row for each fault on each topology.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use streamgate::config::Topology;
use testkit::tools::repository;

use crate::control::Delays;
use crate::fault::Fault;
use crate::installation::{TOPOLOGIES, word};
use crate::truth::{Slow, Tally, Trouble};

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
    /// The starts and checks before the fault began.
    pub(crate) starts_before: usize,
    pub(crate) checks_before: usize,
    /// The tally at the end.
    pub(crate) tally: Tally,
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
    /// How long a check took, less what the machine added to it.
    fn excess(&self, slow: &Slow) -> Duration {
        let delays = self.delays.within(slow.sent, slow.answered);
        (slow.answered - slow.sent).saturating_sub(delays)
    }

    /// The longest check, less what the machine added to it.
    fn longest_check(&self) -> Duration {
        let excesses = self.tally.slow.iter().map(|slow| self.excess(slow));
        excesses.max().unwrap_or_default()
    }

    /// How often that happened from when the fault began.
    fn count(&self, trouble: Trouble) -> usize {
        self.tally.count(trouble, self.began)
    }

    /// How long after the beginning of the fault the last thing happened that shouldn't.
    fn normal_after(&self) -> Duration {
        let times = self.tally.troubles.iter().map(|&(when, _)| when);
        let last = times.max().unwrap_or_default();
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
        seen.tally.starts - seen.starts_before,
        seen.count(Trouble::Above),
        seen.count(Trouble::WronglyRefused),
        seen.count(Trouble::CutOff),
        seen.count(Trouble::Failed),
        seen.tally.leaked.as_secs_f64(),
        seen.tally.longest_leak.as_secs_f64(),
        seen.normal_after().as_secs_f64(),
    )
}

/// A row for who watches the run, and what explains it: what went wrong in which second after the
/// fault began, and the longest checks.
pub(crate) fn line(row: &Row, seen: &Seen) -> String {
    let before = seen.tally.troubles.iter();
    let before = before.filter(|(when, _)| *when < seen.began).count();
    let mut text = format!(
        "| {} {}\n    before the fault: {before} of {} checks in trouble; left over {:?}; the machine's longest delay {:.0} ms",
        word(row.topology),
        cells(row, seen),
        seen.checks_before,
        seen.left_over,
        seen.delays.longest().as_secs_f64() * 1000.0,
    );
    for trouble in [
        Trouble::Above,
        Trouble::WronglyRefused,
        Trouble::CutOff,
        Trouble::Failed,
    ] {
        let mut seconds = BTreeMap::<u64, usize>::new();
        for (when, _) in seen.tally.troubles.iter().filter(|it| it.1 == trouble) {
            let after = when.saturating_sub(seen.began).as_secs();
            *seconds.entry(after).or_default() += 1;
        }
        if !seconds.is_empty() {
            let _ = write!(text, "\n    {trouble:?} by second: {seconds:?}");
        }
    }
    let mut slow: Vec<&Slow> = seen.tally.slow.iter().collect();
    slow.sort_by_key(|slow| Reverse(seen.excess(slow)));
    for slow in slow.into_iter().take(3) {
        let after = slow.sent.as_secs_f64() - seen.began.as_secs_f64();
        let (took, asked, verdict) = (seen.excess(slow), slow.asked, slow.verdict);
        let _ = write!(
            text,
            "\n    {asked} at {after:.2} s: {took:.0?} {verdict:?}"
        );
    }
    text
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
