//! What an expression asks for by name.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use regex::Regex;

/// A metric, and the labels that an expression requires.
#[derive(Debug)]
pub(super) struct Selector {
    pub(super) metric: String,
    /// Each label, and each value that it is to have, or is not to have.
    pub(super) labels: Vec<(String, String)>,
}

/// The metrics of ours and of Envoy's that an expression asks for, those of our recording rules
/// included.
pub(super) fn selectors(expr: &str) -> Vec<Selector> {
    static METRIC: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(
            r"\b((?:(?:job|instance):)?(?:streamgate|envoy)_[a-z0-9_:]+|up)\b(?:\{([^}]*)\})?",
        )
        .unwrap()
    });
    static LABEL: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r#"([a-z_]+)(?:=~|!~|!=|=)"([^"]*)""#).unwrap());
    static GROUPING: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\bby \([^)]*\)").unwrap());
    METRIC
        .captures_iter(&GROUPING.replace_all(expr, ""))
        .map(|found| {
            let demands = found.get(2).map_or("", |labels| labels.as_str());
            let labels = LABEL.captures_iter(demands).flat_map(|label| {
                let (name, values) = (label[1].to_owned(), label[2].to_owned());
                let values = values.split('|').map(str::to_owned).collect::<Vec<_>>();
                values.into_iter().map(move |value| (name.clone(), value))
            });
            Selector {
                metric: found[1].to_owned(),
                labels: labels.collect(),
            }
        })
        .collect()
}

/// The metrics alone.
pub(super) fn metrics(exprs: &[&str]) -> BTreeSet<String> {
    let all = exprs.iter().flat_map(|expr| selectors(expr));
    all.map(|selector| selector.metric).collect()
}

#[test]
fn what_an_expression_asks_for_is_found_in_it() {
    let expr = r#"sum by (job, envoy_name) (rate(streamgate_checks_total{reason=~"full|ended",decision!="allow"}[5m])) / job:streamgate_up:sum and up == 1"#;
    let found = selectors(expr);
    let labels: Vec<(&str, &str)> = found[0]
        .labels
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    assert_eq!(
        labels,
        [
            ("reason", "full"),
            ("reason", "ended"),
            ("decision", "allow")
        ]
    );
    assert_eq!(
        metrics(&[expr]).into_iter().collect::<Vec<_>>(),
        ["job:streamgate_up:sum", "streamgate_checks_total", "up"]
    );
}
