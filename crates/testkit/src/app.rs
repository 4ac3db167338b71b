//! Starts the real service inside the test, on ports of its own, and stops it.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::thread::ThreadId;
use std::time::Duration;

use streamgate::app::{App, RunError, Stop, Substitutes};
use streamgate::clock::Clock;
use streamgate::config::{
    Backend, Config, FullRule, Leases, Listen, Origins, OutageRule, Shown, Tls, Topology,
};
use streamgate::identity::{PlanName, Source};
use streamgate::server::ConnectionTimes;
use streamgate::store::Store;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::gateway_client::{Answer, Gateway};
use crate::watch::{PATIENCE, eventually};

/// An app in the making.
#[derive(Debug, Default)]
pub struct Plan {
    config: Config,
    substitutes: Substitutes,
}

/// The text of a tokens file, which lies in a folder of its own until it is dropped.
#[derive(Debug)]
pub struct TokensFile(TempDir);

impl TokensFile {
    /// A file with that text.
    pub fn of(text: &str) -> Self {
        let file = Self(tempfile::tempdir().expect("a folder"));
        file.write(text);
        file
    }

    /// Where the file is.
    pub fn path(&self) -> PathBuf {
        self.0.path().join("tokens")
    }

    /// Puts another text in its place, at one stroke.
    pub fn write(&self, text: &str) {
        let new = self.0.path().join("tokens.new");
        std::fs::write(&new, text).expect("it is written");
        std::fs::rename(new, self.path()).expect("it is put into place");
    }
}

/// A running app. Ends when dropped; [`TestApp::stop`] ends it in good order.
#[derive(Debug)]
pub struct TestApp {
    grpc: SocketAddr,
    http: SocketAddr,
    /// Asks over a connection of its own each time. To make a client is what takes long.
    client: reqwest::Client,
    stop: Stop,
    running: JoinSet<Result<(), RunError>>,
}

// === impl Plan ===

impl Plan {
    /// The limit of everybody.
    pub fn limit(mut self, limit: u32) -> Self {
        self.config.limits.policy.default = limit;
        self
    }

    /// What happens to a start at the limit.
    pub fn when_full(mut self, when_full: FullRule) -> Self {
        self.config.limits.when_full = when_full;
        self
    }

    /// Decides and counts, but refuses no stream.
    pub fn dry_run(mut self) -> Self {
        self.config.limits.enforce = false;
        self
    }

    /// The limit of users on that plan.
    pub fn limit_of_plan(mut self, plan: &str, limit: u32) -> Self {
        let plan = PlanName::parse(plan).expect("a name");
        self.config.limits.policy.plans.insert(plan, limit);
        self
    }

    /// Who may ask what over HTTP.
    pub fn tokens(mut self, file: &TokensFile) -> Self {
        self.config.http.tokens_file = Some(file.path());
        self
    }

    /// Who gets events by POST.
    pub fn webhooks(mut self, file: PathBuf) -> Self {
        self.config.events.webhooks_file = Some(file);
        self
    }

    /// Where users and sessions are named.
    pub fn named_by(mut self, user: &str, session: &str) -> Self {
        let list = |text| Source::parse_list(text).expect("a list of sources");
        self.config.identity.user = list(user);
        self.config.identity.session = list(session);
        self
    }

    /// Where a playback says whose slot it wants.
    pub fn takeover_named_by(mut self, sources: &str) -> Self {
        self.config.identity.takeover = Source::parse_list(sources).expect("a list of sources");
        self
    }

    /// No source has ids that are made for each playback.
    pub fn all_derived(mut self) -> Self {
        self.config.identity.fresh.clear();
        self
    }

    /// What each key in Redis begins with.
    pub fn key_prefix(mut self, prefix: &str) -> Self {
        prefix.clone_into(&mut self.config.store.redis.key_prefix);
        self
    }

    /// Whose scripts may read what the HTTP API answers.
    pub fn origins(mut self, origins: &[&str]) -> Self {
        let these = origins.iter().map(|&origin| origin.to_owned());
        self.config.http.cors_origins = Origins::These(these.collect());
        self
    }

    /// The same for everybody's.
    pub fn any_origin(mut self) -> Self {
        self.config.http.cors_origins = Origins::Any;
        self
    }

    /// By which names browsers may ask without tokens.
    pub fn hosts(mut self, hosts: &[&str]) -> Self {
        self.config.http.hosts = hosts.iter().map(|&host| host.to_owned()).collect();
        self
    }

