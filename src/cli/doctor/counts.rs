//! The counts in an instance's metrics that `doctor` needs.

/// The counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Connections to the gRPC port that are open now.
    pub(super) connections: u64,
    /// Checks that were answered.
    pub(super) checks: u64,
    /// Checks that allowed a stream to start or continue.
    pub(super) let_in: u64,
    /// Entries of the access log about requests that ended.
    pub(super) ends: u64,
    /// Entries about streams that run.
    pub(super) periodic: u64,
    /// Entries of either kind with our mark.
    pub(super) marked: u64,
    /// Streams that were reported again only after their lease.
    pub(super) lapsed: u64,
}

/// The reasons of checks that allowed a stream to start or continue with a slot.
const LET_IN: [&str; 3] = ["started", "renewed", "held"];

/// The outcomes of entries with our mark.
const MARKED: [&str; 5] = ["renewal", "release", "played", "failed", "superseded"];

impl Counts {
    /// The counts in a text of metrics; `None` if it isn't streamgate's.
    pub(super) fn read(text: &str) -> Option<Self> {
        if !text.contains("\nstreamgate_checks_total{") {
            return None;
        }
        let entries = |label: &str| sum(text, "streamgate_access_log_entries_total", label);
        let checks = |label: &str| sum(text, "streamgate_checks_total", label);
        let outcome = |outcome| entries(&format!("outcome=\"{outcome}\""));
        let reason = |reason| checks(&format!("reason=\"{reason}\""));
        Some(Self {
            connections: sum(text, "streamgate_connections", "port=\"grpc\""),
            checks: checks(""),
            let_in: total(LET_IN.into_iter().map(reason)),
            ends: entries("type=\"end\""),
            periodic: entries("type=\"periodic\""),
            marked: total(MARKED.into_iter().map(outcome)),
            lapsed: sum(text, "streamgate_leases_lapsed_total", ""),
        })
    }

    /// The sum of both.
    pub(super) const fn plus(self, other: Self) -> Self {
        Self {
            connections: self.connections.saturating_add(other.connections),
            checks: self.checks.saturating_add(other.checks),
            let_in: self.let_in.saturating_add(other.let_in),
            ends: self.ends.saturating_add(other.ends),
            periodic: self.periodic.saturating_add(other.periodic),
            marked: self.marked.saturating_add(other.marked),
            lapsed: self.lapsed.saturating_add(other.lapsed),
        }
    }
}

/// The sum of a metric's series with this label. The values of our labels need no escapes.
fn sum(text: &str, metric: &str, label: &str) -> u64 {
    let series = text.lines().filter_map(|line| {
        let (labels, value) = line.strip_prefix(metric)?.rsplit_once(' ')?;
        let is_asked = labels.starts_with('{') && labels.contains(label);
        is_asked.then(|| value.parse::<u64>().ok())?
    });
    total(series)
}

/// The sum of numbers from an untrusted source, or the largest number if it overflows.
fn total(numbers: impl Iterator<Item = u64>) -> u64 {
    numbers.fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Kind;
    use crate::telemetry::Metrics;
    use crate::telemetry::metrics::{EntryOutcome, EntryType, Lapse, Port, Verdict};

    #[test]
    fn the_metrics_show_what_is_counted() {
        let metrics = Metrics::new();
        assert_eq!(Counts::read(&metrics.render()), Some(Counts::default()));
        metrics.connection_opened(Port::Grpc);
        metrics.connection_opened(Port::Http);
        for verdict in [
            Verdict::Started,
            Verdict::Renewed,
            Verdict::Held,
            Verdict::Full,
            Verdict::Preflight,
        ] {
            metrics.check(verdict, None);
        }
        for (entry, outcome) in [
            (EntryType::End, EntryOutcome::Ignored),
            (EntryType::End, EntryOutcome::Release),
            (EntryType::End, EntryOutcome::Played),
            (EntryType::Periodic, EntryOutcome::Renewal),
            (EntryType::Other, EntryOutcome::Malformed),
        ] {
            metrics.entry(entry, outcome);
        }
        metrics.lapse(Lapse::End);
        metrics.start(Kind::Request);
        let counted = Counts {
            connections: 1,
            checks: 5,
            let_in: 3,
            ends: 3,
            periodic: 1,
            marked: 3,
            lapsed: 1,
        };
        assert_eq!(Counts::read(&metrics.render()), Some(counted));
        assert_eq!(counted.plus(counted).ends, 6);
        assert_eq!(Counts::read("<html>"), None);
        // Wrong numbers must not crash it.
        let most = u64::MAX;
        let series = |reason| format!("streamgate_checks_total{{reason=\"{reason}\"}} {most}\n");
        let text = format!("\n{}{}", series("started"), series("renewed"));
        let counts = Counts::read(&text).unwrap();
        assert_eq!((counts.checks, counts.let_in), (most, most));
        assert_eq!(counts.plus(counts).checks, most);
    }
}
