//! The service, tried by schemathesis, which knows only its OpenAPI document: on the embedded
//! store, on Redis with tokens, and with no Redis where one should be.
//! `tests/http/openapi/schemathesis/` has its checks and their reasons.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use streamgate::clock::Stopwatch;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use testkit::process::command;
use testkit::redis::RedisServer;
use testkit::streamgate::{Setting, Streamgate};
use testkit::tools::find;
use testkit::watch::within;

/// Longer than a run may take, with the number of examples of `make test` or of `make fuzz-api`.
const FUZZ_WITHIN: Duration = Duration::from_secs(1800);

/// The number of requests made up for each operation, besides those that try its limits one by one.
/// With these the three runs take some 20 s of one core.
const EXAMPLES: &str = "40";

/// So that each run makes the same requests.
const SEED: &str = "1";

/// The variable by which `make fuzz-api` asks for others.
const SEED_WANTED: &str = "STREAMGATE_TEST_FUZZ_SEED";

/// An operator's token, valid for every user.
const TOKEN: &str = "an-operator-of-the-tests";

/// Settings that make answers independent of time, and refuse a second stream.
const TIMELESS: [Setting<'static>; 3] = [
    ("limits.grace", "0s"),
    ("limits.default", "1"),
    ("leases.playback", "1h"),
];

/// The Python that has schemathesis: `STREAMGATE_TEST_SCHEMATHESIS`, else a fetched one.
fn python() -> PathBuf {
    find(
        "STREAMGATE_TEST_SCHEMATHESIS",
        "tests/tools/get-schemathesis.sh",
    )
}

/// The caller's setting, or else the tests' own.
fn wanted(variable: &str, otherwise: &str) -> OsString {
    std::env::var_os(variable).unwrap_or_else(|| otherwise.into())
}

/// Tries a service with these settings; fails with the full report of schemathesis.
async fn fuzz(mode: &str, configuration: &str, service: &Streamgate) {
    let directory = TempDir::new().unwrap();
    let common = include_str!("schemathesis/common.toml");
    let repeatable = match std::env::var_os(SEED_WANTED) {
        None => include_str!("schemathesis/repeatable.toml"),
        Some(_) => "",
    };
    let all = format!("{common}{configuration}{repeatable}");
    let files = [
        ("schemathesis.toml", all),
        ("hooks.py", include_str!("schemathesis/hooks.py").to_owned()),
    ];
    for (name, text) in files {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    let mut run = command(python());
    run.current_dir(directory.path())
        .args(["-m", "schemathesis.cli", "run", "--no-color"])
        .args(["--generation-database", "none", "--max-examples"])
        .arg(wanted("STREAMGATE_TEST_FUZZ_EXAMPLES", EXAMPLES))
        .arg("--seed")
        .arg(wanted(SEED_WANTED, SEED))
        // Its answer never ends. tests/http/events.rs has its own tests.
        .args(["--exclude-operation-id", "follow_events"])
        .arg(format!("http://{}/openapi.json", service.http))
        .env("FUZZ_MODE", mode)
        .env("FUZZ_TOKEN", TOKEN)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("NO_PROXY", "*")
        .kill_on_drop(true);
    let running = Stopwatch::start();
    let output = within(FUZZ_WITHIN, "schemathesis has done", run.output()).await;
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "schemathesis, {mode}: {said}{complaint}"
    );
    let counted = said.lines().find(|line| line.contains(" generated, "));
    let counted = counted.unwrap_or_else(|| panic!("it made no requests: {said}"));
    let seconds = running.elapsed().as_secs_f32();
    println!("schemathesis, {mode}: {} in {seconds:.1} s", counted.trim());
}

/// Fails if the service, by its own count, has not given that many answers of each of these kinds,
/// or if it has a bug.
async fn has_answered(service: &Streamgate, outcomes: &[&str]) {
    let answered = async |outcome: &str| {
        let labels = [("outcome", outcome)];
        service
            .metric("streamgate_http_requests_total", &labels)
            .await
    };
    for outcome in outcomes {
        let times = answered(outcome).await;
        assert!(times >= 10.0, "{outcome} was the answer {times} times");
    }
    assert!(answered("error").await < 1.0);
}

#[tokio::test]
async fn the_document_is_openapi_3_1_and_its_examples_are_what_it_says_of_them() {
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/http/openapi/schemathesis/validate.py"
    );
    let mut validate = Command::new(python());
    validate
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut running = validate.spawn().unwrap();
    let document = include_bytes!("../../fixtures/openapi.json");
    let mut input = running.stdin.take().unwrap();
    input.write_all(document).await.unwrap();
    drop(input);
    let output = within(FUZZ_WITHIN, "it is validated", running.wait_with_output()).await;
    let output = output.unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    print!("{}", String::from_utf8_lossy(&output.stdout));
}

#[tokio::test]
async fn on_the_embedded_store_nothing_is_answered_but_what_is_documented() {
    let service = Streamgate::start(&TIMELESS).await;
    fuzz("open", include_str!("schemathesis/open.toml"), &service).await;
    has_answered(&service, &["ok", "refused", "denied", "invalid"]).await;
}

#[tokio::test]
async fn on_redis_with_tokens_nothing_is_answered_but_what_is_documented() {
    let redis = RedisServer::start();
    let directory = TempDir::new().unwrap();
    let tokens = directory.path().join("tokens");
    std::fs::write(&tokens, format!("{TOKEN} operator\n")).unwrap();
    let url = redis.url();
    let settings = [
        &TIMELESS[..],
        &[
            ("store.backend", "redis"),
            ("store.redis.urls", &url),
            // The fuzzer and other processes may take a core each; this test is not about the
            // deadline.
            ("store.timeout", "10s"),
            ("http.tokens_file", tokens.to_str().unwrap()),
        ],
    ]
    .concat();
    let service = Streamgate::start(&settings).await;
    fuzz("tokens", include_str!("schemathesis/tokens.toml"), &service).await;
    has_answered(&service, &["ok", "refused", "denied", "invalid"]).await;
}

#[tokio::test]
async fn in_an_outage_what_needs_the_store_says_so_and_nothing_worse() {
    let nowhere = RedisServer::stopped(&[]);
    let url = nowhere.url();
    let settings = [
        &TIMELESS[..],
        &[
            ("store.backend", "redis"),
            ("store.redis.urls", &url),
            ("store.outage", "deny"),
        ],
    ]
    .concat();
    let service = Streamgate::start(&settings).await;
    fuzz("outage", include_str!("schemathesis/outage.toml"), &service).await;
    has_answered(&service, &["ok", "outage", "denied", "invalid"]).await;
}
