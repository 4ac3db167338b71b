//! The files for Prometheus and Grafana, tested with the real tools: `promtool`, and a Prometheus
//! that scrapes real processes.

// Every query of the dashboard and the rules, run against a Prometheus that watches a scene in
// which everything happens.
mod dashboard;
// Every metric, label and value that is asked for is one that there is.
mod names;
// The rules alone: each alert fires and clears, and has its section in the runbook.
mod rules;
// The scene.
mod scene;
// The processes, and queries to them.
mod tools;
