//! A real Redis of the tests' own: on a free port, without persistence, ended when it is dropped.

use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use redis::FromRedisValue;
use streamgate::clock::Stopwatch;
use streamgate::store::Store;
use streamgate::store::redis::{RedisSettings, RedisStore, RedisTarget};
use tempfile::TempDir;

use crate::port::{ReservedPort, SwallowingPort};
use crate::streams::{PATIENT, lasting_terms, terms, user};
use crate::tools::find;

/// How long a server may take to answer its first PING.
const START: Duration = Duration::from_secs(10);

/// A store on it whose sessions and deadlines no test outlasts.
pub fn lasting_store(redis: &RedisServer) -> RedisStore {
    let settings = RedisSettings {
        terms: lasting_terms(),
        timeout: PATIENT,
        ..redis.settings()
    };
    RedisStore::open(settings).unwrap()
}

/// The `redis-server` that tests run on: `STREAMGATE_TEST_REDIS_SERVER`, else the demo's.
fn redis_binary() -> PathBuf {
    find("STREAMGATE_TEST_REDIS_SERVER", "deploy/demo/get-redis.sh")
}

/// Runs a command at a server that wants a password.
pub fn run_as(url: &str, words: &[&str]) {
    let mut connection = redis::Client::open(url).unwrap().get_connection().unwrap();
    redis::cmd(words[0])
        .arg(&words[1..])
        .exec(&mut connection)
        .unwrap();
}

/// The names of a user's sessions in Redis.
pub async fn counted(store: &RedisStore, name: &str) -> Vec<String> {
    let listing = store.list(&user(name)).await.unwrap();
    let ids = listing.sessions.iter();
    let mut ids: Vec<String> = ids.map(|session| session.key.id.to_string()).collect();
    ids.sort();
    ids
}

/// A running (or stopped, or paused) `redis-server`.
#[derive(Debug)]
pub struct RedisServer {
    /// Its port, reserved while it is down.
    port: ReservedPort,
    /// Its options other than the port.
    options: Vec<String>,
    /// What a sentinel reads from a file of its own, in which it keeps what it learns.
    sentinel: Option<String>,
    /// Its process, if it runs.
    process: Mutex<Option<Child>>,
    /// Where it would write if it did.
    directory: TempDir,
    /// The group that its process runs in, by which a firewall can tell its packets.
    group: Option<u32>,
    /// Variables of its environment besides ours.
    variables: Vec<(String, String)>,
}

impl RedisServer {
    /// Starts a server with the defaults.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server with options of its configuration, like `--maxmemory 4mb`.
    pub fn start_with(options: &[&str]) -> Self {
        let server = Self::stopped(options);
        server.restart();
        server
    }

    /// Starts a sentinel that is configured so.
    pub fn sentinel(configuration: &str) -> Self {
        let server = Self::stopped_sentinel(configuration);
        server.restart();
        server
    }

    /// A sentinel that is configured so and is yet to be started.
    pub fn stopped_sentinel(configuration: &str) -> Self {
        let mut server = Self::stopped(&[]);
        server.sentinel = Some(configuration.to_owned());
        server
    }

    /// A server that hasn't started yet, on a port of its own.
    pub fn stopped(options: &[&str]) -> Self {
        Self {
            port: ReservedPort::reserve(),
            options: options.iter().map(ToString::to_string).collect(),
            sentinel: None,
            process: Mutex::new(None),
            directory: TempDir::new().unwrap(),
            group: None,
            variables: Vec::new(),
        }
    }

    /// The same in a group of its own, by which a firewall can tell its packets.
    pub fn in_group(mut self, group: u32) -> Self {
        self.group = Some(group);
        self
    }

    /// The same with more variables in its environment.
    pub fn with_variables(mut self, variables: &[(String, String)]) -> Self {
        self.variables = variables.to_vec();
        self
    }

    /// Starts it on its port, where it must not be running, and waits until it answers.
    pub fn restart(&self) {
        self.start_until(&[], Self::answers);
    }

    /// Starts it with more options, for this run only, and waits until it listens. While it loads,
    /// an answer may take long.
    pub fn restart_with(&self, options: &[&str]) {
        self.start_until(options, Self::listens);
    }

