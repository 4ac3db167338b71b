//! All parts of the demo, started, watched and ended together.

use std::future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::select_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};
use video_backend::Media;

use crate::child::{Child, command};
use crate::cli::{Parts, StoreChoice};
use crate::envoy;
use crate::failure::{Doing, Failure};
use crate::ports::{Ports, loopback};

const READY_WITHIN: Duration = Duration::from_secs(30);
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(20);
/// Two workers show that the count does not depend on which one a stream came through.
const ENVOY_WORKERS: &str = "2";

/// The running stack. Dropping it kills everything; `end` ends it in order.
#[derive(Debug)]
pub(crate) struct Stack {
    pub(crate) ports: Ports,
    logs: PathBuf,
    /// In the order in which they were started.
    children: Vec<Child>,
    backend: JoinSet<std::io::Result<()>>,
    _stop_backend: DropGuard,
}

impl Stack {
    /// Starts the backend, Redis if requested, streamgate and Envoy, each when the one before is
    /// ready.
    pub(crate) async fn start(parts: &Parts, ports: Ports, logs: &Path) -> Result<Self, Failure> {
        std::fs::create_dir_all(logs).doing(|| format!("create {}", logs.display()))?;
        let (mut stack, backend_port) = Self::with_backend(parts, ports, logs).await?;
        match tokio::time::timeout(READY_WITHIN, stack.start_children(parts, backend_port)).await {
            Ok(Ok(())) => Ok(stack),
            Ok(Err(failure)) => {
                stack.end().await;
                Err(failure)
            }
            Err(_) => {
                stack.end().await;
                let seconds = READY_WITHIN.as_secs();
                Err(Failure::new(format!(
                    "not everything was ready within {seconds} s; the logs are in {}",
                    logs.display()
                )))
            }
        }
    }

    async fn with_backend(
        parts: &Parts,
        ports: Ports,
        logs: &Path,
    ) -> Result<(Self, u16), Failure> {
        let listener = TcpListener::bind(loopback(0))
            .await
            .doing(|| "listen for the video backend".to_owned())?;
        let port = listener
            .local_addr()
            .doing(|| "ask for the backend's port".to_owned())?
            .port();
        let stop = CancellationToken::new();
        let media = Media::load(&parts.media).doing(|| "read the clip".to_owned())?;
        let stopped = stop.clone().cancelled_owned();
        let mut backend = JoinSet::new();
        backend.spawn(async move { video_backend::serve(listener, media, stopped).await });
        let stack = Self {
            ports,
            logs: logs.to_owned(),
            children: Vec::new(),
            backend,
            _stop_backend: stop.drop_guard(),
        };
        Ok((stack, port))
    }

    async fn start_children(&mut self, parts: &Parts, backend: u16) -> Result<(), Failure> {
        if parts.store == StoreChoice::Redis {
            self.start_redis(&parts.redis_server).await?;
        }
        self.start_streamgate(parts).await?;
        self.start_envoy(&parts.envoy, backend).await
    }

    async fn start_redis(&mut self, program: &Path) -> Result<(), Failure> {
        let mut redis = command(program);
        redis.args([
            "--bind",
            "127.0.0.1",
            "--port",
            &self.ports.redis.to_string(),
        ]);
        redis.args([
            "--save",
            "",
            "--appendonly",
            "no",
            "--maxmemory-policy",
            "noeviction",
        ]);
        self.children
            .push(Child::start("redis", redis, &self.logs)?);
        let address = loopback(self.ports.redis);
        self.ready(async || redis_answers(address).await.is_ok_and(|answers| answers))
            .await
    }

    async fn start_streamgate(&mut self, parts: &Parts) -> Result<(), Failure> {
        let mut streamgate = command(streamgate_binary(parts)?);
        streamgate
            .arg("serve")
            .env(
                "STREAMGATE_GRPC__LISTEN",
                loopback(self.ports.grpc).to_string(),
            )
            .env(
                "STREAMGATE_HTTP__LISTEN",
                loopback(self.ports.http).to_string(),
            )
            // The demo prints a line for each start that it finds in the log.
            .env("STREAMGATE_TELEMETRY__LOG_STARTS", "1")
            .env("STREAMGATE_TELEMETRY__LOG_FORMAT", "json")
            // The gateway has no route to the guide to problems.
            .env(
                "STREAMGATE_REFUSAL__PROBLEMS",
                format!("http://{}/v1/problems", loopback(self.ports.http)),
            );
        match parts.store {
            StoreChoice::Memory => streamgate.env("STREAMGATE_STORE__BACKEND", "memory"),
            StoreChoice::Redis => streamgate.env("STREAMGATE_STORE__BACKEND", "redis").env(
                "STREAMGATE_STORE__REDIS__URLS",
                format!("redis://{}", loopback(self.ports.redis)),
            ),
        };
        self.children
            .push(Child::start("streamgate", streamgate, &self.logs)?);
        let url = format!("http://{}/readyz", loopback(self.ports.http));
        self.ready(async || answers_ok(&url).await).await
    }

