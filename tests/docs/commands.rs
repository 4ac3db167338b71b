//! Each shell block of each document is run: here, by another test, by a script that extracts it,
//! or by CI directly.

use std::collections::BTreeSet;
use std::path::Path;

use testkit::docs;
use testkit::gateway::{Setup, envoy_binary};
use testkit::origin::Origin;
use testkit::port::ReservedPort;
use testkit::process::command;
use testkit::streamgate::Streamgate;
use testkit::watch::{PATIENCE, within};

/// Where each block stands, and the file that runs it.
const RUN_BY: [(&str, &str, &str); 12] = [
    ("README.md", "Quick start", ".ci/run"),
    ("docs/cli.md", "Commands", OURS),
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
        OURS,
    ),
    ("docs/envoy/install.md", "Write the file", OURS),
    ("docs/envoy/install.md", "Try the shipped gateway", OURS),
    ("docs/http-api.md", "Try it", "tests/clients/scripts.rs"),
    (
        "docs/http-api.md",
        "The limit of one user",
        "tests/clients/scripts.rs",
    ),
    (
        "docs/http-api.md",
        "The small API",
        "tests/clients/scripts.rs",
    ),
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

/// This file.
const OURS: &str = "tests/docs/commands.rs";

/// The languages of blocks that nobody pastes into a shell. `console` shows a prompt.
const OTHER_LANGUAGES: [&str; 7] = ["console", "html", "js", "json", "python", "text", "yaml"];

/// The blocks to paste into a shell: the document, the heading, and the lines without comments.
fn shell_blocks() -> Vec<(&'static str, &'static str, Vec<&'static str>)> {
    let mut found = Vec::new();
    for document in docs::all() {
        for example in docs::examples(&document.text) {
            let (path, heading) = (document.path.as_str(), example.heading);
            if example.language != "sh" {
                let is_known = OTHER_LANGUAGES.contains(&example.language);
                assert!(is_known, "{path}, {heading}: {:?}", example.language);
                continue;
            }
            let lines = example.text.lines();
            let lines = lines.map(|line| line.split(" # ").next().unwrap().trim());
            let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
            found.push((path, heading, lines.collect()));
        }
    }
    found
}

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
    let there = shell_blocks();
    let headings = there.iter().map(|(path, heading, _)| (*path, *heading));
    let known = RUN_BY.iter().map(|(path, heading, _)| (*path, *heading));
    assert_eq!(headings.collect::<Vec<_>>(), known.collect::<Vec<_>>());
    for ((_, heading, file), (_, _, lines)) in RUN_BY.iter().zip(there) {
        let text = docs::file(file);
        let times = |part: &str| text.matches(part).count();
        if file.starts_with(".ci/") {
            let missing = lines.iter().find(|line| times(line) == 0);
            assert_eq!(missing, None, "{file} runs each line");
        } else if file.ends_with(".sh") {
            assert!(times(&format!("{heading}$/")) > 0, "{file}: {heading}");
        } else {
            // Here the table names it, too.
            let least = 1 + usize::from(*file == OURS);
            assert!(times(&format!("{heading:?}")) >= least, "{file}: {heading}");
        }
    }
}

/// A block that starts something in the background has a last line that begins with one of these.
const ENDINGS: [&str; 3] = [
    "kill ",
    "docker stop ",
    "docker compose -f deploy/compose.yaml down",
];

/// Why the lines may not end by themselves, or leave something running, if so.
fn what_stays(lines: &[&str]) -> Option<String> {
    let is_loop = |line: &&&str| line.contains("until ") || line.contains("while ");
    let is_bounded = |line: &str| line.starts_with("timeout ");
    let endless = lines.iter().filter(is_loop).find(|line| !is_bounded(line));
    let is_stream = |line: &&&str| line.contains("curl ") && line.contains("/live/");
    let is_background = |line: &str| line.ends_with('&') || line.ends_with("& done");
    let is_ended = |line: &&&str| line.contains(" -m ") || is_background(line);
    let stream = lines.iter().filter(is_stream).find(|line| !is_ended(line));
    if let Some(line) = endless.or(stream) {
        return Some(format!("it may have no end: {line}"));
    }
    let is_start = |line: &&str| is_background(line) || line.contains(" --detach");
    let last = lines.last()?;
    let is_over = ENDINGS.iter().any(|ending| last.starts_with(ending));
    (lines.iter().any(is_start) && !is_over)
        .then(|| format!("it doesn't end what it starts: {last}"))
}

#[test]
fn each_shell_block_ends_by_itself_and_ends_what_it_starts() {
    for (path, heading, lines) in shell_blocks() {
        assert_eq!(what_stays(&lines), None, "{path}, {heading}");
    }
    for bad in [
        &["until streamgate health; do sleep 0.1; done"][..],
        &["curl -H 'x-user-id: a' http://127.0.0.1:10000/live/news"],
        &[
            "streamgate serve &",
            "timeout 9 sh -c 'until streamgate health; do :; done'",
        ],
        &["docker run --detach streamgate", "docker ps"],
    ] {
        assert!(what_stays(bad).is_some(), "{bad:?}");
    }
}

/// Readers need the program before they paste a block that runs it, so the text above links to the
/// page that installs it. That page's own blocks are run on a bare Debian.
#[test]
fn each_shell_block_that_needs_streamgate_says_where_it_comes_from() {
    let mut seen = 0;
    let documents = docs::all().iter();
    for document in documents.filter(|document| document.path != "docs/install.md") {
        for section in document.text.split("\n## ") {
            let mut parts = section.split("```sh\n");
            let above = parts.next().unwrap();
            let mut lines = parts.flat_map(|part| part.split("\n```\n").next().unwrap().lines());
            if lines.any(|line| line.starts_with("streamgate ")) {
                assert!(above.contains("install.md)"), "{}: {above}", document.path);
                seen += 1;
            }
        }
    }
    assert!(seen >= 2, "{seen}");
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
        "users                 1\n",
        "LIMIT  STARTS REFUSED  USERS REFUSED\n",
        "playback p1: released\n",
        "alice: 5 streams, set by an operator, expires in ",
        "alice: the configured limit applies\n",
        "no live session\n",
        "streamgate top  http://",
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
    let run = async |path, heading| {
        let script = docs::example(path, heading, "sh")
            .replace("127.0.0.1:10000", &gateway.address.to_string());
        let script = script.replace("curl -X", "curl -sS -i -X");
        let mut shell = command("bash");
        shell
            .args(["-c", &script])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("NO_PROXY", "*")
            .kill_on_drop(true);
        let ran = within(PATIENCE, "the shell ends", shell.output())
            .await
            .unwrap();
        String::from_utf8(ran.stdout).unwrap()
    };
    let told = run("docs/envoy/install.md", "Try the shipped gateway").await;
    assert!(told.starts_with("HTTP/1.1 200 OK\r\n"), "{told}");
    assert!(told.contains("x-streamgate-session: "), "{told}");
    let told = run(
        "docs/envoy/browsers.md",
        "Viewers' scripts and the HTTP API",
    )
    .await;
    assert!(told.starts_with("HTTP/1.1 201 Created\r\n"), "{told}");
    assert!(told.contains("\"session\":\"tab-1\""), "{told}");
    assert!(told.contains("HTTP/1.1 204 No Content\r\n"), "{told}");
}
