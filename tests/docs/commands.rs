//! Each shell block of each document is run: here, by another test, by a script that extracts it,
//! or by CI directly.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use testkit::docs;
use testkit::gateway::{Setup, envoy_binary};
use testkit::origin::Origin;
use testkit::port::ReservedPort;
use testkit::process::command;
use testkit::streamgate::Streamgate;
use testkit::watch::{PATIENCE, within};

/// Where each block stands, and what runs it.
const RUN_BY: [(&str, &str, &str); 11] = [
    ("README.md", "Quick start", ".ci/run: make test, make demo"),
    ("docs/cli.md", "Commands", "here"),
    (
        "docs/containers.md",
        "In a container",
        "deploy/image-check.sh",
    ),
    (
        "docs/containers.md",
        "With compose",
        "deploy/compose-check.sh",
    ),
    (
        "docs/envoy/browsers.md",
        "Viewers' scripts and the HTTP API",
        "here",
    ),
    ("docs/envoy/install.md", "Write the file", "here"),
    ("docs/envoy/install.md", "Try the shipped gateway", "here"),
    ("docs/http-api.md", "Try it", "clients::scripts"),
    ("docs/http-api.md", "The small API", "clients::scripts"),
    (
        "docs/install.md",
        "The Debian package",
        "deploy/dist/dist-check.sh",
    ),
    (
        "docs/install.md",
        "The archive",
        "deploy/dist/dist-check.sh",
    ),
];

#[test]
fn no_document_has_a_place_that_is_yet_to_be_filled_in() {
    let texts = docs::all().iter().map(|document| &document.text);
    for word in texts.flat_map(|text| text.split([' ', '|', '\n'])) {
        let name = word
            .strip_prefix('@')
            .and_then(|word| word.strip_suffix('@'));
        assert_eq!(name, None, "{word}");
        assert!(!word.contains("TODO") && !word.contains("FIXME"), "{word}");
    }
}

#[test]
fn each_shell_block_of_each_document_is_run_by_something() {
    let mut there = Vec::new();
    for document in docs::all() {
        let shell = docs::examples(&document.text).into_iter();
        let shell = shell.filter(|example| example.language == "sh");
        there.extend(shell.map(|example| (document.path.as_str(), example.heading)));
    }
    let known: Vec<_> = RUN_BY
        .iter()
        .map(|(path, heading, _)| (*path, *heading))
        .collect();
    assert_eq!(there, known);
    let by: BTreeSet<_> = RUN_BY.iter().map(|(_, _, by)| *by).collect();
    for script in by.iter().filter(|by| by.ends_with(".sh")) {
        let text = docs::file(script);
        let its = RUN_BY.iter().filter(|(_, _, by)| by == script);
        for (_, heading, _) in its {
            assert!(
                text.contains(&format!("{heading}$/")),
                "{script} takes {heading:?} out"
            );
        }
    }
}

/// What follows that word where it begins a command in a sentence.
fn in_sentences(program: &str) -> Vec<&'static str> {
    let lines = docs::all().iter().flat_map(|it| it.text.lines());
    let lines = lines.filter(|line| !line.starts_with("```"));
    let spans = lines.flat_map(|line| line.split('`').skip(1).step_by(2));
    let words = spans.filter_map(|span| span.strip_prefix(program)?.strip_prefix(' '));
    words.collect()
}

#[test]
fn each_command_of_ours_in_a_sentence_is_one_that_there_is() {
    let makefile = include_str!("../../Makefile");
    let targets: BTreeSet<_> = makefile
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(target, _)| target)
        .collect();
    let mut seen = 0;
    for words in in_sentences("make") {
        for target in words.split(' ').filter(|word| !word.contains('=')) {
            assert!(targets.contains(target), "make {words}");
            seen += 1;
        }
    }
    assert!(seen > 15, "{seen}");
}

