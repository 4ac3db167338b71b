//! One row of the matrix: the program with these settings, and what it has to do.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use serde_json::{Map, Value, json};
use streamgate::clock::Stopwatch;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::cover::Row;
use super::table::{Factor, LONGEST_SOCKET, Settings};
use super::viewer::Viewer;
use testkit::cluster::RedisCluster;
use testkit::gateway_client::{Answer, Gateway};
use testkit::pki::{Authority, Folder, Issued, client, connect, grpc_client};
use testkit::port::ReservedPort;
use testkit::process::Process;
use testkit::redis::RedisServer;
use testkit::sentinel::watching;
use testkit::streamgate::{program, run};
use testkit::talk::{Told, hear};
use testkit::watch::{SLOWLY, eventually_within, within};

/// How long it has to be there after all is done.
const STILL_THERE: Duration = Duration::from_secs(3);
/// What the HTTP API wants to see where there is a file of tokens.
const TOKEN: &str = "a-token-of-the-matrix-0123456789";

/// What all rows have in common.
pub(super) struct Scene {
    factors: Vec<Factor>,
    /// Whether it waits for the longest drain too.
    is_patient: bool,
    redis: RedisServer,
    sentinel: RedisServer,
    cluster: RedisCluster,
    authority: Authority,
    shown: Issued,
    folder: Folder,
}

/// What a row's placeholders stand for.
pub(super) struct Place {
    directory: TempDir,
    grpc: ReservedPort,
    http: ReservedPort,
    /// The user whose limit may be set, as the service knows them.
    user: String,
}

/// One program that runs.
struct Playing<'a> {
    scene: &'a Scene,
    settings: Settings<'a>,
    place: Place,
    process: Process,
}

/// The variable of a key.
pub(super) fn variable(key: &str) -> String {
    format!("STREAMGATE_{}", key.replace('.', "__").to_uppercase())
}

// === impl Place ===

impl Place {
    /// How a value is written in a variable.
    pub(super) fn in_environment(value: &Value) -> String {
        match value {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            Value::Array(items) => {
                let items: Vec<_> = items.iter().map(Self::in_environment).collect();
                items.join(",")
            }
            Value::Object(entries) => {
                let entries = entries
                    .iter()
                    .map(|(name, value)| format!("{name}={value}"));
                entries.collect::<Vec<_>>().join(",")
            }
            other => other.to_string(),
        }
    }
}

// === impl Scene ===

impl Scene {
    pub(super) fn new(factors: Vec<Factor>, is_patient: bool) -> Self {
        let redis = RedisServer::start();
        let services = ["mymaster", "s.v-c_1"].map(|service| watching(service, &redis, 1));
        let sentinel = RedisServer::sentinel(&services.concat());
        let authority = Authority::new("an authority");
        let shown = authority.issue();
        let folder = Folder::with(&shown, &authority);
        folder.write("tokens", &format!("{TOKEN} operator\n"));
        // Nobody listens there, so its events wait.
        folder.write(
            "webhooks",
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw http://127.0.0.1:1/\n",
        );
        folder.write("users", "nobody asks 7\n# end\n");
        folder.write("log-users", "a key of 32 random bytes, or so!\n");
        Self {
            factors,
            is_patient,
            redis,
            sentinel,
            cluster: RedisCluster::start(),
            authority,
            shown,
            folder,
        }
    }

    /// Plays one row from start to end.
    pub(super) async fn play(&self, number: usize, row: &Row) {
        let chosen = self.factors.iter().zip(row);
        let chosen = chosen.map(|(factor, choice)| (factor, &factor.choices[*choice]));
        let settings = Settings(chosen.collect());
        let mut place = Place {
            directory: tempfile::tempdir().unwrap(),
            grpc: ReservedPort::reserve(),
            http: ReservedPort::reserve(),
            user: String::new(),
        };
        place.user = settings.names(&format!("row-{number}"), "any").1;
        let values = self.values(&settings, &place);
        let (file, environment) = written(&values, &place, number.is_multiple_of(2));
        let environment: Vec<_> = environment.iter().map(|(n, v)| (&**n, &**v)).collect();
        let shown = serde_json::to_string(&values).unwrap();
        let file = file.to_str().unwrap();
        let (code, _, told) = run(&["check-config", file], &environment).await;
        assert_eq!(
            code, 0,
            "check-config refuses row {number}: {told}\n{shown}"
        );
        let command = program(&["serve", "--config", file], &environment);
        let process = Process::start("streamgate", command);
        let playing = Playing {
            scene: self,
            settings,
            place,
            process,
        };
        // What a failure shows first: which row it is.
        let row = Shown(format!("row {number}: {shown}"));
        playing.play(&format!("row-{number}")).await;
        drop(row);
    }

