//! Owns running `promtool`, and a Prometheus on a free port with the shipped configuration pointed
//! at the processes of a test.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

use testkit::envoy_files::read;
use testkit::port::ReservedPort;
use testkit::process::{Process, command};
use testkit::tools::{find, repository};
use testkit::watch::{SLOWLY, eventually_within, within};

/// Longer than a busy machine takes.
const PROMTOOL_WITHIN: Duration = Duration::from_secs(300);
/// Often, so that a scene of some seconds leaves enough to compute rates from.
const SCRAPE_INTERVAL: &str = "500ms";

/// The folder that holds both programs: `STREAMGATE_TEST_PROMETHEUS`, else what the script finds.
fn folder() -> PathBuf {
    find(
        "STREAMGATE_TEST_PROMETHEUS",
        "tests/tools/get-prometheus.sh",
    )
}

/// Runs `promtool` in the root of the repository on that input; what it printed.
pub(super) async fn promtool(arguments: &[&str], input: &str) -> String {
    let mut promtool = command(folder().join("promtool"));
    promtool
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut running = promtool.spawn().unwrap();
    let mut stdin = running.stdin.take().unwrap();
    let asking = async {
        stdin.write_all(input.as_bytes()).await.unwrap();
        drop(stdin);
        running.wait_with_output().await.unwrap()
    };
    let Output {
        status,
        stdout,
        stderr,
    } = within(PROMTOOL_WITHIN, "promtool ends", asking).await;
    let said = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
    assert!(status.success(), "promtool {arguments:?} {status}\n{said}");
    said
}

/// A running Prometheus with the shipped rules.
#[derive(Debug)]
pub(super) struct Prometheus {
    address: SocketAddr,
    client: reqwest::Client,
    _process: Process,
    _port: ReservedPort,
    _folder: TempDir,
}

impl Prometheus {
    /// Starts it with the shipped configuration, but with these targets and shorter intervals. It
    /// has scraped all of them when this returns.
    pub(super) async fn start(streamgates: &[SocketAddr], envoy: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("prometheus.json");
        let config = configuration(streamgates, envoy);
        std::fs::write(&file, config.to_string()).unwrap();
        let port = ReservedPort::reserve();
        let address = port.address();
        let mut prometheus = command(super::tools::folder().join("prometheus"));
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
    pub(super) async fn ask(&self, path: &str, query: &[(&str, &str)]) -> Value {
        let url = format!("http://{}/api/v1/{path}", self.address);
        let url = reqwest::Url::parse_with_params(&url, query).unwrap();
        let asked = self.client.get(url).send().await.unwrap();
        let answer: Value = asked.json().await.unwrap();
        assert_eq!(answer["status"], "success", "{path} {query:?}: {answer}");
        answer["data"].clone()
    }

    /// The values of an expression now.
    pub(super) async fn instant(&self, expr: &str) -> Vec<String> {
        let data = self.ask("query", &[("query", expr)]).await;
        let found = data["result"].as_array().unwrap().iter();
        found
            .map(|series| series["value"][1].as_str().unwrap().to_owned())
            .collect()
    }

    /// All values that an expression has had in the last minutes.
    pub(super) async fn history(&self, expr: &str) -> Vec<f64> {
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

/// The shipped configuration with other targets.
fn configuration(streamgates: &[SocketAddr], envoy: SocketAddr) -> Value {
    let mut config = read("deploy/prometheus/prometheus.yml");
    config["global"]["scrape_interval"] = SCRAPE_INTERVAL.into();
    config["global"]["evaluation_interval"] = SCRAPE_INTERVAL.into();
    let rules = config["rule_files"].as_array_mut().unwrap();
    for file in rules {
        let path = format!("deploy/prometheus/{}", file.as_str().unwrap());
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