    /// Where the small API says that a video is.
    pub fn endpoint(mut self, template: &str) -> Self {
        let variable = ("STREAMGATE_HTTP__ENDPOINT".to_owned(), template.to_owned());
        let config = Config::load(None, [variable]).expect("a template");
        self.config.http.endpoint = config.http.endpoint;
        self
    }

    /// How long an HTTP request may take to arrive.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.substitutes.request_timeout = Some(timeout);
        self
    }

    /// What a refusal tells of other sessions.
    pub fn show(mut self, show: &[Shown]) -> Self {
        self.config.refusal.show = show.iter().copied().collect();
        self
    }

    /// Where problems lead.
    pub fn problems(mut self, page: &str) -> Self {
        self.config.refusal.problems = Some(page.to_owned());
        self
    }

    /// How long a start at a full limit waits.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.config.limits.grace = grace;
        self
    }

    /// Counts in that store.
    pub fn store(mut self, store: Arc<dyn Store>) -> Self {
        self.substitutes.store = Some(store);
        self
    }

    /// By that clock, which is the store's too.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.substitutes.clock = Some(clock);
        self
    }

    /// Counts in that Redis, with that deadline for each call.
    pub fn redis(mut self, url: &str, timeout: Duration) -> Self {
        self.config.store.backend = Backend::Redis;
        self.config.store.redis.urls = url.parse().into_iter().collect();
        self.config.store.timeout = timeout;
        self
    }

    /// Counts in the master that those sentinels name, with that deadline for each call.
    pub fn sentinels(mut self, urls: &[String], timeout: Duration) -> Self {
        self.config.store.backend = Backend::Redis;
        self.config.store.redis.topology = Topology::Sentinel;
        let urls = urls.iter().map(|url| url.parse().expect("a URL"));
        self.config.store.redis.urls = urls.collect();
        self.config.store.timeout = timeout;
        self
    }

    /// Counts in the cluster of those nodes, with that deadline for each call.
    pub fn cluster(mut self, urls: &[String], timeout: Duration) -> Self {
        self = self.sentinels(urls, timeout);
        self.config.store.redis.topology = Topology::Cluster;
        self
    }

    /// What decides while the store is out.
    pub fn outage(mut self, rule: OutageRule) -> Self {
        self.config.store.outage = rule;
        self
    }

    /// How long sessions count.
    pub fn leases(mut self, request: Duration, playback: Duration) -> Self {
        self.config.leases = Leases { request, playback };
        self
    }

    /// How long a stream of a gateway may last.
    pub fn stream_age(mut self, age: Duration) -> Self {
        self.substitutes.stream_age = Some(age);
        self
    }

    /// How long clients may take.
    pub fn connection_times(mut self, times: ConnectionTimes) -> Self {
        self.substitutes.connection_times = Some(times);
        self
    }

    /// With TLS at Envoy's port, out of these files.
    pub fn grpc_tls(mut self, cert: PathBuf, key: PathBuf) -> Self {
        self.config.grpc.tls = Some(Tls {
            cert,
            key,
            client_ca: None,
        });
        self
    }

    /// How long the app keeps working after it was asked to stop, and when it ends in any case.
    pub fn drain(mut self, grace: Duration, deadline: Duration) -> Self {
        self.config.shutdown.grace = grace;
        self.config.shutdown.deadline = deadline;
        self
    }

    /// Builds it, and runs it while the test runs.
    pub async fn start(mut self) -> TestApp {
        watch_for_panics();
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        self.config.grpc.listen = Listen::Tcp(free);
        self.config.http.listen = free;
        let built = App::build_with(&self.config, None, self.substitutes).await;
        let app = built.expect("free ports are there");
        let addresses = app.addresses().clone();
        let Listen::Tcp(grpc) = addresses.grpc else {
            panic!("{addresses:?} is not what was asked for");
        };
        let stop = Stop::default();
        let mut running = JoinSet::new();
        running.spawn(app.run(stop.clone()));
        let app = TestApp {
            grpc,
            http: addresses.http,
            client: reqwest::Client::builder()
                .pool_max_idle_per_host(0)
                .build()
                .expect("a client"),
            stop,
            running,
        };
        eventually("it is ready", async || {
            app.get("/readyz").await.status() == 200
        })
        .await;
        app
    }
}

// === impl TestApp ===

impl TestApp {
    /// An app with default settings, except that no start waits at the limit and that it stops
    /// immediately.
    pub fn plan() -> Plan {
        Plan::default()
            .grace(Duration::ZERO)
            .drain(Duration::ZERO, PATIENCE)
    }