    /// Starts it, and waits until that is so.
    fn start_until(&self, options: &[&str], is_so: impl Fn(&Self) -> bool) {
        let waiting = Stopwatch::start();
        while waiting.elapsed() < START {
            let mut process = self.spawn(options);
            while process.try_wait().unwrap().is_none() && waiting.elapsed() < START {
                if is_so(self) && process.try_wait().unwrap().is_none() {
                    *self.process.lock().unwrap() = Some(process);
                    return;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            // It ended without being stopped: the previous server still has the port.
            end(&mut process);
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("redis-server did not start on port {}", self.port());
    }

    /// Starts the process.
    fn spawn(&self, more: &[&str]) -> Child {
        let binary = redis_binary();
        let mut command = Command::new(&binary);
        command.envs(self.variables.iter().cloned());
        if let Some(group) = self.group {
            command.gid(group);
        }
        match &self.sentinel {
            Some(configuration) => command.arg(self.file(configuration)).arg("--sentinel"),
            None => command.args(["--save", "", "--appendonly", "no"]),
        };
        command
            .args(["--port", &self.port().to_string(), "--bind", "127.0.0.1"])
            .arg("--dir")
            .arg(self.directory.path())
            .args(&self.options)
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("failed to start {}: {error}", binary.display()))
    }

    /// The file of a sentinel, as it has left it.
    fn file(&self, configuration: &str) -> PathBuf {
        let file = self.directory.path().join("sentinel.conf");
        if !file.exists() {
            std::fs::write(&file, configuration).unwrap();
        }
        file
    }

    /// Whether somebody listens on its port.
    fn listens(&self) -> bool {
        TcpStream::connect(self.port.address()).is_ok()
    }

    /// Whether it answers anything, even that it wants a password.
    fn answers(&self) -> bool {
        let connection = redis::Client::open(self.url())
            .unwrap()
            .get_connection_with_timeout(Duration::from_millis(200));
        connection.is_ok_and(|mut connection| {
            let pong: redis::RedisResult<String> = redis::cmd("PING").query(&mut connection);
            !pong.is_err_and(|error| error.is_io_error())
        })
    }

    /// Kills it.
    pub fn stop(&self) {
        if let Some(mut process) = self.process.lock().unwrap().take() {
            end(&mut process);
        }
    }

    /// Has it forget who it is in its cluster, while it is down.
    pub fn forget_its_cluster(&self) {
        std::fs::remove_file(self.directory.path().join("nodes.conf")).unwrap();
    }

    /// Has it stand still: it keeps its connections and answers nothing.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// Lets it continue.
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    /// Sends it a signal.
    fn signal(&self, signal: &str) {
        let pid = self.id().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    /// What the system calls its process, while it runs.
    pub fn id(&self) -> u32 {
        self.process.lock().unwrap().as_ref().unwrap().id()
    }

    /// Has its port swallow what is sent to it, while the server is down.
    pub fn swallow(&self) -> SwallowingPort {
        self.port.swallow()
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port())
    }

    /// Where it is, for somebody with that name and password.
    pub fn url_as(&self, user: &str, password: &str) -> String {
        format!("redis://{user}:{password}@127.0.0.1:{}", self.port())
    }

    /// Runs a command of words on a connection of its own.
    pub fn run<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let (name, arguments) = words.split_first().unwrap();
        self.query(redis::cmd(name).arg(arguments))
    }

    /// Runs a command of words that it may refuse, or be too busy for.
    ///
    /// # Errors
    ///
    /// Fails if the server is away, refuses the command or gives an answer of another type.
    pub fn try_run<T: FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let mut connection = redis::Client::open(self.url())?.get_connection()?;
        redis::cmd(words[0]).arg(&words[1..]).query(&mut connection)
    }

    /// Runs a command on a connection of its own.
    pub fn query<T: FromRedisValue>(&self, command: &redis::Cmd) -> T {
        let client = redis::Client::open(self.url()).unwrap();
        let mut connection = client.get_connection().unwrap();
        command.query(&mut connection).unwrap()
    }

    /// A store on it with patience enough for a busy machine.
    pub fn store(&self) -> RedisStore {
        RedisStore::open(self.settings()).unwrap()
    }

    /// The settings of that store.
    pub fn settings(&self) -> RedisSettings {
        settings(&self.url())
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The settings of a store on the server at that URL, with patience enough for a busy machine.
pub fn settings(url: &str) -> RedisSettings {
    RedisSettings {
        source: RedisTarget::Standalone(url.parse().unwrap()),
        key_prefix: "streamgate".to_owned(),
        timeout: Duration::from_secs(5),
        terms: terms(),
    }
}

/// Ends a process and waits until it has.
fn end(process: &mut Child) {
    let _ = process.kill();
    let _ = process.wait();
}
