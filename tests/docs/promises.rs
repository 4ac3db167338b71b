//! The names that versions promise: metrics with their labels, configuration keys, reasons. None vanishes without a word in the
//! changelog, and none is new without being promised.

use std::collections::{BTreeMap, BTreeSet};

use streamgate::config::keys;
use streamgate::problem::Reason;
use streamgate::telemetry::Metrics;

use testkit::docs;

/// The promised names, one on each line, by what they are.
const FIXTURE: &str = "tests/fixtures/promised-names.txt";

/// Each metric with its labels.
fn metrics() -> BTreeSet<String> {
    let text = Metrics::new().render();
    let mut found: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let types = text.lines().filter_map(|it| it.strip_prefix("# TYPE "));
    for (name, _) in types.filter_map(|it| it.split_once(' ')) {
        let labels = found.entry(name).or_default();
        let series = text.lines().filter_map(|it| it.strip_prefix(name));
        // A histogram's series are its buckets.
        let series = series.map(|it| it.strip_prefix("_bucket").unwrap_or(it));
        for labelled in series.filter_map(|it| it.strip_prefix('{')) {
            let (pairs, _) = labelled.split_once("} ").unwrap();
            let its = pairs.split(',').map(|pair| pair.split('=').next().unwrap());
            labels.extend(its.filter(|label| *label != "le"));
        }
    }
    let names = found.iter().map(|(name, labels)| {
        let labels: Vec<_> = labels.iter().copied().collect();
        format!("metric {name}{{{}}}", labels.join(","))
    });
    names.collect()
}

/// All names of the code.
fn names() -> BTreeSet<String> {
    let keys = keys().into_iter().map(|(key, _)| format!("key {key}"));
    let reasons = Reason::ALL.iter();
    let reasons = reasons.map(|reason| format!("reason {}", reason.as_str()));
    metrics().into_iter().chain(keys).chain(reasons).collect()
}

/// Whether the changelog says that this name is no longer there.
fn is_told(changelog: &str, name: &str) -> bool {
    let (_, name) = name.split_once(' ').unwrap();
    let (bare, _) = name.split_once('{').unwrap_or((name, ""));
    changelog.split("\n- ").any(|entry| {
        entry.contains(&format!("`{bare}`"))
            && (entry.contains("renamed") || entry.contains("removed"))
    })
}

#[test]
fn no_promised_name_vanishes_without_a_word_in_the_changelog() {
    let fixture = docs::file(FIXTURE);
    let promised: BTreeSet<_> = fixture.lines().map(str::to_owned).collect();
    let (names, changelog) = (names(), docs::file("CHANGELOG.md"));
    let gone: Vec<_> = promised.difference(&names).collect();
    let untold: Vec<_> = gone.iter().filter(|it| !is_told(&changelog, it)).collect();
    assert!(
        untold.is_empty(),
        "gone, and CHANGELOG.md says neither \"renamed\" nor \"removed\": {untold:#?}"
    );
    assert!(gone.is_empty(), "take these out of {FIXTURE}: {gone:#?}");
    let new: Vec<_> = names.difference(&promised).collect();
    assert!(new.is_empty(), "add these to {FIXTURE}: {new:#?}");
}

#[test]
fn the_changelog_tells_of_a_name_where_it_says_that_it_was_renamed_or_removed() {
    let changelog =
        "# Changelog\n- `a.b` is new.\n- `c` was renamed to `d`.\n- `e_total` was removed.";
    assert!(is_told(changelog, "key c") && is_told(changelog, "metric e_total{kind}"));
    assert!(!is_told(changelog, "key a.b") && !is_told(changelog, "reason f"));
}
