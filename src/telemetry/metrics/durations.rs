//! Histograms of durations, as counters. Those of the exporter keep each value until somebody folds
//! them into buckets: 24 bytes and a reading of the clock for each check.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::LabelPair;
use super::named::Named;

/// The upper bounds of the buckets, in nanoseconds, and in seconds as they are written: from an
/// answer from memory to Envoy's timeout.
const BUCKETS: [(u64, &str); 14] = [
    (50_000, "0.00005"),
    (100_000, "0.0001"),
    (250_000, "0.00025"),
    (500_000, "0.0005"),
    (1_000_000, "0.001"),
    (2_500_000, "0.0025"),
    (5_000_000, "0.005"),
    (10_000_000, "0.01"),
    (25_000_000, "0.025"),
    (50_000_000, "0.05"),
    (100_000_000, "0.1"),
    (250_000_000, "0.25"),
    (500_000_000, "0.5"),
    (1_000_000_000, "1"),
];

/// One histogram.
#[derive(Debug, Default)]
struct Histogram {
    /// How many durations are within each bound and above the one before.
    buckets: [AtomicU64; BUCKETS.len()],
    /// How many are above all bounds.
    above: AtomicU64,
    /// The sum of all, in nanoseconds: it lasts for 584 years.
    nanos: AtomicU64,
}

/// The histograms of one name.
#[derive(Debug)]
pub(super) struct Durations {
    /// The name and the help.
    named: Named,
    /// Each with its label, if it has one.
    each: Vec<(Option<LabelPair>, Histogram)>,
}

impl Histogram {
    /// Counts a duration.
    fn record(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let mut buckets = BUCKETS.iter().zip(&self.buckets);
        let bucket = buckets.find(|((bound, _), _)| nanos <= *bound);
        let bucket = bucket.map_or(&self.above, |(_, bucket)| bucket);
        bucket.fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }
}

impl Durations {
    /// A histogram for each of those labels; one without a label if there are none.
    pub(super) fn new(named: Named, labels: impl IntoIterator<Item = LabelPair>) -> Self {
        let labels = labels.into_iter().map(Some);
        let mut each: Vec<_> = labels.map(|label| (label, Histogram::default())).collect();
        if each.is_empty() {
            each.push((None, Histogram::default()));
        }
        Self { named, each }
    }

    /// Counts a duration in the histogram at that index.
    pub(super) fn record(&self, index: usize, took: Duration) {
        if let Some((_, histogram)) = self.each.get(index) {
            histogram.record(took);
        }
    }

    /// Writes all of them in Prometheus's text format.
    pub(super) fn render(&self, text: &mut String) {
        let Named(name, help) = self.named;
        // Writing to a text never fails.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} histogram");
        for (label, histogram) in &self.each {
            let (label, labels) = label.map_or_else(Default::default, |(key, value)| {
                let label = format!("{key}=\"{value}\"");
                (format!("{label},"), format!("{{{label}}}"))
            });
            let mut count = 0;
            for ((_, bound), bucket) in BUCKETS.iter().zip(&histogram.buckets) {
                count += bucket.load(Ordering::Relaxed);
                let _ = writeln!(text, "{name}_bucket{{{label}le=\"{bound}\"}} {count}");
            }
            count += histogram.above.load(Ordering::Relaxed);
            let sum = Duration::from_nanos(histogram.nanos.load(Ordering::Relaxed)).as_secs_f64();
            let _ = writeln!(
                text,
                "{name}_bucket{{{label}le=\"+Inf\"}} {count}\n{name}_sum{labels} {sum}\n{name}_count{labels} {count}"
            );
        }
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_in_the_first_bucket_that_holds_it_and_in_all_above() {
        let labels = ["a", "b"].map(|value| ("call", value));
        let durations = Durations::new(Named("took", "Time of a call"), labels);
        for (index, micros) in [(0, 50), (0, 51), (1, 1_000_000), (1, 1_000_001), (2, 1)] {
            durations.record(index, Duration::from_micros(micros));
        }
        let mut text = String::new();
        durations.render(&mut text);
        assert!(text.starts_with("# HELP took Time of a call\n# TYPE took histogram\n"));
        for line in [
            "took_bucket{call=\"a\",le=\"0.00005\"} 1\n",
            "took_bucket{call=\"a\",le=\"0.0001\"} 2\n",
            "took_bucket{call=\"a\",le=\"+Inf\"} 2\n",
            "took_sum{call=\"a\"} 0.000101\n",
            "took_count{call=\"a\"} 2\n",
            "took_bucket{call=\"b\",le=\"0.5\"} 0\n",
            "took_bucket{call=\"b\",le=\"1\"} 1\n",
            "took_bucket{call=\"b\",le=\"+Inf\"} 2\n",
        ] {
            assert!(text.contains(line), "no {line} in {text}");
        }
    }

    #[test]
    fn a_histogram_without_a_label_has_none() {
        let mut text = String::new();
        Durations::new(Named("took", "Time"), []).render(&mut text);
        assert!(text.contains("took_bucket{le=\"0.5\"} 0\n"), "{text}");
        assert!(text.ends_with("took_sum 0\ntook_count 0\n\n"), "{text}");
    }

    #[test]
    fn each_bound_is_written_as_it_is() {
        for (nanos, seconds) in BUCKETS {
            let written: f64 = seconds.parse().unwrap();
            assert_eq!(Duration::from_secs_f64(written).as_nanos(), nanos.into());
        }
        assert!(BUCKETS.is_sorted());
    }
}
