//! One process started by the demo: its log file, its unexpected death, its orderly end.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::failure::{Doing, Failure};

/// Longer than streamgate's own grace at SIGTERM.
const END_WITHIN: Duration = Duration::from_secs(5);
const TAIL_LINES: usize = 20;

/// A running process. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Child {
    name: &'static str,
    log: PathBuf,
    process: tokio::process::Child,
}

impl Child {
    /// Starts `command` with its output in `logs/name.log`.
    pub(crate) fn start(
        name: &'static str,
        mut command: Command,
        logs: &Path,
    ) -> Result<Self, Failure> {
        let log = logs.join(format!("{name}.log"));
        let writing = || format!("write {}", log.display());
        // Append mode: the process may open the file again, as `/dev/stdout`.
        File::create(&log).doing(writing)?;
        let output = File::options().append(true).open(&log).doing(writing)?;
        let errors = output.try_clone().doing(writing)?;
        command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .kill_on_drop(true)
            // A Ctrl-C in the terminal is for the demo, which then ends its children in order.
            .process_group(0);
        let program = command.as_std().get_program().to_owned();
        let process = command
            .spawn()
            .doing(|| format!("start {name} ({})", program.display()))?;
        Ok(Self { name, log, process })
    }

    /// Returns when the process has died by itself, with its exit status and the end of its log.
    pub(crate) async fn died(&mut self) -> Failure {
        let how = match self.process.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        Failure::new(format!(
            "{} has ended by itself ({how}). The end of {}:\n{}",
            self.name,
            self.log.display(),
            self.tail()
        ))
    }

    /// Asks the process to end, waits for a while, then kills it.
    pub(crate) async fn end(mut self) {
        let Some(pid) = self.process.id() else { return };
        // The standard library can only kill.
        let asked = Command::new("sh")
            .arg("-c")
            .arg("kill -TERM \"$1\"")
            .arg("sh")
            .arg(pid.to_string())
            .status()
            .await;
        if !asked.is_ok_and(|status| status.success())
            || tokio::time::timeout(END_WITHIN, self.process.wait())
                .await
                .is_err()
        {
            eprintln!(
                "demo: {} (pid {pid}) did not end when asked; killing it",
                self.name
            );
            // This fails only if the process is gone, which is what we want.
            let _ = self.process.kill().await;
        }
    }

    fn tail(&self) -> String {
        let Ok(text) = std::fs::read(&self.log) else {
            return String::new();
        };
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let skipped = lines.len().saturating_sub(TAIL_LINES);
        lines
            .into_iter()
            .skip(skipped)
            .flat_map(|line| ["  | ", line, "\n"])
            .collect()
    }
}

/// A command that inherits the environment, except variables meant only for the tests: streamgate
/// takes each `STREAMGATE_` variable for a setting.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("STREAMGATE_TEST_") {
            command.env_remove(name);
        }
    }
    command
}
