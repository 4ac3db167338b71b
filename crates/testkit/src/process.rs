//! Child processes. Their output is kept and shown if the test fails, and none outlives its test.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use crate::watch::{SLOWLY, eventually_within, within};
use tempfile::NamedTempFile;
use tokio::process::{Child, Command};

const TAIL_LINES: usize = 40;

/// A running process. Dropped, it is killed.
#[derive(Debug)]
pub struct Process {
    name: &'static str,
    child: Child,
    output: NamedTempFile,
}

impl Process {
    /// Starts `command`, both its outputs going to one file.
    pub fn start(name: &'static str, mut command: Command) -> Self {
        let output = NamedTempFile::with_prefix(format!("{name}-")).unwrap();
        command
            .stdin(Stdio::null())
            .stdout(output.reopen_to_append())
            .stderr(output.reopen_to_append())
            .kill_on_drop(true);
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("failed to start {name} ({command:?}): {error}"));
        Self {
            name,
            child,
            output,
        }
    }

    /// Its output so far.
    pub fn output(&self) -> String {
        let bytes = std::fs::read(self.output.path()).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits for something in its output.
    pub async fn says<T>(&mut self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        eventually_within(SLOWLY, what, async || {
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("{} has ended ({status}) before: {what}", self.name);
            }
            find(&self.output())
        })
        .await
    }

    /// What the system calls it.
    pub fn id(&self) -> u32 {
        self.child.id().expect("it has not been waited for")
    }

    /// Sends a signal by its name, and doesn't wait for what it does.
    pub async fn signal(&self, signal: &str) {
        let pid = self.id();
        // The standard library can only kill.
        let mut kill = Command::new("sh");
        kill.args([
            "-c",
            "kill -s \"$1\" \"$2\"",
            "sh",
            signal,
            &pid.to_string(),
        ]);
        let sent = kill.status().await.unwrap();
        assert!(sent.success(), "failed to send {signal} to {}", self.name);
    }

    /// Kills it, and returns when it is gone.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Waits until it ends without being stopped.
    pub async fn ended(&mut self) -> ExitStatus {
        self.ended_within(SLOWLY).await
    }

    /// The same for one that may take longer.
    pub async fn ended_within(&mut self, bound: Duration) -> ExitStatus {
        let ended = within(bound, "a process ends", self.child.wait()).await;
        ended.unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let text = self.output();
            let skipped = text.lines().count().saturating_sub(TAIL_LINES);
            let tail: String = text
                .lines()
                .skip(skipped)
                .flat_map(|line| ["  | ", line, "\n"])
                .collect();
            eprintln!("the end of what {} wrote:\n{tail}", self.name);
        }
    }
}

/// A second handle on the file, so that the two outputs don't write over each other.
trait ReopenToAppend {
    fn reopen_to_append(&self) -> Stdio;
}

impl ReopenToAppend for NamedTempFile {
    fn reopen_to_append(&self) -> Stdio {
        let file = std::fs::OpenOptions::new().append(true).open(self.path());
        file.unwrap().into()
    }
}

/// A command that inherits the environment except what would be taken for settings of streamgate's.
pub fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("STREAMGATE_") {
            command.env_remove(name);
        }
    }
    command
}

/// The processor time that a process has used so far, by Linux's count: that of its current threads
/// whose names begin with `name`.
pub fn processor_time(process: u32, name: &str) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let threads = threads.map(|thread| thread.unwrap().path());
    let named = threads.filter(|thread| {
        let comm = std::fs::read_to_string(thread.join("comm"));
        comm.is_ok_and(|comm| comm.starts_with(name))
    });
    let times = named.filter_map(|thread| {
        let text = std::fs::read_to_string(thread.join("schedstat")).ok()?;
        text.split(' ').next()?.parse().ok()
    });
    times.map(Duration::from_nanos).sum()
}