    async fn start_envoy(&mut self, program: &Path, backend: u16) -> Result<(), Failure> {
        let file = self.logs.join("envoy.yaml");
        std::fs::write(&file, envoy::configuration(self.ports, backend)?)
            .doing(|| format!("write {}", file.display()))?;
        let mut envoy = command(program);
        envoy.arg("--config-path").arg(&file);
        // Without hot restart two Envoys on one machine don't interfere.
        envoy.args([
            "--disable-hot-restart",
            "--concurrency",
            ENVOY_WORKERS,
            "--log-level",
            "warning",
            // Its default of 10 s is too long for somebody who waits for a line.
            "--file-flush-interval-msec",
            "100",
        ]);
        self.children
            .push(Child::start("envoy", envoy, &self.logs)?);
        let gateway = format!("http://{}/healthz", loopback(self.ports.gateway));
        let healthy = format!(
            "http://{}/stats?filter=%5Ecluster.streamgate(_access_log)%3F.membership_healthy%24",
            loopback(self.ports.envoy_admin)
        );
        self.ready(async || answers_ok(&gateway).await && both_clusters_healthy(&healthy).await)
            .await
    }

    /// Waits until `ready` returns true, or something dies.
    async fn ready(&mut self, ready: impl AsyncFn() -> bool) -> Result<(), Failure> {
        let wait = async {
            while !ready().await {
                tokio::time::sleep(ASK_AGAIN_AFTER).await;
            }
        };
        tokio::select! {
            () = wait => Ok(()),
            failure = self.died() => Err(failure),
        }
    }

    /// Returns when any part of the stack has ended by itself.
    pub(crate) async fn died(&mut self) -> Failure {
        let Self {
            children, backend, ..
        } = self;
        let any_child = async {
            if children.is_empty() {
                return future::pending().await;
            }
            select_all(children.iter_mut().map(|child| Box::pin(child.died())))
                .await
                .0
        };
        tokio::select! {
            failure = any_child => failure,
            Some(end) = backend.join_next() => Failure::new(match end {
                Ok(Ok(())) => "the video backend has ended by itself".to_owned(),
                Ok(Err(error)) => format!("the video backend could not go on: {error}"),
                Err(error) => format!("the video backend has crashed: {error}"),
            }),
        }
    }

    /// Ends everything, in reverse order of the start.
    pub(crate) async fn end(mut self) {
        while let Some(child) = self.children.pop() {
            child.end().await;
        }
    }
}

/// The given binary, or else the one in this program's folder, where cargo puts both.
fn streamgate_binary(parts: &Parts) -> Result<PathBuf, Failure> {
    if let Some(binary) = &parts.streamgate {
        return Ok(binary.clone());
    }
    let myself = std::env::current_exe().doing(|| "find the path of this program".to_owned())?;
    let binary = myself.parent().map(|profile| profile.join("streamgate"));
    binary.filter(|binary| binary.is_file()).ok_or_else(|| {
        Failure::new(format!(
            "there is no streamgate binary beside {}: run `make build`, or name one with --streamgate",
            myself.display()
        ))
    })
}

async fn redis_answers(address: std::net::SocketAddr) -> std::io::Result<bool> {
    let mut redis = TcpStream::connect(address).await?;
    redis.write_all(b"PING\r\n").await?;
    let mut answer = [0; 5];
    redis.read_exact(&mut answer).await?;
    Ok(&answer == b"+PONG")
}

async fn answers_ok(url: &str) -> bool {
    fetch(url)
        .await
        .is_ok_and(|response| response.status().is_success())
}

/// Whether Envoy considers both its connections to streamgate healthy.
async fn both_clusters_healthy(url: &str) -> bool {
    let Ok(response) = fetch(url).await else {
        return false;
    };
    response
        .text()
        .await
        .is_ok_and(|stats| stats.lines().filter(|line| line.ends_with(": 1")).count() == 2)
}

async fn fetch(url: &str) -> reqwest::Result<reqwest::Response> {
    reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(1))
        .build()?
        .get(url)
        .send()
        .await
}