    /// A gateway's connection to it.
    pub async fn gateway(&self) -> Gateway {
        Gateway::connect(self.grpc).await
    }

    /// Where it listens for Envoy.
    pub const fn grpc(&self) -> SocketAddr {
        self.grpc
    }

    /// The URL of a path at the HTTP port.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }

    /// What the HTTP port answers at that path.
    pub async fn get(&self, path: &str) -> reqwest::Response {
        let asked = self.client.get(self.url(path)).send();
        asked.await.expect("it answers")
    }

    /// The value of a series, as the metrics show it.
    pub async fn metric(&self, series: &str) -> u64 {
        let text = self.get("/metrics").await.text().await.expect("a text");
        let line = text.lines().find_map(|line| line.strip_prefix(series));
        let value = line.unwrap_or_else(|| panic!("no {series} in {text}"));
        value.trim().parse().expect("a whole number")
    }

    /// Access log entries of that type that led to that.
    pub async fn entries(&self, entry: &str, outcome: &str) -> u64 {
        let labels = format!("{{type=\"{entry}\",outcome=\"{outcome}\"}}");
        self.metric(&format!("streamgate_access_log_entries_total{labels}"))
            .await
    }

    /// Checks that were decided so, for that reason.
    pub async fn checks(&self, decision: &str, reason: &str) -> u64 {
        let labels = format!("{{decision=\"{decision}\",reason=\"{reason}\"}}");
        self.metric(&format!("streamgate_checks_total{labels}"))
            .await
    }

    /// Reports, as Envoy does, that a request of a playback reached its viewer. Waits until the
    /// store has been asked to note it.
    pub async fn plays(&self, gateway: &Gateway, answer: &Answer) {
        let before = self.played_reports().await;
        gateway.report_success(answer).await;
        eventually("the store is told that it plays", async || {
            self.played_reports().await > before
        })
        .await;
    }

    /// How often the store was asked to note that a playback plays, successfully or not.
    async fn played_reports(&self) -> u64 {
        let text = self.get("/metrics").await.text().await.expect("a text");
        let series = "streamgate_store_requests_total{operation=\"played\"";
        let lines = text.lines().filter(|line| line.starts_with(series));
        let counts = lines.map(|line| {
            line.rsplit(' ')
                .next()
                .and_then(|count| count.parse::<u64>().ok())
        });
        counts.map(|count| count.expect("a whole number")).sum()
    }

    /// Waits until one start has been taken back.
    pub async fn start_is_undone(&self) {
        eventually("the start is undone", async || {
            self.metric("streamgate_releases_total{cause=\"undone\"}")
                .await
                == 1
        })
        .await;
    }

    /// Asks it to stop; [`Self::stop`] returns how it ended.
    pub fn ask_to_stop(&self) {
        self.stop.soft.cancel();
    }

    /// Asks it to stop now.
    pub fn cut_short(&self) {
        self.stop.hard.cancel();
    }

    /// Stops it; how it ended.
    ///
    /// # Errors
    ///
    /// Fails if it did not end in good order.
    pub async fn stopped(mut self) -> Result<(), RunError> {
        self.ask_to_stop();
        let ended = tokio::time::timeout(PATIENCE, self.running.join_next()).await;
        let ended = ended.expect("it ends").expect("it ran");
        ended.expect("it does not panic")
    }

    /// Stops it, in good order.
    pub async fn stop(self) {
        self.stopped().await.expect("it ends in good order");
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(!has_panicked(), "a task of the app has panicked");
        }
    }
}

/// Runs a scenario, and waits until every task started by it has ended: by then its clients are
/// gone and its apps have stopped.
pub async fn without_a_trace(play: impl Future<Output = ()>) {
    let alive = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let before = alive();
    play.await;
    eventually("no task is left", async || alive() <= before).await;
}

/// The threads in which something has panicked. A test and the app in it share one.
static PANICKED: Mutex<Option<HashSet<ThreadId>>> = Mutex::new(None);

/// Records panics of tasks that are never joined.
fn watch_for_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let inner = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let mut panicked = PANICKED.lock().unwrap_or_else(PoisonError::into_inner);
            panicked
                .get_or_insert_default()
                .insert(std::thread::current().id());
            drop(panicked);
            inner(panic);
        }));
    });
}

fn has_panicked() -> bool {
    let panicked = PANICKED.lock().unwrap_or_else(PoisonError::into_inner);
    let here = std::thread::current().id();
    panicked.as_ref().is_some_and(|them| them.contains(&here))
}