#[tokio::test]
async fn the_commands_to_paste_do_what_is_said_of_them() {
    let (grpc, http) = (ReservedPort::reserve(), ReservedPort::reserve());
    let script = docs::example("docs/cli.md", "Commands", "sh")
        .replace("127.0.0.1:8080", &http.address().to_string());
    let folder = tempfile::tempdir().unwrap();
    let programs = Path::new(env!("CARGO_BIN_EXE_streamgate"))
        .parent()
        .unwrap();
    let mut shell = command("bash");
    // What fails ends it, but for the wait.
    shell
        .args([
            "-e",
            "-c",
            &format!("PATH=$PROGRAMS:$PATH\n{script}\nwait $!\n"),
        ])
        .current_dir(folder.path())
        .env("PROGRAMS", programs)
        .env("STREAMGATE_GRPC__LISTEN", grpc.address().to_string())
        .env("STREAMGATE_HTTP__LISTEN", http.address().to_string())
        .env("STREAMGATE_URL", format!("http://{}", http.address()))
        .kill_on_drop(true);
    let ran = within(PATIENCE, "the shell ends", shell.output())
        .await
        .unwrap();
    let told = String::from_utf8(ran.stdout).unwrap();
    assert!(
        ran.status.success(),
        "{told} {}",
        String::from_utf8_lossy(&ran.stderr)
    );
    for said in [
        "SERVING\n",
        "alice: 1 of 3 streams in use\n",
        "\"session\":\"p1\"",
        "playback p1: released\n",
    ] {
        assert!(told.contains(said), "{said:?} is not in: {told}");
    }
}

#[tokio::test]
async fn the_file_that_is_written_as_it_is_said_is_checked_and_accepted() {
    let script = docs::example("docs/envoy/install.md", "Write the file", "sh");
    let folder = tempfile::tempdir().unwrap();
    let programs = Path::new(env!("CARGO_BIN_EXE_streamgate"))
        .parent()
        .unwrap();
    let mut shell = command("bash");
    shell
        .args(["-e", "-c", &format!("PATH=$PROGRAMS:$PATH\n{script}")])
        .current_dir(folder.path())
        .env("PROGRAMS", programs)
        .kill_on_drop(true);
    let ran = within(PATIENCE, "the shell ends", shell.output())
        .await
        .unwrap();
    let told = String::from_utf8(ran.stdout).unwrap();
    let errors = String::from_utf8(ran.stderr).unwrap();
    assert!(ran.status.success(), "{told}{errors}");
    assert!(told.starts_with("ok: "), "{told}");
    let mut envoy = command(envoy_binary());
    envoy.args(["--mode", "validate", "--config-path"]);
    envoy.arg(folder.path().join("envoy.yaml"));
    let validated = envoy.kill_on_drop(true).output().await.unwrap();
    assert!(validated.status.success(), "{validated:?}");
}

#[tokio::test]
async fn the_published_tokens_open_the_shipped_gateway_as_it_is_said_of_them() {
    let origin = Origin::start().await;
    let streamgate = Streamgate::start(&[]).await;
    let setup = Setup::file("envoy/envoy.yaml")
        .streamgates(&[streamgate.grpc])
        .cluster("origin", &[origin.address])
        .cluster("streamgate_http", &[streamgate.http]);
    let gateway = setup.start().await;
    let run = async |path, heading, patience: Duration| {
        let script = docs::example(path, heading, "sh")
            .replace("127.0.0.1:10000", &gateway.address.to_string());
        let seconds = patience.as_secs_f64().to_string();
        let script = script.replace("curl ", &format!("curl -sS -i -m {seconds} "));
        let mut shell = command("bash");
        shell
            .args(["-c", &script])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("NO_PROXY", "*")
            .kill_on_drop(true);
        let ran = within(PATIENCE * 2, "the shell ends", shell.output())
            .await
            .unwrap();
        // Behind its head there may be video.
        String::from_utf8_lossy(&ran.stdout).into_owned()
    };
    // It has no end, so curl is the one to end it.
    let told = run(
        "docs/envoy/install.md",
        "Try the shipped gateway",
        Duration::from_secs(1),
    )
    .await;
    assert!(told.starts_with("HTTP/1.1 200 OK\r\n"), "{told}");
    assert!(told.contains("x-streamgate-session: "), "{told}");
    let told = run(
        "docs/envoy/browsers.md",
        "Viewers' scripts and the HTTP API",
        PATIENCE,
    )
    .await;
    assert!(told.starts_with("HTTP/1.1 201 Created\r\n"), "{told}");
    assert!(told.contains("\"session\":\"tab-1\""), "{told}");
}
