//! A log that can't be written, or isn't read, costs log lines and nothing else.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use streamgate::clock::Stopwatch;
use streamgate::config::LogFormat;
use streamgate::telemetry::log;
use tokio::process::{Child, Command};

use testkit::gateway_client::{Check, Gateway};
use testkit::port::ReservedPort;
use testkit::streamgate::{program, run};
use testkit::watch::{PATIENCE, eventually};

/// How many starts run concurrently.
const AT_ONCE: usize = 50;
/// How long thousands of checks may take.
const LONG: Duration = Duration::from_secs(120);

/// A `streamgate serve` whose log is never read, on ports chosen for it. Killed when dropped.
struct Unheard {
    child: Child,
    grpc: ReservedPort,
    http: ReservedPort,
}

impl Unheard {
    /// Starts it; it serves when this returns.
    async fn start(stderr: Stdio, environment: &[(&str, &str)]) -> Self {
        Self::start_by(stderr, environment, |serve| serve).await
    }

    /// The same by way of another command.
    async fn start_by(
        stderr: Stdio,
        environment: &[(&str, &str)],
        by: impl FnOnce(Command) -> Command,
    ) -> Self {
        let (grpc, http) = (ReservedPort::reserve(), ReservedPort::reserve());
        let (at_grpc, at_http) = (grpc.address().to_string(), http.address().to_string());
        let mut all = vec![
            ("STREAMGATE_GRPC__LISTEN", &*at_grpc),
            ("STREAMGATE_HTTP__LISTEN", &*at_http),
            ("STREAMGATE_LIMITS__DEFAULT", "1"),
            ("STREAMGATE_LIMITS__GRACE", "0s"),
            ("STREAMGATE_SHUTDOWN__GRACE", "0s"),
            ("STREAMGATE_TELEMETRY__LOG_STARTS", "1"),
        ];
        all.extend_from_slice(environment);
        let mut command = by(program(&["serve"], &all));
        let child = command.stderr(stderr).spawn().unwrap();
        let service = Self { child, grpc, http };
        eventually("it is ready", async || service.is_ready().await).await;
        service
    }

    async fn get(&self, path: &str) -> reqwest::Result<(u16, String)> {
        let url = format!("http://{}{path}", self.http.address());
        let client = reqwest::Client::builder().timeout(PATIENCE).build()?;
        let answer = client.get(url).send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    async fn is_ready(&self) -> bool {
        matches!(self.get("/readyz").await, Ok((200, _)))
    }

    async fn gateway(&self) -> Gateway {
        Gateway::connect(self.grpc.address()).await
    }

    /// Each of these users starts a stream and is refused another: two lines each.
    async fn two_lines_each(&self, users: std::ops::Range<usize>) {
        let gateway = self.gateway().await;
        let plays = |user: usize| {
            let gateway = gateway.clone();
            async move {
                let check = |id: &str| Check::of(&format!("user-{user}"), id);
                let first = gateway.try_check(check("r1")).await?;
                let second = gateway.try_check(check("r2")).await?;
                Ok::<_, tonic::Status>((first.is_allowed(), second.http))
            }
        };
        let played = stream::iter(users).map(plays).buffer_unordered(AT_ONCE);
        let played = tokio::time::timeout(LONG, played.try_collect::<Vec<_>>()).await;
        let played = played.expect("every check is answered in time");
        let played = played.expect("every check is answered");
        assert!(played.iter().all(|told| *told == (true, 429)), "{played:?}");
    }

    /// How many lines it has dropped for that cause.
    async fn dropped(&self, cause: &str) -> u64 {
        let (_, metrics) = self.get("/metrics").await.unwrap();
        let series = format!("streamgate_log_lines_dropped_total{{cause=\"{cause}\"}} ");
        let mut lines = metrics.lines();
        let value = lines.find_map(|line| line.strip_prefix(&*series));
        value.expect("the metric is there").parse().unwrap()
    }

    /// Sends it a signal.
    async fn signal(&self, name: &str) {
        let id = self.child.id().expect("it runs").to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status().await;
        assert!(sent.unwrap().success());
    }

    /// Asks it to stop; its exit code.
    async fn stop(&mut self) -> Option<i32> {
        self.signal("TERM").await;
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        ended.expect("it ends").unwrap().code()
    }
}

/// A pipe whose reader is gone.
fn broken_pipe() -> Stdio {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    writer.into()
}

/// A file on a disk that is always full.
fn full_disk() -> Stdio {
    let file = OpenOptions::new().write(true).open("/dev/full");
    file.unwrap().into()
}

/// One end of a connection that takes no more bytes, as long as the other lives.
fn blocked() -> (UnixStream, Stdio) {
    let (reader, mut writer) = UnixStream::pair().unwrap();
    writer.set_nonblocking(true).unwrap();
    let full = loop {
        if let Err(error) = writer.write(&[b'\n'; 1024]) {
            break error;
        }
    };
    assert_eq!(full.kind(), ErrorKind::WouldBlock);
    writer.set_nonblocking(false).unwrap();
    (reader, OwnedFd::from(writer).into())
}

#[tokio::test]
async fn a_log_that_cannot_be_written_costs_its_lines_alone() {
    for (name, stderr) in [("broken pipe", broken_pipe()), ("full disk", full_disk())] {
        let mut service = Unheard::start(stderr, &[]).await;
        service.two_lines_each(0..20).await;
        eventually(name, async || service.dropped("write_failed").await >= 40).await;
        assert_eq!(service.dropped("queue_full").await, 0, "{name}");
        assert!(service.is_ready().await, "{name}");
        assert_eq!(service.stop().await, Some(0), "{name}");
    }
}

#[tokio::test]
async fn it_runs_without_a_standard_error() {
    let without = |serve: Command| {
        let serve = serve.into_std();
        let mut shell = Command::new("sh");
        let script = "exec \"$0\" \"$@\" 2>&-";
        shell.args(["-c", script]).arg(serve.get_program());
        shell.args(serve.get_args()).env_clear().kill_on_drop(true);
        let set = serve
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?)));
        shell.envs(set);
        shell
    };
    let mut service = Unheard::start_by(Stdio::null(), &[], without).await;
    service.two_lines_each(0..20).await;
    assert!(service.is_ready().await);
    assert_eq!(service.stop().await, Some(0));
}

