//! The dashboard and the rules, asked of a Prometheus that watches real processes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::names::{metrics, selectors};
use super::scene::Scene;
use super::tools::promtool;
use testkit::envoy_files::read;
use testkit::prometheus::Prometheus;
use testkit::tools::repository;
use testkit::watch::{SLOWLY, eventually_within};

const DASHBOARD: &str = "deploy/grafana/dashboards/streamgate.json";
/// Series that stay at zero in the scene: alerts take minutes, no delivery is given up within half
/// a minute, the log is written, and this gateway lets no stream in unchecked.
const STAYS_AT_ZERO: [&str; 4] = [
    "count(ALERTS",
    "streamgate_log_lines_dropped_total",
    "streamgate_releaser_dropped_total",
    "envoy_http_ext_authz_failure_mode_allowed",
];

/// A query, as Prometheus is asked it, and where it stands.
#[derive(Debug)]
struct Query {
    place: String,
    expr: String,
}

/// The dashboard.
fn dashboard() -> Value {
    let text = std::fs::read_to_string(repository(DASHBOARD)).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn list<'a>(of: &'a Value, name: &str) -> &'a Vec<Value> {
    of[name].as_array().unwrap()
}

/// Every expression in it, with its variables filled in as they are when all is chosen.
fn queries(dashboard: &Value) -> Vec<Query> {
    let mut found = Vec::new();
    for panel in list(dashboard, "panels") {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expr = target["expr"].as_str().unwrap();
            found.push(Query {
                place: panel["title"].as_str().unwrap().to_owned(),
                // Four times what lies between two looks, as Grafana has it.
                expr: expr
                    .replace("$__rate_interval", "4s")
                    .replace("$instance", ".*")
                    .replace("$gateway", ".*"),
            });
        }
    }
    found
}

/// The metric and the label whose values a variable offers.
fn offers(variable: &Value) -> (String, String) {
    let query = variable["query"]["query"].as_str().unwrap();
    let inner = query.strip_prefix("label_values(").unwrap();
    let (metric, label) = inner.strip_suffix(')').unwrap().split_once(", ").unwrap();
    (metric.to_owned(), label.to_owned())
}

/// All values that each label of a metric has.
async fn values(prometheus: &Prometheus, metric: &str) -> BTreeMap<String, BTreeSet<String>> {
    let start = [("match[]", metric), ("start", "0")];
    let series = prometheus.ask("series", &start).await;
    let mut values: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for labels in series.as_array().unwrap() {
        for (label, value) in labels.as_object().unwrap() {
            let value = value.as_str().unwrap().to_owned();
            values.entry(label.clone()).or_default().insert(value);
        }
    }
    values
}

/// Whether a query has returned data, and a value other than zero if the scene causes one.
async fn has_data(prometheus: &Prometheus, query: &Query) -> bool {
    let points = prometheus.history(&query.expr).await;
    let mut finite = points.iter().filter(|point| point.is_finite());
    if STAYS_AT_ZERO.iter().any(|zero| query.expr.contains(zero)) {
        return finite.next().is_some();
    }
    finite.any(|point| *point != 0.0)
}

/// All rules, as Prometheus has evaluated them; none has failed.
async fn evaluated_rules(prometheus: &Prometheus) -> Vec<String> {
    let rules = prometheus.ask("rules", &[]).await;
    let groups = list(&rules, "groups").iter();
    let rules = groups.flat_map(|group| list(group, "rules"));
    rules
        .map(|rule| {
            assert_eq!(rule["health"], "ok", "{rule}");
            rule["query"].as_str().unwrap().to_owned()
        })
        .collect()
}

/// Each metric exists, and each value that a label of it is to have or not to have.
async fn exist(prometheus: &Prometheus, exprs: &[&str]) {
    let mut known = BTreeMap::new();
    for metric in metrics(exprs) {
        let values = values(prometheus, &metric).await;
        assert!(!values.is_empty(), "there is no {metric}");
        known.insert(metric, values);
    }
    for expr in exprs {
        for selector in selectors(expr) {
            let values = &known[&selector.metric];
            for (label, value) in &selector.labels {
                let has = values.get(label);
                assert!(
                    has.is_some_and(|has| value == ".*" || has.contains(value)),
                    "no {} has a {label} that is {value}: {expr}",
                    selector.metric
                );
            }
        }
    }
}

/// How many series each instance of a job has.
async fn series(prometheus: &Prometheus, job: &str) -> Vec<String> {
    let expr = format!("scrape_samples_scraped{{job=\"{job}\"}}");
    prometheus.instant(&expr).await
}

#[tokio::test]
async fn every_query_of_the_dashboard_and_every_rule_finds_what_has_happened() {
    let mut scene = Scene::start().await;
    let before = series(&scene.prometheus, "streamgate").await;
    let streams = scene.plays().await;

    // The metrics themselves are well-formed, and there are as many after all this as before.
    for streamgate in &scene.streamgates {
        let url = format!("http://{}/metrics", streamgate.http);
        let text = reqwest::get(url).await.unwrap().text().await.unwrap();
        assert_eq!(promtool(&["check", "metrics"], &text).await, "");
    }
    let after = series(&scene.prometheus, "streamgate").await;
    assert_eq!(
        before, after,
        "the number of series depends on what happens"
    );
    let of_envoy = series(&scene.prometheus, "envoy").await;
    println!("measured: series of one streamgate {after:?}, of one Envoy {of_envoy:?}");

    scene.ends(streams).await;
    let (prometheus, dashboard) = (&scene.prometheus, dashboard());
    let queries = queries(&dashboard);
    assert!(queries.len() > 40, "{}", queries.len());
    for query in &queries {
        let what = format!("{} shows something: {}", query.place, query.expr);
        eventually_within(SLOWLY, &what, async || {
            has_data(prometheus, query).await.then_some(())
        })
        .await;
    }
    let rules = evaluated_rules(prometheus).await;
    let asked = queries.iter().map(|query| &query.expr).chain(&rules);
    exist(prometheus, &asked.map(String::as_str).collect::<Vec<_>>()).await;
    for variable in list(&dashboard["templating"], "list") {
        if variable["type"] == "query" {
            let (metric, label) = offers(variable);
            let values = values(prometheus, &metric).await;
            assert!(values.contains_key(&label), "{variable}");
        }
    }
}

#[test]
fn each_panel_says_what_it_shows_and_in_what_unit_and_asks_the_chosen_prometheus() {
    let dashboard = dashboard();
    let mut ids = BTreeSet::new();
    for panel in list(&dashboard, "panels") {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        if panel["type"] == "row" {
            continue;
        }
        let title = panel["title"].as_str().unwrap();
        let says = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
        assert!(says(&panel["description"]), "{title}");
        assert!(says(&panel["fieldConfig"]["defaults"]["unit"]), "{title}");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        for target in list(panel, "targets") {
            assert!(says(&target["legendFormat"]), "{title}");
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
        }
    }
}

#[test]
fn grafana_is_told_of_the_dashboard_and_of_prometheus() {
    let provider = &read("deploy/grafana/provisioning/dashboards/streamgate.yml")["providers"][0];
    assert_eq!(provider["type"], "file");
    assert_eq!(provider["options"]["path"], "/var/lib/grafana/dashboards");
    let source = &read("deploy/grafana/provisioning/datasources/prometheus.yml")["datasources"][0];
    assert_eq!(source["type"], "prometheus");
    // What a rate is computed over follows from how often Prometheus asks.
    let config = read("deploy/prometheus/prometheus.yml");
    assert_eq!(
        source["jsonData"]["timeInterval"],
        config["global"]["scrape_interval"]
    );
}
