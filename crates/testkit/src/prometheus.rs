//! Owns running a Prometheus on a free port with the shipped configuration pointed at the processes
//! of a test or a measurement.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::envoy_files::read;
use crate::port::ReservedPort;
use crate::process::{Process, command};
use crate::tools::{find, repository};
use crate::watch::{SLOWLY, eventually_within};

/// The folder of the shipped files, and its files of rules.
const SHIPPED: &str = "deploy/prometheus";
const RULES: [&str; 2] = ["alerts", "recording"];

/// Often, so that a scene of some seconds leaves enough to compute rates from.
const SCRAPE_INTERVAL: &str = "500ms";

/// The folder that holds prometheus and promtool: `STREAMGATE_TEST_PROMETHEUS`, else what the script
/// finds.
pub fn programs() -> PathBuf {
    find(
        "STREAMGATE_TEST_PROMETHEUS",
        "tests/tools/get-prometheus.sh",
    )
}

/// A running Prometheus with the shipped rules.
#[derive(Debug)]
pub struct Prometheus {
    address: SocketAddr,
    client: reqwest::Client,
    _process: Process,
    _port: ReservedPort,
    _folder: TempDir,
}

impl Prometheus {
    /// Starts it with the shipped configuration, but with these targets and shorter intervals. It
    /// has scraped all of them when this returns.
    pub async fn start(streamgates: &[SocketAddr], envoy: SocketAddr) -> Self {
        Self::start_sped_up(streamgates, envoy, 1).await
    }

    /// The same where each duration in the rules is a so many times shorter one, so that a fault of
    /// seconds is to them what one of minutes is to the shipped ones.
    pub async fn start_sped_up(streamgates: &[SocketAddr], envoy: SocketAddr, times: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("prometheus.json");
        let mut config = configuration(streamgates, envoy);
        if times > 1 {
            let copies = RULES.map(|name| {
                let rules = sped_up(read(&format!("{SHIPPED}/rules/{name}.yml")), times);
                let copy = folder.path().join(format!("{name}.json"));
                std::fs::write(&copy, rules.to_string()).unwrap();
                copy.to_string_lossy().into_owned()
            });
            config["rule_files"] = json!(copies);
        }
        std::fs::write(&file, config.to_string()).unwrap();
        let port = ReservedPort::reserve();
        let address = port.address();
        let mut prometheus = command(programs().join("prometheus"));
        prometheus
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=warn");
        let mut process = Process::start("prometheus", prometheus);
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("http://{address}/-/ready");
        eventually_within(SLOWLY, "Prometheus is ready", async || {
            process.says("it runs", |_| Some(())).await;
            let answer = client.get(&url).send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
        let prometheus = Self {
            address,
            client,
            _process: process,
            _port: port,
            _folder: folder,
        };
        let all = streamgates.len() + 1;
        eventually_within(SLOWLY, "it has asked everybody", async || {
            let up = prometheus.instant("sum(up)").await;
            (up.first()? == &all.to_string()).then_some(())
        })
        .await;
        prometheus
    }

    /// What its API answers to that question.
    pub async fn ask(&self, path: &str, query: &[(&str, &str)]) -> Value {
        let url = format!("http://{}/api/v1/{path}", self.address);
        let url = reqwest::Url::parse_with_params(&url, query).unwrap();
        let asked = self.client.get(url).send().await.unwrap();
        let answer: Value = asked.json().await.unwrap();
        assert_eq!(answer["status"], "success", "{path} {query:?}: {answer}");
        answer["data"].clone()
    }

    /// The values of an expression now.
    pub async fn instant(&self, expr: &str) -> Vec<String> {
        let data = self.ask("query", &[("query", expr)]).await;
        let found = data["result"].as_array().unwrap().iter();
        found
            .map(|series| series["value"][1].as_str().unwrap().to_owned())
            .collect()
    }

    /// The names of the alerts that have fired in the last seconds.
    pub async fn fired(&self, seconds: u64) -> BTreeSet<String> {
        let firing = r#"ALERTS{alertstate="firing"}"#;
        let fired = format!("count by (alertname) (last_over_time({firing}[{seconds}s]))");
        let data = self.ask("query", &[("query", &fired)]).await;
        let found = data["result"].as_array().unwrap().iter();
        found
            .map(|series| series["metric"]["alertname"].as_str().unwrap().to_owned())
            .collect()
    }

    /// All values that an expression has had in the last minutes.
    pub async fn history(&self, expr: &str) -> Vec<f64> {
        let now = self.instant("vector(time())").await;
        let now: f64 = now[0].parse().unwrap();
        let (start, end) = ((now - 120.0).to_string(), now.to_string());
        let range = [
            ("query", expr),
            ("start", &start),
            ("end", &end),
            ("step", "0.5"),
        ];
        let data = self.ask("query_range", &range).await;
        let series = data["result"].as_array().unwrap().iter();
        series
            .flat_map(|series| series["values"].as_array().unwrap())
            .map(|point| point[1].as_str().unwrap().parse().unwrap())
            .collect()
    }
}

/// Rules in which each duration is so many times shorter.
fn sped_up(mut rules: Value, times: u64) -> Value {
    let groups = rules["groups"].as_array_mut().unwrap();
    let all = groups
        .iter_mut()
        .flat_map(|group| group["rules"].as_array_mut().unwrap());
    for rule in all {
        for key in ["for", "keep_firing_for"] {
            if let Some(text) = rule[key].as_str() {
                rule[key] = shorter(text, times).expect("a duration").into();
            }
        }
        let expr = rule["expr"].as_str().unwrap();
        let mut parts = expr.split('[');
        let mut written = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (range, rest) = part.split_once(']').expect("a closing bracket");
            let range = shorter(range, times).unwrap_or_else(|| range.to_owned());
            written.push_str(&format!("[{range}]{rest}"));
        }
        rule["expr"] = written.into();
    }
    rules
}

/// A duration of minutes, hours or days that is so many times shorter; `None` if it is none.
fn shorter(duration: &str, times: u64) -> Option<String> {
    let unit = match duration.chars().last()? {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return None,
    };
    let number: u64 = duration[..duration.len() - 1].parse().ok()?;
    Some(format!("{}ms", number * unit * 1_000 / times))
}

/// The shipped configuration with other targets.
fn configuration(streamgates: &[SocketAddr], envoy: SocketAddr) -> Value {
    let mut config = read(&format!("{SHIPPED}/prometheus.yml"));
    config["global"]["scrape_interval"] = SCRAPE_INTERVAL.into();
    config["global"]["evaluation_interval"] = SCRAPE_INTERVAL.into();
    let rules = config["rule_files"].as_array_mut().unwrap();
    for file in rules {
        let path = format!("{SHIPPED}/{}", file.as_str().unwrap());
        *file = repository(&path).to_str().unwrap().into();
    }
    let targets = |job: &str| match job {
        "streamgate" => json!(streamgates),
        "envoy" => json!([envoy]),
        other => panic!("nobody here is for the job {other}"),
    };
    for job in config["scrape_configs"].as_array_mut().unwrap() {
        let targets = targets(job["job_name"].as_str().unwrap());
        let job = job.as_object_mut().unwrap();
        job.remove("dns_sd_configs");
        job.insert("static_configs".to_owned(), json!([{"targets": targets}]));
    }
    config
}