#[tokio::test]
async fn an_outage_of_the_store_is_survived_without_a_log() {
    let nobody = ReservedPort::reserve();
    let url = format!("redis://{}", nobody.address());
    let redis = [
        ("STREAMGATE_STORE__BACKEND", "redis"),
        ("STREAMGATE_STORE__REDIS__URLS", &*url),
    ];
    for (name, stderr) in [("broken pipe", broken_pipe()), ("full disk", full_disk())] {
        let mut service = Unheard::start(stderr, &redis).await;
        let gateway = service.gateway().await;
        // The lost line is the one that says that Redis can't be reached.
        eventually(name, async || service.dropped("write_failed").await >= 1).await;
        let answer = gateway.check(Check::of("anna", "r1")).await;
        assert!(answer.is_allowed(), "{name}: {answer:?}");
        assert!(service.is_ready().await, "{name}");
        assert_eq!(service.stop().await, Some(0), "{name}");
    }
}

#[tokio::test]
async fn a_log_that_nobody_reads_blocks_nothing() {
    let deadline = Duration::from_secs(10);
    let (mut reader, writer) = io::pipe().unwrap();
    let settings = [("STREAMGATE_SHUTDOWN__DEADLINE", "10s")];
    let mut service = Unheard::start(writer.into(), &settings).await;
    // The pipe is full after some two hundred lines, and the queue after 4,096 more.
    service.two_lines_each(0..400).await;
    service.two_lines_each(400..2400).await;
    eventually("the queue is full", async || {
        service.dropped("queue_full").await > 0
    })
    .await;
    assert_eq!(service.dropped("write_failed").await, 0);
    for probe in ["/livez", "/readyz"] {
        assert_eq!(service.get(probe).await.unwrap().0, 200, "{probe}");
    }
    let grpc = service.grpc.address().to_string();
    assert_eq!(run(&["health", "--grpc", &grpc], &[]).await.0, 0);
    let stopping = Stopwatch::start();
    assert_eq!(service.stop().await, Some(0));
    assert!(stopping.elapsed() < deadline, "{:?}", stopping.elapsed());
    // What it did write are whole lines, but for the last, on which it was blocked.
    let mut written = String::new();
    reader.read_to_string(&mut written).unwrap();
    let (whole, _) = written.rsplit_once('\n').unwrap();
    assert!(whole.lines().count() > 100, "{written}");
    let told = |line: &str| line.contains("streamgate");
    assert!(whole.lines().all(told), "{written}");
}

/// Not a test of its own: it runs as a separate process, whose standard error takes nothing.
#[test]
#[ignore = "a part of the test below"]
fn part_a_panic_is_logged() {
    let log = log::init(LogFormat::Json, tracing::Level::ERROR, None).unwrap();
    let panicking = std::thread::spawn(|| panic!("a test's own"));
    assert!(panicking.join().is_err());
    log.unwritten.flush(Duration::from_secs(5));
}

#[tokio::test]
async fn a_panic_goes_to_the_log_and_waits_for_nobody() {
    let panicking = async |stderr: Stdio| {
        let mut part = Command::new(std::env::current_exe().unwrap());
        part.args([
            "--ignored",
            "--exact",
            "process::log_unwritable::part_a_panic_is_logged",
        ]);
        let part = part.stdout(Stdio::null()).stderr(stderr).kill_on_drop(true);
        let mut part = part.spawn().unwrap();
        let ended = tokio::time::timeout(PATIENCE, part.wait()).await;
        ended.expect("it ends").unwrap()
    };
    let (_reader, stderr) = blocked();
    assert!(panicking(stderr).await.success(), "nobody reads");
    assert!(panicking(broken_pipe()).await.success(), "closed");
    assert!(panicking(full_disk()).await.success(), "full");
    let (mut reader, writer) = io::pipe().unwrap();
    assert!(panicking(writer.into()).await.success(), "read");
    let mut written = String::new();
    reader.read_to_string(&mut written).unwrap();
    assert!(written.contains("panicked: a test's own"), "{written}");
    assert!(written.contains("log_unwritable.rs"), "{written}");
}
