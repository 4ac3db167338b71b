//! Each command within a sentence of a document is run too: here, by another test, by a script, or
//! by CI.

use std::collections::BTreeSet;

use testkit::docs;
use testkit::pki::{Authority, Folder};
use testkit::process::command;
use testkit::redis::RedisServer;
use testkit::streamgate::{Streamgate, run};
use testkit::tools::tool;
use testkit::watch::{PATIENCE, within};

/// What a command begins with, behind the variables that it is given.
const PROGRAMS: [&str; 18] = [
    "apt-get",
    "cargo",
    "curl",
    "docker",
    "docker-compose",
    "envoy",
    "git",
    "kill",
    "kubectl",
    "make",
    "npx",
    "openssl",
    "promtool",
    "python3",
    "redis-cli",
    "rustup",
    "streamgate",
    "target/demo/demo",
];

/// A command, the file that runs it, and what does so there: without that, the command itself.
const RUN_BY: &str = r#"
STREAMGATE_LIMITS__DEFAULT=1 make demo => .ci/commands
apt-get install -y g++ => .ci/nightly
cargo doc --open --no-deps --document-private-items => .ci/commands
cargo install --path . --locked => .ci/nightly
cargo mutants -f 'src/session/**/*.rs' -- --lib session -- --skip tests::model => .ci/nightly
cargo run -- openapi > tests/fixtures/openapi.json => .ci/commands
cargo test --release --test integration http::connections -- --nocapture | grep measured => .ci/nightly
cargo test --release --test integration redis_load -- --nocapture | grep measured => .ci/nightly
cargo test --test integration e2e:: -- --nocapture | grep measured => .ci/nightly
cargo test --test integration http::stats -- --ignored --nocapture | grep measured => .ci/nightly
cargo test --test integration prometheus:: -- --nocapture | grep measured => .ci/nightly
cargo test --test integration redis_sentinel -- --nocapture | grep measured => .ci/nightly
curl -H => tests/players/progressive.rs => by_curl_are_one_playback
docker build --tag streamgate . => docs/containers.md => docker build --tag streamgate .
docker compose -f deploy/compose.yaml up --build => docs/containers.md => docker compose -f deploy/compose.yaml up --build --detach
docker exec => deploy/image-check.sh
docker exec NAME streamgate sessions alice => deploy/image-check.sh => docker exec "$configured" streamgate sessions alice
docker run => deploy/image-check.sh
docker run --volume "$PWD/etc:/etc/streamgate:ro" streamgate serve --config /etc/streamgate/streamgate.yaml => deploy/image-check.sh => --volume "$PWD/etc:/etc/streamgate:ro" streamgate serve --config /etc/streamgate/streamgate.yaml
envoy --mode validate -c FILE => Makefile => --mode validate --log-level warning -c "$$file"
git tag --annotate --file <(deploy/dist/tag-notes.sh) v0.2.0 => .ci/nightly
make bench => .ci/nightly
make bench-instructions => .ci/nightly
make bench-memory => .ci/nightly
make bench-redis => .ci/nightly
make compose-check => .ci/docker
make demo => .ci/commands
make demo STORE=redis => .ci/commands
make demo-check => .ci/run
make faults => .ci/nightly
make dist => .ci/nightly
make dist-check => .ci/nightly
make fuzz TARGET=claim RUNS=1000000 => .ci/nightly
make fuzz-api => .ci/nightly
make help => .ci/commands
make image => .ci/docker
make image-check => .ci/docker
make image PLATFORM=linux/arm64 => Makefile => --platform $(PLATFORM)
make lint => .ci/run
make matrix => .ci/nightly
make tag-notes => .ci/nightly
make test => .ci/run
make test-fast => .ci/commands
make test-servers => .ci/nightly
make validate => .ci/run
make simulate => Makefile => --nocapture rule::simulation
make nightly => .ci/run => .ci/nightly of-this-commit
make nightly PART=image => Makefile => @.ci/nightly $(PART)
npx @usebruno/cli import openapi --source openapi.json --output streamgate --collection-name streamgate => .ci/commands => run "npx @usebruno/cli $options"
npx httpyac send deploy/streamgate.http --all => .ci/commands
npx newman run collection.json --env-var baseUrl=… --timeout-request 5000 => .ci/commands
npx openapi-to-postmanv2 -s openapi.json -o collection.json -O parametersResolution=Example,folderStrategy=Tags => .ci/commands => run "npx openapi-to-postmanv2 $options"
openssl rand -base64 24 => tests/docs/sentences.rs => fn a_token_made_as_it_is_said_opens_the_api
openssl rand -base64 32 => tests/docs/sentences.rs => fn a_secret_made_as_it_is_said_is_one
openssl s_client => tests/docs/sentences.rs => fn openssl_shows_until_when_a_certificate_is_good
promtool test rules => tests/deploy/prometheus/rules.rs => "test", "rules"
redis-cli --bigkeys => tests/docs/sentences.rs => fn redis_cli_tells_what_the_runbooks_look_for
redis-cli --latency => tests/docs/sentences.rs => fn redis_cli_tells_what_the_runbooks_look_for
streamgate --version => tests/process/lifecycle.rs => "--version"
streamgate check-config FILE => docs/cli.md => streamgate check-config streamgate.yaml
streamgate completions SHELL => deploy/dist/dist.sh => completions zsh
streamgate completions bash => deploy/dist/dist.sh => completions bash
streamgate doctor => tests/process/doctor.rs => "doctor", "--json"
streamgate hash-user USER --key-file FILE => tests/process/log_users.rs => ["hash-user", USER, "--key-file"
streamgate hash-user USER... => tests/process/log_users.rs => ["hash-user", "--key-file"
streamgate events => tests/http/events.rs => "events", "--url"
streamgate envoy-check - => tests/deploy/envoy_config.rs => ["envoy-check", "-", "--user"
streamgate envoy-check FILE => tests/deploy/envoy_config.rs => "envoy-check", "--json"
streamgate envoy-config => tests/deploy/envoy_config.rs => ["envoy-config"]
streamgate envoy-config --shared => tests/fixtures/envoy-config-variants.txt => --shared --streamgate
streamgate envoy-config --fragments => tests/deploy/envoy_config.rs => --fragments"
streamgate health => docs/cli.md => until streamgate health; do
streamgate health --ca … --cert … --key … => tests/process/tls.rs => "--ca", &ca], ["--cert", &cert, "--key", &key]
streamgate limit USER [LIMIT] => docs/cli.md => streamgate limit alice 5 --for 7d
streamgate man FOLDER => deploy/dist/dist.sh => man "$files/share/man/man1"
streamgate openapi => tests/http/openapi/document.rs => run(&["openapi"]
streamgate release --all USER => docs/cli.md => streamgate release --all alice
streamgate release USER SESSION... => docs/cli.md => streamgate release alice p1
streamgate serve --config FILE => docs/cli.md => streamgate serve --config streamgate.yaml &
streamgate serve [--config FILE] => docs/cli.md => streamgate serve --config streamgate.yaml &
streamgate sessions => tests/process/cli/service.rs => run(&["sessions", "--url", &url]
streamgate sessions USER => docs/cli.md => streamgate sessions alice
streamgate stats => docs/cli.md => streamgate stats
streamgate top => docs/cli.md => streamgate top --once
streamgate what-if => docs/cli.md => streamgate what-if --period hour
target/demo/demo backend --listen 127.0.0.1:9000 => .ci/commands
"#;

/// Whether this is a command, with something behind it that it is to do.
fn is_command(span: &str) -> bool {
    let mut words = span.split(' ');
    let program = words.find(|word| !word.contains('='));
    program.is_some_and(|program| PROGRAMS.contains(&program)) && words.next().is_some()
}

/// Each command between backquotes outside of blocks.
fn commands() -> BTreeSet<&'static str> {
    let lines = docs::all().iter().flat_map(|document| {
        let mut inside = false;
        document.text.lines().filter(move |line| {
            inside ^= line.starts_with("```");
            !inside
        })
    });
    let spans = lines.flat_map(|line| line.split('`').skip(1).step_by(2));
    spans.filter(|span| is_command(span)).collect()
}

#[test]
fn each_command_in_a_sentence_of_a_document_is_run_by_something() {
    let table = RUN_BY.lines().filter(|line| !line.is_empty());
    let rows: Vec<Vec<&str>> = table.map(|line| line.split(" => ").collect()).collect();
    let known: BTreeSet<_> = rows.iter().map(|row| row[0]).collect();
    assert_eq!(known.len(), rows.len());
    assert_eq!(commands(), known);
    for row in rows {
        let (file, found) = (row[1], row.get(2).unwrap_or(&row[0]));
        assert!(docs::file(file).contains(found), "{file} has no {found:?}");
        if file.starts_with(".ci/") && file != ".ci/run" {
            let ci = docs::file(".ci/run") + &docs::file(".ci/nightly");
            assert!(ci.contains(file), "nothing in CI runs {file}");
        }
    }
}

/// What a shell prints of that, if all goes well.
async fn printed(script: &str, variables: &[(&str, &str)]) -> String {
    let mut shell = command("bash");
    shell
        .args(["-euo", "pipefail", "-c", script])
        .envs(variables.iter().copied())
        .kill_on_drop(true);
    let ran = within(PATIENCE, "the shell ends", shell.output())
        .await
        .unwrap();
    let told = String::from_utf8(ran.stdout).unwrap();
    let errors = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{script}: {told}{errors}");
    told
}

#[tokio::test]
async fn a_token_made_as_it_is_said_opens_the_api() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    let file = file.to_str().unwrap();
    let script =
        r#"token=$(openssl rand -base64 24); echo "$token operator" >"$FILE"; echo "$token""#;
    let token = printed(script, &[("FILE", file)]).await;
    assert_eq!(token.trim().len(), 32);
    let service = Streamgate::start(&[("STREAMGATE_HTTP__TOKENS_FILE", file)]).await;
    let url = format!("http://{}/v1/sessions", service.http);
    let asked =
        r#"curl -sS -o /dev/null -w '%{http_code}' -H "authorization: Bearer $TOKEN" "$URL""#;
    let with = async |token| {
        let variables = [("TOKEN", token), ("URL", &*url), ("NO_PROXY", "*")];
        printed(asked, &variables).await
    };
    assert_eq!(with(token.trim()).await, "200");
    assert_eq!(with("another").await, "401");
}

#[tokio::test]
async fn a_secret_made_as_it_is_said_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name| folder.path().join(name).to_str().unwrap().to_owned();
    let (file, config) = (path("webhooks"), path("config"));
    let script = r#"echo "whsec_$(openssl rand -base64 32) https://a.example/" >"$FILE""#;
    printed(script, &[("FILE", &file)]).await;
    std::fs::write(&config, format!("events: {{webhooks_file: {file}}}\n")).unwrap();
    let (code, _, told) = run(&["check-config", &config], &[]).await;
    assert_eq!(code, 0, "{told}");
}

#[tokio::test]
async fn openssl_shows_until_when_a_certificate_is_good() {
    let authority = Authority::new("authority");
    let folder = Folder::with(&authority.issue_until(2040), &authority);
    let settings = folder.settings("grpc", &["cert", "key"]);
    let settings: Vec<_> = settings
        .iter()
        .map(|(key, value)| (&**key, &**value))
        .collect();
    let service = Streamgate::start(&settings).await;
    let address = service.grpc.to_string();
    let script =
        r#"openssl s_client -connect "$AT" </dev/null 2>&1 | openssl x509 -noout -enddate"#;
    let told = printed(script, &[("AT", &address)]).await;
    assert!(told.contains("2040"), "{told}");
}

#[tokio::test]
async fn redis_cli_tells_what_the_runbooks_look_for() {
    let cli = tool("redis-cli", "redis-tools");
    let redis = RedisServer::start_with(&["--slowlog-log-slower-than", "0"]);
    redis.run::<()>(&["SET", "film", &"x".repeat(9_000)]);
    let port = redis.port().to_string();
    let variables = [("CLI", cli.to_str().unwrap()), ("PORT", &*port)];
    let told =
        async |words: &str| printed(&format!(r#""$CLI" -p "$PORT" {words}"#), &variables).await;
    // Without a terminal, it measures for a second and prints minimum, maximum, average and count.
    let latency = told("--latency").await;
    assert!(latency.split_whitespace().count() >= 4, "{latency}");
    let big = told("--bigkeys").await;
    assert!(big.contains(r#""film"' with 9000 bytes"#), "{big}");
    assert!(told("SLOWLOG GET").await.contains("film"));
    assert!(told("INFO memory").await.contains("used_memory:"));
    assert_eq!(told("CONFIG SET maxmemory 64mb").await, "OK\n");
}