    /// The value of each key that is set, with its placeholders filled in.
    fn values(&self, settings: &Settings<'_>, place: &Place) -> Map<String, Value> {
        let directory = place.directory.path().display().to_string();
        let longest = format!(
            "{directory}/{}",
            "s".repeat(LONGEST_SOCKET - directory.len() - 1)
        );
        let at_redis = format!("127.0.0.1:{}", self.redis.port());
        let at_cluster = self.cluster.masters()[0].server.url();
        let filled = |text: &str| {
            let text = text
                .replace("<dir>", &directory)
                .replace("<longest>", &longest);
            let text = text.replace("<grpc>", &place.grpc.number().to_string());
            let text = text.replace("<http>", &place.http.number().to_string());
            let text = text.replace("<pki>", &self.folder.at().display().to_string());
            let text = text.replace("<redis>", &format!("redis://{at_redis}"));
            let text = text.replace("<rediss>", &format!("rediss://{at_redis}"));
            let text = text.replace("<sentinel>", &self.sentinel.url());
            let text = text.replace("<cluster>", &at_cluster);
            text.replace("<user>", &place.user)
        };
        let mut values = Map::new();
        for (factor, choice) in &settings.0 {
            for (key, value) in factor.keys.iter().zip(*choice) {
                if let Some(value) = value {
                    values.insert((*key).to_owned(), fill(value, &filled));
                }
            }
        }
        values
    }
}

/// Fills in the texts of a value.
fn fill(value: &Value, filled: &impl Fn(&str) -> String) -> Value {
    match value {
        Value::String(text) => filled(text).into(),
        Value::Array(items) => items.iter().map(|item| fill(item, filled)).collect(),
        Value::Object(entries) => entries
            .iter()
            .map(|(name, value)| (filled(name), fill(value, filled)))
            .collect(),
        other => other.clone(),
    }
}

/// Writes them into a file, or into variables with an empty file.
fn written(
    values: &Map<String, Value>,
    place: &Place,
    into_file: bool,
) -> (PathBuf, Vec<(String, String)>) {
    let (mut root, mut environment) = (json!({}), Vec::new());
    for (key, value) in values {
        if into_file {
            let section = key
                .split('.')
                .fold(&mut root, |section, name| &mut section[name]);
            *section = value.clone();
        } else {
            environment.push((variable(key), Place::in_environment(value)));
        }
    }
    let file = place.directory.path().join("streamgate.yaml");
    // JSON is YAML.
    std::fs::write(&file, root.to_string()).unwrap();
    (file, environment)
}

/// Is printed if a row fails.
struct Shown(String);

impl Drop for Shown {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0);
        }
    }
}

// === impl Settings ===

