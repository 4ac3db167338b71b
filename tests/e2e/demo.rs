//! `demo check`, which a newcomer runs first: it passes on the product as it is, and notices when the product is not.

use std::process::Output;

use crate::support::gateway::envoy_binary;
use crate::support::origin::{demo_binary, media};
use crate::support::process::command;

async fn check(settings: &[(&str, &str)]) -> Output {
    let logs = tempfile::tempdir().unwrap();
    let mut check = command(demo_binary());
    check.arg("check").arg("--envoy").arg(envoy_binary());
    check.args(["--streamgate", env!("CARGO_BIN_EXE_streamgate")]);
    check
        .arg("--media")
        .arg(media())
        .arg("--logs")
        .arg(logs.path());
    check.envs(settings.iter().copied()).kill_on_drop(true);
    check.output().await.unwrap()
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
