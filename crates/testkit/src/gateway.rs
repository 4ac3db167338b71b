//! Owns running a real Envoy on free ports, with a configuration made out of a shipped file by
//! changing what a scenario names.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::envoy_files::{CLUSTERS, CONNECTION_MANAGER, at_mut, listen_on, read, set};
use crate::process::{Process, command};
use crate::tools::find;
use crate::watch::{SLOWLY, eventually_within};

/// An Envoy takes some 100 MB and a core while it starts, so starting more at once only delays all
/// of them.
static ENVOYS: Semaphore = Semaphore::const_new(3);

/// Two show that the count does not depend on which worker a stream came through.
const WORKERS: &str = "2";
/// The clusters through which Envoy reaches streamgate.
const OUR_CLUSTERS: [&str; 2] = ["streamgate", "streamgate_access_log"];

/// The Envoy that scenarios run on: `STREAMGATE_TEST_ENVOY`, else the demo's.
pub fn envoy_binary() -> PathBuf {
    find("STREAMGATE_TEST_ENVOY", "deploy/demo/get-envoy.sh")
}

/// What a route says of where its sessions are named.
pub fn session_from(sources: &str) -> Value {
    context(json!({"streamgate.session": sources}))
}

/// What a route says to streamgate.
#[expect(clippy::needless_pass_by_value, reason = "callers make it in place")]
pub fn context(extensions: Value) -> Value {
    json!({"envoy.filters.http.ext_authz": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute",
        "check_settings": {"context_extensions": extensions},
    }})
}

/// A configuration in the making.
#[derive(Debug, Clone)]
pub struct Setup(pub Value);

impl Setup {
    /// The demo's, which believes the `x-user-id` that a client sends.
    pub fn demo(streamgates: &[SocketAddr], backend: SocketAddr) -> Self {
        Self::file("deploy/demo/envoy.yaml.in")
            .streamgates(streamgates)
            .cluster("backend", &[backend])
    }

    /// One of the files that can be read as they are, with long deadlines.
    pub fn file(name: &str) -> Self {
        Self(read(name)).with_long_deadlines()
    }

    /// Envoy's deadlines for streamgate, at least ten times as long as shipped: a processor that is
    /// busy with other tests is not a failure. A test about a deadline sets its own.
    fn with_long_deadlines(self) -> Self {
        let keepalive =
            json!({"http2_protocol_options": {"connection_keepalive": {"timeout": "20s"}}});
        let protocol = json!({"explicit_http_config": keepalive});
        let way = json!({
            "connect_timeout": "10s",
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": protocol,
            },
        });
        self.check(json!({"grpc_service": {"timeout": "10s"}}))
            .ways(&way)
            .edit(|config| {
                for cluster in OUR_CLUSTERS {
                    let cluster = cluster_mut(config, cluster);
                    if let Some(timeout) = cluster.pointer_mut("/health_checks/0/timeout") {
                        *timeout = json!("3s");
                    }
                }
            })
    }

    /// Where both ways to streamgate lead.
    pub fn streamgates(self, at: &[SocketAddr]) -> Self {
        OUR_CLUSTERS
            .iter()
            .fold(self, |setup, cluster| setup.cluster(cluster, at))
    }

    /// Where a cluster's endpoints are.
    pub fn cluster(self, name: &str, at: &[SocketAddr]) -> Self {
        let endpoints: Vec<Value> = at
            .iter()
            .map(|endpoint| {
                let (address, port_value) = (endpoint.ip(), endpoint.port());
                json!({"endpoint": {"address": {"socket_address": {"address": address, "port_value": port_value}}}})
            })
            .collect();
        self.edit(|config| {
            set(
                cluster_mut(config, name),
                json!({"load_assignment": {"endpoints": [{"lb_endpoints": endpoints}]}}),
            );
        })
    }

    /// Sets what `addition` says in both ways to streamgate.
    pub fn ways(self, addition: &Value) -> Self {
        OUR_CLUSTERS.iter().fold(self, |setup, cluster| {
            setup.edit(|config| set(cluster_mut(config, cluster), addition.clone()))
        })
    }

    /// How often running streams are reported.
    pub fn flush_interval(self, interval: &str) -> Self {
        self.manager(json!({"access_log_options": {"access_log_flush_interval": interval}}))
    }

    /// Sets what `addition` says in the HTTP connection manager.
    pub fn manager(self, addition: Value) -> Self {
        self.edit(|config| set(at_mut(config, CONNECTION_MANAGER), addition))
    }

    /// Sets what `addition` says in the check's filter.
    pub fn check(self, addition: Value) -> Self {
        self.edit(|config| set(check_mut(config), addition))
    }

    /// Leaves the health checks of the way to the check out, so that only checks go that way.
    pub fn without_health_checks(self) -> Self {
        self.without_health_checks_of(OUR_CLUSTERS[0])
    }

    /// Leaves the access log out, so that Envoy does nothing but check: it also takes a server that
    /// has no other service for healthy.
    pub fn without_access_log(self) -> Self {
        let setup = self.manager(json!({"access_log": []}));
        setup
            .without_health_checks()
            .without_health_checks_of(OUR_CLUSTERS[1])
    }

    fn without_health_checks_of(self, cluster: &str) -> Self {
        self.edit(|config| {
            let cluster = cluster_mut(config, cluster).as_object_mut().unwrap();
            cluster.remove("health_checks");
        })
    }

    /// What it says of the check.
    pub fn the_check(&self) -> Value {
        check_mut(&mut self.0.clone()).clone()
    }

    /// What it says of a cluster.
    pub fn the_cluster(&self, name: &str) -> Value {
        cluster_mut(&mut self.0.clone(), name).clone()
    }

    /// A route before all others.
    pub fn route(self, route: Value) -> Self {
        self.edit(|config| {
            let routes = format!("{CONNECTION_MANAGER}/route_config/virtual_hosts/0/routes");
            at_mut(config, &routes)
                .as_array_mut()
                .unwrap()
                .insert(0, route);
        })
    }

    /// With that change to the configuration.
    pub fn edit(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.0);
        self
    }

    /// Starts Envoy, and returns when it takes requests and has found streamgate.
    pub async fn start(self) -> Gateway {
        let turn = ENVOYS.acquire().await.unwrap();
        let mut gateway = self.start_beside().await;
        gateway.turn = Some(turn);
        gateway
    }

    /// The same for a test that already has an Envoy: if each waited for a second one, they would
    /// all wait forever.
    pub async fn start_beside(mut self) -> Gateway {
        listen_on(&mut self.0, 0, 0);
        let folder = tempfile::tempdir().unwrap();
        let (file, admin) = (
            folder.path().join("envoy.json"),
            folder.path().join("admin"),
        );
        std::fs::write(&file, self.0.to_string()).unwrap();
        let mut envoy = command(envoy_binary());
        envoy.arg("--config-path").arg(&file);
        envoy.arg("--admin-address-path").arg(&admin);
        // Without hot restart two Envoys on one machine know nothing of each other.
        envoy.args(["--disable-hot-restart", "--log-level", "warning"]);
        envoy.args(["--concurrency", WORKERS]);
        // What a test has it write to a file is soon there.
        envoy.args(["--file-flush-interval-msec", "20"]);
        let mut process = Process::start("envoy", envoy);
        let admin = process
            .says("Envoy's administrator listens", |_| {
                std::fs::read_to_string(&admin).ok()?.parse().ok()
            })
            .await;
        let listening = eventually_within(SLOWLY, "Envoy listens", async || listener(admin).await);
        let address = listening.await;
        let gateway = Gateway {
            process,
            address,
            admin,
            turn: None,
            _folder: folder,
        };
        gateway.sees(self.our_hosts()).await;
        gateway
    }

    fn our_hosts(&mut self) -> usize {
        let cluster = cluster_mut(&mut self.0, "streamgate");
        let endpoints = at_mut(cluster, "/load_assignment/endpoints/0/lb_endpoints");
        endpoints.as_array().unwrap().len()
    }
}

