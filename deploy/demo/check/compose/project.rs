//! The services of compose.yaml, started under a separate name and on separate ports.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;

use crate::child::command;
use crate::cli::ComposeArgs;
use crate::clock::Moment;
use crate::failure::{Doing, Failure};
use crate::ports;

/// The services to start: those without a profile.
const SERVICES: [&str; 6] = [
    "redis",
    "backend",
    "streamgate-1",
    "streamgate-2",
    "gateway",
    "prometheus",
];
/// How long anything but a build may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// More than the default: on a busy machine Redis may have to wait for a processor, and a slow
/// Redis is not part of this check. Twice this plus `limits.grace` is less than the gateway's
/// timeout for a check.
const STORE_TIMEOUT: &str = "200ms";
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// A compose project.
#[derive(Debug)]
pub(super) struct Project {
    tool: Vec<String>,
    file: PathBuf,
    name: String,
    logs: PathBuf,
    pub(super) gateway_port: u16,
    pub(super) http_port: u16,
    pub(super) prometheus_port: u16,
}

impl Project {
    pub(super) async fn new(args: &ComposeArgs, logs: &Path) -> Result<Self, Failure> {
        let [gateway_port, http_port, prometheus_port] = ports::free()?;
        let tool = match &args.tool {
            Some(tool) => tool.split_whitespace().map(str::to_owned).collect(),
            None => found_tool().await?,
        };
        Ok(Self {
            tool,
            file: args.file.clone(),
            name: format!("streamgate-check-{gateway_port}"),
            logs: logs.to_owned(),
            gateway_port,
            http_port,
            prometheus_port,
        })
    }

    /// Builds images, starts everything, and waits until all of it is healthy.
    pub(super) async fn up(&self) -> Result<(), Failure> {
        self.run(&["up", "--build", "--detach"]).await?;
        for service in SERVICES {
            self.healthy(service).await?;
        }
        Ok(())
    }

    /// Kills a service.
    pub(super) async fn kill(&self, service: &str) -> Result<(), Failure> {
        self.run(&["kill", "-s", "SIGKILL", service]).await
    }

    pub(super) async fn stop(&self, service: &str) -> Result<(), Failure> {
        self.run(&["stop", service]).await
    }

    /// Starts a killed or stopped service, and waits until it is healthy.
    pub(super) async fn start(&self, service: &str) -> Result<(), Failure> {
        self.run(&["start", service]).await?;
        self.healthy(service).await
    }

    /// Ends everything, and leaves nothing behind but the images.
    pub(super) async fn down(&self) -> Result<(), Failure> {
        self.run(&["down", "--volumes", "--timeout", "5"]).await
    }

    /// Saves the logs of all services, and the gateway's counts of its checks.
    pub(super) async fn keep_logs(&self) {
        // This runs because something failed, and that failure is what we report.
        let _ = self.run(&["ps", "--all"]).await;
        let _ = self.run(&["logs", "--no-color"]).await;
        let ask = "exec 3<>/dev/tcp/127.0.0.1/9902; \
                   printf 'GET /stats?filter=streamgate HTTP/1.1\\r\\nhost: envoy\\r\\nconnection: close\\r\\n\\r\\n' >&3; cat <&3";
        let _ = self
            .run(&["exec", "-T", "gateway", "bash", "-c", ask])
            .await;
    }

    async fn healthy(&self, service: &str) -> Result<(), Failure> {
        let mut ps = self.command(&["ps", "--quiet", service]);
        let container = self.text(&mut ps, "ps").await?;
        soon(&format!("{service} is healthy"), async || {
            let mut inspect = command("docker");
            inspect.args(["inspect", "--format", "{{.State.Health.Status}}"]);
            inspect.arg(container.trim());
            let health = self.text(&mut inspect, "inspect").await?;
            Ok(health.trim() == "healthy")
        })
        .await
    }

    async fn run(&self, arguments: &[&str]) -> Result<(), Failure> {
        let mut compose = self.command(arguments);
        let name = arguments.first().copied().unwrap_or_default();
        self.text(&mut compose, name).await.map(|_| ())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let (program, its_own) = self
            .tool
            .split_first()
            .map_or(("", [].as_slice()), |it| (it.0.as_str(), it.1));
        let mut compose = command(program);
        compose.args(its_own);
        compose.arg("--file").arg(&self.file);
        compose.args(["--project-name", &self.name]).args(arguments);
        compose
            .env("GATEWAY_PORT", self.gateway_port.to_string())
            .env("HTTP_PORT", self.http_port.to_string())
            .env("PROMETHEUS_PORT", self.prometheus_port.to_string())
            .env("STORE_TIMEOUT", STORE_TIMEOUT);
        compose
    }

    /// Runs a program to its end; returns its output, which also goes to a file with that name.
    async fn text(&self, program: &mut Command, name: &str) -> Result<String, Failure> {
        let log = self.logs.join(format!("{name}.log"));
        let running = || format!("run {:?}", program.as_std());
        let described = running();
        program.stdin(Stdio::null()).kill_on_drop(true);
        let Output {
            status,
            stdout,
            stderr,
        } = program.output().await.doing(|| described.clone())?;
        let (stdout, stderr) = (
            String::from_utf8_lossy(&stdout),
            String::from_utf8_lossy(&stderr),
        );
        std::fs::write(&log, format!("{stdout}\n{stderr}"))
            .doing(|| format!("write {}", log.display()))?;
        if status.success() {
            Ok(stdout.into_owned())
        } else {
            Err(Failure::new(format!(
                "could not {described}: {status}\n{stderr}"
            )))
        }
    }
}

async fn found_tool() -> Result<Vec<String>, Failure> {
    for tool in [&["docker", "compose"][..], &["docker-compose"][..]] {
        let Some((program, its_own)) = tool.split_first() else {
            continue;
        };
        let mut version = command(program);
        version.args(its_own).arg("version").stdin(Stdio::null());
        if version.output().await.is_ok_and(|it| it.status.success()) {
            return Ok(tool.iter().map(|&word| word.to_owned()).collect());
        }
    }
    Err(Failure::new(
        "there is neither `docker compose` nor `docker-compose`; name one with --tool",
    ))
}

/// Waits until the condition holds, checking repeatedly.
pub(super) async fn soon(
    what: &str,
    holds: impl AsyncFn() -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let began = Moment::now();
    while !holds().await? {
        if began.elapsed() > PATIENCE {
            let seconds = PATIENCE.as_secs();
            return Err(Failure::new(format!("not within {seconds} s: {what}")));
        }
        tokio::time::sleep(ASK_AGAIN_AFTER).await;
    }
    Ok(())
}
