//! Owns running the real binary as a process of its own, on free ports, and asking it how it is.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use serde_json::Value;
use streamgate::clock::Stopwatch;
use tokio::process::Command;

use crate::gateway_client::Gateway;
use crate::port::ReservedPort;
use crate::process::Process;
use crate::redis::RedisServer;
use crate::tools::streamgate_program;
use crate::watch::{PATIENCE, SLOWLY, eventually_within, within};

/// A setting: the key as the configuration file has it (`limits.default`), or a variable of the
/// environment in capitals (`RUST_LOG`), and its value.
pub type Setting<'a> = (&'a str, &'a str);

/// A running streamgate.
#[derive(Debug)]
pub struct Streamgate {
    process: Process,
    settings: Vec<(String, String)>,
    /// Where it listens for Envoy.
    pub grpc: SocketAddr,
    /// Where it listens for HTTP.
    pub http: SocketAddr,
    /// Those of gRPC and HTTP, if it is to come back to them.
    ports: Option<[ReservedPort; 2]>,
    /// The group that its process runs in, by which a firewall can tell its packets.
    group: Option<u32>,
}

impl Streamgate {
    /// Starts it with these settings, and returns when it serves.
    pub async fn start(settings: &[Setting<'_>]) -> Self {
        Self::start_on(owned(settings), "127.0.0.1:0", "127.0.0.1:0").await
    }

    /// Starts it for very many calls at once, on that store: no start waits for a slot, sessions
    /// last, and the store's deadline is long.
    pub async fn start_for_crowds(redis: Option<&RedisServer>) -> Self {
        Self::start_for_crowds_with(redis, &[]).await
    }

    /// The same with these settings in addition.
    pub async fn start_for_crowds_with(redis: Option<&RedisServer>, more: &[Setting<'_>]) -> Self {
        let url = redis.map(RedisServer::url);
        let store = url.as_ref().map(|url| {
            [
                ("store.backend", "redis"),
                ("store.redis.urls", url),
                ("store.timeout", "5s"),
            ]
        });
        let store = store.as_ref().map_or(&[][..], |store| &store[..]);
        Self::start_for_crowds_on(&[store, more].concat()).await
    }

    /// The same on the store of these settings.
    pub async fn start_for_crowds_on(store: &[Setting<'_>]) -> Self {
        let crowds = [
            ("limits.grace", "0s"),
            ("leases.playback", "1h"),
            ("leases.request", "1h"),
        ];
        Self::start(&[&crowds, store].concat()).await
    }

    /// The same on addresses that stay reserved while it is down, for a test that restarts it.
    pub async fn start_to_restart(settings: &[Setting<'_>]) -> Self {
        let ports = [ReservedPort::reserve(), ReservedPort::reserve()];
        Self::start_at(owned(settings), ports, None).await
    }

    /// The same in a group of its own, by which a firewall can tell its packets.
    pub async fn start_in_group(group: u32, settings: &[Setting<'_>]) -> Self {
        let ports = [ReservedPort::reserve(), ReservedPort::reserve()];
        Self::start_at(owned(settings), ports, Some(group)).await
    }

    /// Restarts it with the same settings on the same addresses, which [`Self::start_to_restart`]
    /// has reserved.
    pub async fn start_again(mut self) -> Self {
        let ports = self.ports.take().expect("it was started to be restarted");
        Self::start_at(self.settings.clone(), ports, self.group).await
    }

    async fn start_at(
        settings: Vec<(String, String)>,
        ports: [ReservedPort; 2],
        group: Option<u32>,
    ) -> Self {
        let [grpc, http] = ports.each_ref().map(|port| port.address().to_string());
        let mut serve = program(&["serve"], &[]);
        if let Some(group) = group {
            serve.gid(group);
        }
        let mut started = Self::start_as(serve, settings, &grpc, &http).await;
        started.ports = Some(ports);
        started.group = group;
        started
    }

    /// The same where other machines may reach its gRPC port, if nothing is between.
    pub async fn start_open(settings: &[Setting<'_>]) -> Self {
        Self::start_on(owned(settings), "0.0.0.0:0", "127.0.0.1:0").await
    }

    /// The same where it may have no more than so many files open.
    pub async fn start_with_open_files(limit: u32, settings: &[Setting<'_>]) -> Self {
        let mut serve = bare("sh");
        let script = "ulimit -n \"$1\" && exec \"$2\" serve";
        serve.args(["-c", script, "sh", &limit.to_string()]);
        serve.arg(streamgate_program());
        let anywhere = "127.0.0.1:0";
        Self::start_as(serve, owned(settings), anywhere, anywhere).await
    }

    /// The same, but it trusts the authorities in that file instead of the system's.
    pub async fn start_trusting(authorities: &Path, settings: &[Setting<'_>]) -> Self {
        let mut serve = program(&["serve"], &[]);
        serve.env("SSL_CERT_FILE", authorities);
        let anywhere = "127.0.0.1:0";
        Self::start_as(serve, owned(settings), anywhere, anywhere).await
    }

    async fn start_on(settings: Vec<(String, String)>, grpc: &str, http: &str) -> Self {
        Self::start_as(program(&["serve"], &[]), settings, grpc, http).await
    }

    async fn start_as(
        mut serve: Command,
        settings: Vec<(String, String)>,
        grpc: &str,
        http: &str,
    ) -> Self {
        serve
            .env("STREAMGATE_GRPC__LISTEN", grpc)
            .env("STREAMGATE_HTTP__LISTEN", http)
            .env("STREAMGATE_TELEMETRY__LOG_FORMAT", "json");
        for (key, value) in &settings {
            serve.env(variable(key), value);
        }
        let mut process = Process::start("streamgate", serve);
        let (grpc, http) = process.says("streamgate serves", serving_at).await;
        Self {
            process,
            settings,
            grpc,
            http,
            ports: None,
            group: None,
        }
    }

    /// The sum of a metric over all series that have these labels.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let text = self.get("/metrics").await.text().await.unwrap();
        let labels: Vec<String> = labels
            .iter()
            .map(|(label, value)| format!("{label}=\"{value}\""))
            .collect();
        text.lines()
            .filter_map(|line| line.strip_prefix(name)?.split_once(' '))
            .filter(|(series, _)| series.is_empty() || series.starts_with('{'))
            .filter(|(series, _)| labels.iter().all(|label| series.contains(label)))
            .map(|(_, value)| value.parse::<f64>().unwrap())
            .sum()
    }

    /// How many checks came to that.
    pub async fn checks(&self, reason: &str) -> f64 {
        let labels = [("reason", reason)];
        self.metric("streamgate_checks_total", &labels).await
    }

    /// Waits until a metric has a value that will do; how long that took.
    pub async fn metric_becomes(
        &self,
        name: &str,
        labels: &[(&str, &str)],
        will_do: impl Fn(f64) -> bool,
    ) -> Duration {
        let waiting = Stopwatch::start();
        let what = format!("{name}{labels:?} is as wanted");
        eventually_within(SLOWLY, &what, async || {
            will_do(self.metric(name, labels).await)
        })
        .await;
        waiting.elapsed()
    }

    /// Ends a playback through the release hook.
    pub async fn release(&self, user: &str, session: &str) {
        let body = serde_json::json!({"user": user, "session": session});
        let hook = format!("http://{}/v1/release", self.http);
        let answer = client().post(hook).json(&body).send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
    }

    /// The limit of a user, as the answer to a start says it.
    pub async fn limit(&self, user: &str) -> u32 {
        let url = format!("http://{}/v1/users/{user}/sessions/p1", self.http);
        let answer = client().put(url).send().await.unwrap();
        let policy = answer.headers()["ratelimit-policy"].to_str().unwrap();
        let quota = policy.split(';').find_map(|part| part.strip_prefix("q="));
        quota.unwrap().parse().unwrap()
    }

    /// What the HTTP port answers.
    pub async fn get(&self, path: &str) -> reqwest::Response {
        let url = format!("http://{}{path}", self.http);
        client().get(url).send().await.unwrap()
    }

    /// A gateway's connection to it.
    pub async fn gateway(&self) -> Gateway {
        Gateway::connect(self.grpc).await
    }

    /// How much memory it takes now, and the most that it ever took, in KiB, as Linux tells them.
    pub fn memory(&self) -> (u64, u64) {
        let path = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(path).unwrap();
        let field = |name: &str| -> u64 {
            let mut lines = status.lines();
            let rest = lines.find_map(|line| line.strip_prefix(name)).unwrap();
            rest.trim().trim_end_matches(" kB").parse().unwrap()
        };
        (field("VmRSS:"), field("VmHWM:"))
    }

    /// What the system calls it.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Sets how many files it may have open (soft and hard limit), if given; returns the previous
    /// limits.
    pub fn open_files(&self, limits: Option<(u64, u64)>) -> (u64, u64) {
        let id = self.id().try_into().unwrap();
        let (mut soft, mut hard) = (0, 0);
        let files = rlimit::Resource::NOFILE;
        rlimit::prlimit(id, files, limits, Some((&mut soft, &mut hard))).unwrap();
        (soft, hard)
    }

    /// Waits until it has logged that.
    pub async fn says(&self, text: &str) {
        let what = format!("it says {text:?}");
        eventually_within(SLOWLY, &what, async || self.log().contains(text)).await;
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        self.process.output()
    }

    /// Waits until it has logged so many lines with that message at least; all of them.
    pub async fn told(&self, message: &str, count: usize) -> Vec<Value> {
        let what = format!("{count} lines say {message:?}");
        eventually_within(SLOWLY, &what, async || self.lines(message).len() >= count).await;
        self.lines(message)
    }

    /// Waits for the first line with that message.
    pub async fn line(&self, message: &str) -> Value {
        self.line_with(message, |_| true).await
    }

    /// Waits for the first line with that message that will do.
    pub async fn line_with(&self, message: &str, will_do: impl Fn(&Value) -> bool) -> Value {
        let what = format!("a line says {message:?}");
        eventually_within(SLOWLY, &what, async || {
            self.lines(message).into_iter().find(&will_do)
        })
        .await
    }

    /// Its log lines with that message so far. A line is written a moment after its event.
    pub fn lines(&self, message: &str) -> Vec<Value> {
        let log = self.log();
        let lines = log
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        lines
            .filter(|line: &Value| line["message"] == message)
            .collect()
    }

    /// Asks it to stop, and doesn't wait.
    pub async fn sigterm(&self) {
        self.process.signal("TERM").await;
    }

    /// Sends it a signal by its name.
    pub async fn signal(&self, name: &str) {
        self.process.signal(name).await;
    }

    /// Waits until it ends without being stopped.
    pub async fn stopped(&mut self) -> ExitStatus {
        self.process.ended().await
    }

    /// Kills it where it stands.
    pub async fn kill(&mut self) {
        self.process.kill().await;
    }
}

impl Drop for Streamgate {
    fn drop(&mut self) {
        let log = self.log();
        if let (Some(line), false) = (
            log.lines().find(|line| line.contains("panicked")),
            std::thread::panicking(),
        ) {
            panic!("streamgate panicked: {line}");
        }
    }
}

/// The program, with these settings and none of our environment.
pub fn program(arguments: &[&str], settings: &[Setting<'_>]) -> Command {
    let mut command = bare(streamgate_program());
    let variables = settings.iter().map(|(key, value)| (variable(key), value));
    command.args(arguments).envs(variables);
    command
}

/// Runs it to its end; its exit code, and what it said on standard output and standard error.
pub async fn run(arguments: &[&str], settings: &[Setting<'_>]) -> (i32, String, String) {
    let running = program(arguments, settings).output();
    let ended = within(PATIENCE, "streamgate ends", running).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let code = ended.status.code().expect("no signal ends it");
    (code, text(ended.stdout), text(ended.stderr))
}

/// A command with an empty environment, killed when it is dropped.
fn bare(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().kill_on_drop(true);
    command
}

/// The variable that a setting goes into.
fn variable(key: &str) -> String {
    if key.contains(char::is_lowercase) {
        let path = key.replace('.', "__").to_ascii_uppercase();
        format!("STREAMGATE_{path}")
    } else {
        key.to_owned()
    }
}

fn owned(settings: &[Setting<'_>]) -> Vec<(String, String)> {
    settings
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

/// A client with no memory of other requests.
fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// The addresses in the line that says that it serves.
fn serving_at(log: &str) -> Option<(SocketAddr, SocketAddr)> {
    let mut lines = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let line = lines.find(|line| line.get("message").is_some_and(|text| text == "serving"))?;
    let address = |name| line.get(name)?.as_str()?.parse().ok();
    Some((address("grpc")?, address("http")?))
}
