//! Runs the `streamgate` program as its users do: by its arguments, environment, signals, standard error and exit code.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what fails here fails its test"
)]

use std::net::SocketAddr;
use std::process::{Output, Stdio};
use std::sync::Arc;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::app::PATIENCE;
use super::gateway_client::Gateway;

/// A running `streamgate serve` that logs JSON. Killed when dropped.
pub(crate) struct Service {
    child: Child,
    lines: watch::Receiver<Arc<Vec<Value>>>,
    /// Reads its standard error.
    _reader: JoinSet<()>,
}

/// The program, with none of our environment.
pub(crate) fn program(arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_streamgate"));
    command
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .kill_on_drop(true);
    command
}

/// Runs it to its end; its exit code, and what it said on standard output and standard error.
pub(crate) async fn run(arguments: &[&str], environment: &[(&str, &str)]) -> (i32, String, String) {
    let running = program(arguments, environment).output();
    let ended = tokio::time::timeout(PATIENCE, running).await;
    let Output {
        status,
        stdout,
        stderr,
    } = ended.expect("it ends").expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (
        status.code().expect("no signal ends it"),
        text(stdout),
        text(stderr),
    )
}

impl Service {
    /// Starts it on free ports, with these variables; it serves when this returns.
    pub(crate) async fn start(environment: &[(&str, &str)]) -> Self {
        let mut all = vec![
            ("STREAMGATE_GRPC__LISTEN", "127.0.0.1:0"),
            ("STREAMGATE_HTTP__LISTEN", "127.0.0.1:0"),
            ("STREAMGATE_TELEMETRY__LOG_FORMAT", "json"),
        ];
        all.extend_from_slice(environment);
        let mut child = program(&["serve"], &all)
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let errors = child.stderr.take().expect("it is piped");
        let (send, lines) = watch::channel(Arc::default());
        let mut reader = JoinSet::new();
        reader.spawn(async move {
            let mut errors = BufReader::new(errors).lines();
            while let Ok(Some(line)) = errors.next_line().await {
                let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
                send.send_modify(|lines: &mut Arc<Vec<Value>>| Arc::make_mut(lines).push(line));
            }
        });
        let service = Self {
            child,
            lines,
            _reader: reader,
        };
        service.line("serving").await;
        service
    }

    /// Waits for the log line with that message.
    pub(crate) async fn line(&self, message: &str) -> Value {
        self.line_with(message, |_| true).await
    }

    /// The same for the first such line that will do.
    pub(crate) async fn line_with(&self, message: &str, will_do: impl Fn(&Value) -> bool) -> Value {
        let mut lines = self.lines.clone();
        let has_it = |line: &&Value| line["message"] == message && will_do(line);
        let waiting = lines.wait_for(|lines| lines.iter().any(|line| has_it(&line)));
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        let Ok(Ok(lines)) = waited else {
            panic!("no line {message:?} in {:#?}", self.lines.borrow());
        };
        lines.iter().find(has_it).expect("it is there").clone()
    }

    /// All log lines with that message so far.
    pub(crate) fn lines(&self, message: &str) -> Vec<Value> {
        let lines = self.lines.borrow();
        let those = lines.iter().filter(|line| line["message"] == message);
        those.cloned().collect()
    }

    /// The address of a door, `grpc` or `http`, as the log tells it.
    pub(crate) async fn address(&self, door: &str) -> String {
        let serving = self.line("serving").await;
        serving[door].as_str().expect("an address").to_owned()
    }

    /// The same for TCP.
    pub(crate) async fn socket_address(&self, door: &str) -> SocketAddr {
        let address = self.address(door).await;
        address.parse().expect("an address of TCP")
    }

    pub(crate) async fn gateway(&self) -> Gateway {
        let address: SocketAddr = self.address("grpc").await.parse().expect("an address");
        Gateway::connect(address).await
    }

    pub(crate) async fn get(&self, path: &str) -> reqwest::Response {
        let url = format!("http://{}{path}", self.address("http").await);
        reqwest::get(url).await.expect("it answers")
    }

    /// Sends it a signal, such as `TERM`.
    pub(crate) async fn signal(&self, name: &str) {
        let id = self.child.id().expect("it runs").to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status().await;
        assert!(sent.expect("there is a kill").success());
    }

    /// Waits for its end; its exit code.
    pub(crate) async fn ended(&mut self) -> i32 {
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        let status = ended.expect("it ends").expect("it is ours");
        status.code().expect("no signal ends it")
    }
}
