//! Owns running `promtool`.

use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use testkit::process::command;
use testkit::prometheus::programs;
use testkit::watch::within;

/// Longer than a busy machine takes.
const PROMTOOL_WITHIN: Duration = Duration::from_secs(300);

/// Runs `promtool` in the root of the repository on that input; what it printed.
pub(super) async fn promtool(arguments: &[&str], input: &str) -> String {
    let mut promtool = command(programs().join("promtool"));
    promtool
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut running = promtool.spawn().unwrap();
    let mut stdin = running.stdin.take().unwrap();
    let asking = async {
        stdin.write_all(input.as_bytes()).await.unwrap();
        drop(stdin);
        running.wait_with_output().await.unwrap()
    };
    let Output {
        status,
        stdout,
        stderr,
    } = within(PROMTOOL_WITHIN, "promtool ends", asking).await;
    let said = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
    assert!(status.success(), "promtool {arguments:?} {status}\n{said}");
    said
}