impl Settings<'_> {
    /// The first source of a fact.
    fn source(&self, key: &str, default: &'static str) -> String {
        let text = match self.get(key) {
            Some(Value::Array(items)) => items.first().and_then(Value::as_str),
            Some(Value::String(text)) => Some(&**text),
            _ => None,
        };
        text.unwrap_or(default).to_owned()
    }

    fn user_source(&self) -> String {
        self.source("identity.user", "header:x-user-id")
    }

    fn session_source(&self) -> String {
        self.source("identity.session", "header:x-playback-session-id")
    }

    /// A request of that user's for that session; what the service calls them.
    fn names(&self, user: &str, session: &str) -> (Viewer, String, String) {
        let mut viewer = Viewer::default();
        let (from, of) = (self.user_source(), self.session_source());
        let user = viewer.says(&from, user);
        let session = if from == of {
            user.clone()
        } else {
            viewer.says(&of, session)
        };
        (viewer, user, session)
    }

    fn is_request(&self) -> bool {
        self.session_source() == "request"
    }

    /// Whether the count is exact: leases outlast a busy machine's pauses, the store answers in
    /// time, and names don't stand for two things.
    fn is_exact(&self) -> bool {
        let lease = if self.is_request() {
            self.duration("leases.request", "15s")
        } else {
            self.duration("leases.playback", "30s")
        };
        let has_time = self.duration("store.timeout", "50ms") >= Some(Duration::from_secs(1));
        let is_memory = self.text("store.backend", "memory").unwrap() == "memory";
        let urls = self.get("store.redis.urls").unwrap();
        let is_there = !urls.to_string().contains("<rediss>");
        let (user, session) = (self.user_source(), self.session_source());
        let takeover = self.source("identity.takeover", "header:x-streamgate-takeover");
        lease >= Some(Duration::from_secs(10))
            && (is_memory || has_time && is_there)
            && user != session
            && takeover != user
            && takeover != session
    }

    /// The limit of the user who plays.
    fn limit(&self) -> usize {
        let users = self.get("limits.users");
        let own = users
            .and_then(|users| users.get("<user>"))
            .and_then(Value::as_u64);
        let default = self.text("limits.default", "3").unwrap().parse();
        own.map_or_else(|| default.unwrap(), |own| usize::try_from(own).unwrap())
    }

    /// Whether a start at a full limit gets in; `None` where that is not what this is about.
    fn is_late_one_let_in(&self) -> Option<bool> {
        if self.text("limits.enforce", "true").unwrap() == "false" {
            return Some(true);
        }
        let gives_way = self.text("limits.when_full", "refuse").unwrap() != "refuse";
        match (gives_way, self.limit(), self.is_request()) {
            (false, ..) | (_, 0, _) => Some(false),
            // What runs inside Envoy can't be stopped.
            (true, _, true) => None,
            (true, ..) => Some(true),
        }
    }
}

// === impl Playing ===

