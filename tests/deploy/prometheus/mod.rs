//! What is shipped for Prometheus and Grafana, held to the real thing: `promtool`, and a Prometheus that asks real processes.

// Every query of the dashboard and of the rules, asked of a Prometheus that watches a scene in which everything happens.
mod dashboard;
// Every metric, label and value that is asked for is one that there is.
mod names;
// The rules by themselves: each alert fires and clears, and has its paragraph of the runbook.
mod rules;
// The scene.
mod scene;
// The processes, and what is asked of them.
mod tools;
