//! The rules alone.

use std::collections::BTreeSet;

use serde_json::Value;

use super::tools::promtool;
use testkit::docs::{self, anchor};
use testkit::envoy_files::read;

const ALERTS: &str = "deploy/prometheus/rules/alerts.yml";
/// The page with a section for each alert.
const RUNBOOKS: &str = "docs/runbooks.md";
/// What `promtool test rules` is given.
const TESTS: [&str; 2] = [
    "tests/deploy/prometheus/alerts.yml",
    "tests/deploy/prometheus/dry_run.yml",
];

/// The alerts there are.
fn alerts() -> Vec<Value> {
    let groups = read(ALERTS)["groups"].clone();
    let groups = groups.as_array().unwrap().iter();
    groups
        .flat_map(|group| group["rules"].as_array().unwrap().clone())
        .collect()
}

fn name(alert: &Value) -> &str {
    alert["alert"].as_str().unwrap()
}

/// The names of alerts that these expectations have firing, or not.
fn expected(of: &Value, firing: bool) -> BTreeSet<String> {
    let tests = of["alert_rule_test"].as_array().into_iter().flatten();
    tests
        .filter(|test| test["exp_alerts"].as_array().unwrap().is_empty() != firing)
        .map(|test| test["alertname"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn prometheus_understands_the_shipped_files() {
    for (what, file) in [
        ("config", "deploy/prometheus/prometheus.yml"),
        ("rules", ALERTS),
        ("rules", "deploy/prometheus/rules/recording.yml"),
    ] {
        let said = promtool(&["check", what, file], "").await;
        assert!(said.contains("SUCCESS"), "{said}");
    }
}

#[tokio::test]
async fn each_alert_fires_and_clears_and_is_silent_where_it_would_be_false() {
    let (main, slow) = tokio::join!(
        promtool(&["test", "rules", TESTS[0]], ""),
        promtool(&["test", "rules", TESTS[1]], "")
    );
    assert!(main.contains("SUCCESS") && slow.contains("SUCCESS"));
}

#[test]
fn each_alert_has_a_test_in_which_it_fires_and_clears_and_one_in_which_it_keeps_still() {
    let tests: Vec<Value> = TESTS
        .iter()
        .flat_map(|file| read(file)["tests"].as_array().unwrap().clone())
        .collect();
    for alert in &alerts() {
        let name = name(alert);
        let is_in = |test: &Value, firing| expected(test, firing).contains(name);
        let clears = |test: &Value| {
            let mut of_it = test["alert_rule_test"].as_array().into_iter().flatten();
            let last = of_it.rfind(|test| test["alertname"] == name);
            last.is_some_and(|last| last["exp_alerts"].as_array().unwrap().is_empty())
        };
        let mut found = tests.iter();
        assert!(
            found.any(|test| is_in(test, true) && clears(test)),
            "{name} fires and clears in no test"
        );
        // What may not happen even once has no near miss.
        let mut found = tests.iter();
        assert!(
            found.any(|test| is_in(test, false) && !is_in(test, true))
                || name == "StreamgateStoreForgot",
            "{name} is silent in no test of its own"
        );
    }
}

#[test]
fn each_alert_has_a_severity_and_a_paragraph_of_the_runbook_and_the_runbook_has_no_other() {
    let runbook = docs::text(RUNBOOKS);
    let mut paragraphs = BTreeSet::new();
    for paragraph in runbook.split("\n### ").skip(1) {
        let (heading, body) = paragraph.split_once('\n').unwrap();
        for part in ["*What the viewer sees.*", "*Look at*", "*Do.*"] {
            assert!(body.contains(part), "{heading} lacks {part}");
        }
        paragraphs.insert(format!("{RUNBOOKS}#{}", anchor(heading)));
    }
    let mut named = BTreeSet::new();
    for alert in &alerts() {
        let severity = alert["labels"]["severity"].as_str().unwrap();
        assert!(
            severity.contains("page") || severity.contains("ticket"),
            "{alert}"
        );
        assert!(alert["annotations"]["summary"].is_string(), "{alert}");
        let runbook = alert["annotations"]["runbook"].as_str().unwrap();
        assert!(
            runbook.ends_with(&format!("#{}", anchor(name(alert)))),
            "{alert}"
        );
        named.insert(runbook.to_owned());
    }
    assert_eq!(named, paragraphs);
}