impl Playing<'_> {
    async fn play(mut self, user: &str) {
        let bound = "it serves";
        eventually_within(SLOWLY, bound, async || self.serves().await.then_some(())).await;
        if self.settings.is_exact() {
            let up = "streamgate_store_up 1\n";
            eventually_within(SLOWLY, "its store answers", async || {
                self.metrics().await.contains(up).then_some(())
            })
            .await;
            self.counts(user).await;
        } else {
            self.answers(user).await;
        }
        let metrics = self.metrics().await;
        assert!(metrics.contains("streamgate_build_info"), "{metrics}");
        // That nothing happens can only be waited for.
        tokio::time::sleep(STILL_THERE).await;
        assert!(self.serves().await, "it is still there");
        self.ends().await;
    }

    /// Three in, the fourth refused, one released, the fourth in; or as many as the limit says.
    async fn counts(&self, user: &str) {
        let gateway = self.gateway().await;
        let check = async |id: &str| {
            let (viewer, ..) = self.settings.names(user, id);
            answered(&gateway, viewer).await
        };
        let limit = self.settings.limit();
        for n in 0..limit.min(3) {
            let answer = check(&format!("s{n}")).await;
            assert!(answer.is_allowed(), "the start {n} of {limit}: {answer:?}");
        }
        if limit <= 3 {
            let answer = check("late").await;
            match self.settings.is_late_one_let_in() {
                Some(true) => assert!(answer.is_allowed(), "{answer:?}"),
                Some(false) => assert_eq!(answer.http, 429, "{answer:?}"),
                None => {}
            }
        }
        if limit > 0 {
            self.release(user, "s0").await;
            let answer = check("next").await;
            let is_bounded = self.settings.text("limits.displacements", "5").unwrap() == "0";
            let may_be_full = self.settings.is_late_one_let_in().is_none() || is_bounded;
            assert!(answer.is_allowed() || may_be_full, "{answer:?}");
        }
    }

    /// Each check is answered, with whatever answer.
    async fn answers(&self, user: &str) {
        let gateway = self.gateway().await;
        for n in 0..4 {
            let (viewer, ..) = self.settings.names(user, &format!("s{n}"));
            let answer = answered(&gateway, viewer).await;
            assert!([200, 429, 503].contains(&answer.http), "{answer:?}");
        }
    }

    async fn release(&self, user: &str, session: &str) {
        let (_, user, session) = self.settings.names(user, session);
        let kind = if self.settings.is_request() {
            "request"
        } else {
            "playback"
        };
        let body = json!({"user": user, "session": session, "kind": kind});
        let told = self.ask("POST", "/v1/release", &body.to_string()).await;
        let told = told.expect("it answers");
        assert_eq!(told.status, 204, "{told:?}");
    }

    /// It ends without being killed, within its deadline and with 0.
    async fn ends(&mut self) {
        let stopping = Stopwatch::start();
        self.process.signal("TERM").await;
        let grace = self.settings.duration("shutdown.grace", "2s").unwrap();
        let deadline = self.settings.duration("shutdown.deadline", "15s").unwrap();
        if grace > Duration::from_secs(10) && !self.scene.is_patient {
            eventually_within(SLOWLY, "it drains", async || {
                let told = self.ask("GET", "/readyz", "").await.ok()?;
                (told.status == 503).then_some(())
            })
            .await;
            self.process.signal("TERM").await;
            assert_eq!(self.process.ended().await.code(), Some(3));
            return;
        }
        let ended = self.process.ended_within(grace + SLOWLY).await;
        let took = stopping.elapsed();
        // On a busy machine a second may pass with nothing done.
        let is_tight = deadline < grace + Duration::from_secs(5);
        let is_cut_short = is_tight && ended.code() == Some(3);
        assert!(ended.code() == Some(0) || is_cut_short, "{ended}");
        let bound = deadline.max(grace + Duration::from_secs(10));
        assert!(took < bound, "it took {took:?}");
    }

    async fn serves(&self) -> bool {
        let told = self.ask("GET", "/livez", "").await;
        told.is_ok_and(|told| told.status == 200)
    }

    async fn metrics(&self) -> String {
        let told = self.ask("GET", "/metrics", "").await.expect("it answers");
        assert_eq!(told.status, 200, "{told:?}");
        told.body
    }

    /// Where to reach an address that it listens on.
    fn address(&self, key: &str, port: &ReservedPort) -> SocketAddr {
        let listen = self.settings.text(key, "").unwrap();
        let host = if listen.starts_with('[') {
            "[::1]"
        } else {
            "127.0.0.1"
        };
        format!("{host}:{}", port.number()).parse().unwrap()
    }

    fn client_certificate(&self, key: &str) -> Option<&Issued> {
        let client_ca = self.settings.text(key, "").unwrap();
        client_ca
            .ends_with("client_ca")
            .then_some(&self.scene.shown)
    }

    async fn gateway(&self) -> Gateway {
        let listen = self.settings.text("grpc.listen", "").unwrap();
        if listen.starts_with("unix:") {
            let directory = std::fs::read_dir(self.place.directory.path()).unwrap();
            let mut files = directory.map(|file| file.unwrap().path());
            let socket = files.find(|path| path.extension() != Some("yaml".as_ref()));
            let connecting = Gateway::connect_to_socket(socket.expect("its socket"));
            return connecting.await.expect("it listens");
        }
        let address = self.address("grpc.listen", &self.place.grpc);
        let cert = self.settings.text("grpc.tls.cert", "").unwrap();
        if cert.ends_with("cert") {
            let shown = self.client_certificate("grpc.tls.client_ca");
            let tls = grpc_client(&self.scene.authority, shown);
            let connecting = Gateway::connect_over_tls(address, tls).await;
            return connecting.expect("it is let in");
        }
        Gateway::connect(address).await
    }

    /// Asks over a new connection to the HTTP port.
    async fn ask(&self, method: &str, path: &str, body: &str) -> std::io::Result<Told> {
        let address = self.address("http.listen", &self.place.http);
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {TOKEN}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let cert = self.settings.text("http.tls.cert", "").unwrap();
        let asking = async {
            if cert.ends_with("cert") {
                let shown = self.client_certificate("http.tls.client_ca");
                let client: Arc<ClientConfig> = client(&self.scene.authority, shown, &[]);
                say(connect(address, &client).await?, &request).await
            } else {
                say(TcpStream::connect(address).await?, &request).await
            }
        };
        within(SLOWLY, "an answer", asking).await
    }
}

async fn say(
    mut connection: impl AsyncRead + AsyncWrite + Unpin,
    request: &str,
) -> std::io::Result<Told> {
    connection.write_all(request.as_bytes()).await?;
    connection.flush().await?;
    hear(&mut connection).await
}

async fn answered(gateway: &Gateway, viewer: Viewer) -> Answer {
    let asking = Box::pin(gateway.send(viewer.check()));
    let answer = within(SLOWLY, "an answer", asking).await;
    answer.expect("every check is answered")
}