/// A running Envoy.
#[derive(Debug)]
pub struct Gateway {
    process: Process,
    /// Where it listens for streams.
    pub address: SocketAddr,
    /// Where its administrator, and its metrics, are.
    pub admin: SocketAddr,
    turn: Option<SemaphorePermit<'static>>,
    _folder: TempDir,
}

impl Gateway {
    /// One of Envoy's statistics.
    pub async fn stat(&self, name: &str) -> Option<f64> {
        let text = get(self.admin, &format!("/stats?filter=^{name}$")).await?;
        let (_, value) = text.lines().next()?.split_once(": ")?;
        value.parse().ok()
    }

    /// Waits until Envoy takes so many streamgates for healthy.
    pub async fn sees(&self, streamgates: usize) {
        let sees = async |cluster: &str| {
            let stat = format!("cluster.{cluster}.membership_healthy");
            self.stat(&stat).await.map(|hosts| hosts.to_string()) == Some(streamgates.to_string())
        };
        let [checks, logs] = OUR_CLUSTERS;
        let what = format!("Envoy sees {streamgates} streamgates");
        eventually_within(SLOWLY, &what, async || {
            sees(checks).await && sees(logs).await
        })
        .await;
    }

    /// What the system calls it.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Kills it where it stands.
    pub async fn kill(mut self) {
        self.process.kill().await;
    }
}

/// Where Envoy listens for streams, as soon as it does. It has the address, and shows it, a moment
/// before: until it is live, connections are refused.
async fn listener(admin: SocketAddr) -> Option<SocketAddr> {
    let is_live = get(admin, "/ready").await?.starts_with("LIVE");
    if !is_live {
        return None;
    }
    let text = get(admin, "/listeners?format=json").await?;
    let listeners: Value = serde_json::from_str(&text).ok()?;
    let address = listeners.pointer("/listener_statuses/0/local_address/socket_address")?;
    let port = address.get("port_value")?.as_u64()?;
    format!("{}:{port}", address.get("address")?.as_str()?)
        .parse()
        .ok()
}

async fn get(at: SocketAddr, path: &str) -> Option<String> {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = client.get(format!("http://{at}{path}")).send().await;
    answer.ok()?.text().await.ok()
}

fn cluster_mut<'a>(config: &'a mut Value, name: &str) -> &'a mut Value {
    by_name(at_mut(config, CLUSTERS), name)
}

fn check_mut(config: &mut Value) -> &mut Value {
    let filters = at_mut(config, &format!("{CONNECTION_MANAGER}/http_filters"));
    at_mut(
        by_name(filters, "envoy.filters.http.ext_authz"),
        "/typed_config",
    )
}

fn by_name<'a>(list: &'a mut Value, name: &str) -> &'a mut Value {
    let mut items = list.as_array_mut().unwrap().iter_mut();
    items
        .find(|item| item.get("name").is_some_and(|found| found == name))
        .unwrap_or_else(|| panic!("nothing is called {name}"))
}
