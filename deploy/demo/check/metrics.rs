//! The metrics: streamgate's counts must agree with what the clients have seen.

use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Client;
use serde_json::Value;

use super::step::same;
use super::walk::Walk;
use crate::clock::Moment;
use crate::failure::{Doing, Failure};
use crate::wire::patiently;

const ASK_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Where to read streamgate's counts.
#[derive(Debug)]
pub(super) enum Counts {
    /// From the only instance.
    OneInstance { metrics: String },
    /// From a Prometheus that scrapes all instances.
    Prometheus { query: String },
}

impl Counts {
    pub(super) fn of_one_instance(api: &str) -> Self {
        let metrics = format!("{api}/metrics");
        Self::OneInstance { metrics }
    }

    pub(super) fn of_prometheus(url: &str) -> Self {
        let query = format!("{url}/api/v1/query?query=");
        Self::Prometheus { query }
    }

    /// How long a count may take to appear there.
    fn patience(&self) -> Duration {
        match self {
            Self::OneInstance { .. } => Duration::from_secs(3),
            Self::Prometheus { .. } => Duration::from_secs(60),
        }
    }

    /// The number of checks with this label.
    async fn checks(&self, client: &Client, label: &str) -> Result<u64, Failure> {
        match self {
            Self::OneInstance { metrics } => {
                let metrics = read(client, metrics).await?;
                let series = metrics.lines().filter(|line| {
                    line.starts_with("streamgate_checks_total{") && line.contains(label)
                });
                Ok(series
                    .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
                    .sum())
            }
            Self::Prometheus { .. } => {
                let sum = format!("sum(streamgate_checks_total{{{label}}})");
                let found = self.ask(client, &sum).await?;
                found.parse().doing(|| format!("read {found} as a count"))
            }
        }
    }

    /// Prometheus's answer to a query with one result; 0 if there is none yet.
    pub(super) async fn ask(&self, client: &Client, expression: &str) -> Result<String, Failure> {
        let Self::Prometheus { query } = self else {
            return Err(Failure::new("there is no Prometheus to ask"));
        };
        let expression = utf8_percent_encode(expression, NON_ALPHANUMERIC);
        let answer = read(client, &format!("{query}{expression}")).await?;
        let answer: Value =
            serde_json::from_str(&answer).doing(|| format!("understand Prometheus: {answer}"))?;
        same(
            "Prometheus answers",
            &Value::from("success"),
            answer.get("status").unwrap_or(&Value::Null),
        )?;
        let value = answer.pointer("/data/result/0/value/1");
        Ok(value.and_then(Value::as_str).unwrap_or("0").to_owned())
    }
}

/// Waits until the counts agree with what the viewers saw.
pub(super) async fn agree(walk: &Walk) -> Result<(), Failure> {
    let (allowed, full) = walk.gateway.tally();
    let labels = ["decision=\"allow\"", "reason=\"full\""];
    let began = Moment::now();
    loop {
        let mut counted = [0; 2];
        for (counted, label) in counted.iter_mut().zip(labels) {
            *counted = walk.counts.checks(&walk.back_end, label).await?;
        }
        if counted == [allowed, full] || began.elapsed() > walk.counts.patience() {
            return same(
                "streamgate_checks_total, allowed and refused as full",
                [allowed, full],
                counted,
            );
        }
        tokio::time::sleep(ASK_AGAIN_AFTER).await;
    }
}

async fn read(client: &Client, url: &str) -> Result<String, Failure> {
    let answer = patiently("read the metrics", client.get(url).send()).await?;
    patiently("read the metrics", answer.text()).await
}
