//! The demo's program. `demo run` prints commands that work, and events; `demo check` passes on a
//! sound product, and fails on a broken one.

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use tokio::process::Command;

use testkit::gateway::envoy_binary;
use testkit::origin::{demo_binary, media};
use testkit::port::ReservedPort;
use testkit::process::{Process, command};
use testkit::watch::within;

/// Longer than all commands take that the demo suggests, one after the other.
const WALK_WITHIN: Duration = Duration::from_secs(150);

/// The program with a subcommand, and a folder for its logs.
fn demo(subcommand: &str, logs: &Path) -> Command {
    let mut demo = command(demo_binary());
    demo.arg(subcommand).arg("--envoy").arg(envoy_binary());
    demo.args(["--streamgate", env!("CARGO_BIN_EXE_streamgate")]);
    demo.arg("--media").arg(media()).arg("--logs").arg(logs);
    demo.kill_on_drop(true);
    demo
}

async fn check(settings: &[(&str, &str)]) -> Output {
    let logs = tempfile::tempdir().unwrap();
    let mut check = demo("check", logs.path());
    check.envs(settings.iter().copied());
    check.output().await.unwrap()
}

/// Runs commands in one shell; what they print.
async fn printed(commands: &str) -> String {
    let mut shell = command("bash");
    shell.args(["-c", commands]).env("NO_PROXY", "*");
    shell.kill_on_drop(true);
    let ran = within(WALK_WITHIN, "the commands end", shell.output()).await;
    String::from_utf8_lossy(&ran.unwrap().stdout).into_owned()
}

#[tokio::test]
async fn the_commands_that_the_demo_suggests_work_and_each_event_is_a_line() {
    let logs = tempfile::tempdir().unwrap();
    let ports = [(); 3].map(|()| ReservedPort::reserve());
    let mut run = demo("run", logs.path());
    for (name, port) in ["gateway", "http", "grpc"].into_iter().zip(&ports) {
        run.arg(format!("--{name}-port"))
            .arg(port.number().to_string());
    }
    let mut run = Process::start("demo", run);
    let said = run.says("the demo is ready", |said| {
        said.contains("What happens from now on")
            .then(|| said.to_owned())
    });
    let said = said.await;
    let commands = said.lines().filter_map(|line| line.strip_prefix("    "));
    let commands: Vec<&str> = commands.collect();
    assert!(commands.len() > 8, "{said}");
    // The two streams that still run would end after a minute.
    let told = printed(&format!("{}\nkill %2 %3", commands.join("\n"))).await;
    for expected in [
        "HTTP/1.1 429 Too Many Requests",
        r#""reason":"full""#,
        "200 ",
        "#EXTM3U",
        r#""session":"app-1""#,
        "tick 1",
        "streamgate_checks_total{",
    ] {
        assert!(told.contains(expected), "{expected}: {told}");
    }
    for expected in [
        "refused  bob: /live/4 (full)",
        "started  carol: playback app-1 (carol now watches 1)",
        "started  dave: request ",
        "ended    dave: request ",
    ] {
        run.says(expected, |said| said.contains(expected).then_some(()))
            .await;
    }
    run.signal("TERM").await;
    assert!(run.ended().await.success());
}

#[tokio::test]
async fn the_demos_check_passes() {
    let check = check(&[]).await;
    let told = String::from_utf8_lossy(&check.stdout);
    assert!(check.status.success(), "{check:?}");
    assert!(told.contains("All as expected"), "{told}");
}

#[tokio::test]
async fn the_demos_check_fails_and_says_why_where_a_fourth_stream_is_let_in() {
    let check = check(&[("STREAMGATE_LIMITS__DEFAULT", "4")]).await;
    let told = String::from_utf8_lossy(&check.stderr);
    assert_eq!(check.status.code(), Some(1), "{check:?}");
    assert!(
        told.contains("FAIL a 4th stream of alice is refused"),
        "{told}"
    );
    assert!(told.contains("expected a refusal, was let in"), "{told}");
}
