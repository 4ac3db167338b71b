//! What `streamgate envoy-config` writes, in a real Envoy: each variant is valid, and streams are
//! counted through it. Pasted into three Envoys of other people, its pieces leave `streamgate
//! envoy-check` nothing to find.

use std::path::Path;
use std::process::Stdio;

use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::e2e::shipped_files::token;
use testkit::envoy_files::{CLUSTERS, CONNECTION_MANAGER, LISTENER, at, at_mut, read, set};
use testkit::gateway::{Setup, envoy_binary};
use testkit::origin::Origin;
use testkit::pki::{Authority, Folder};
use testkit::process::command;
use testkit::streamgate::Streamgate;
use testkit::streamgate::run;
use testkit::viewers::Viewers;

/// Files that a configuration names and that Envoy reads, in place of those on the machine that it
/// is for.
struct Files(Folder);

impl Files {
    fn new() -> Self {
        let authority = Authority::new("authority");
        let folder = Folder::with(&authority.issue(), &authority);
        folder.write("users", "alice:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n");
        Self(folder)
    }

    /// The text with those files in it.
    fn name(&self, text: &str) -> String {
        let mut parts = text.split("filename: /etc/envoy/");
        let mut named = parts.next().unwrap().to_owned();
        for part in parts {
            let (file, rest) = part.split_once('}').unwrap();
            let ours = match file.rsplit(['/', '.']).next().unwrap() {
                "key" => "key",
                "htpasswd" => "users",
                _ if file.contains("ca.") => "client_ca",
                _ => "cert",
            };
            let ours = self.0.path(ours);
            named += &format!("filename: {}}}{rest}", ours.display());
        }
        named
    }
}

/// What the command writes for these arguments.
async fn written(arguments: &str) -> String {
    let words: Vec<_> = ["envoy-config"]
        .into_iter()
        .chain(arguments.split_whitespace())
        .collect();
    let (code, text, errors) = run(&words, &[]).await;
    assert_eq!(code, 0, "{arguments}: {errors}");
    text
}

/// Fails unless Envoy accepts it.
async fn validate(text: &str, of: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("envoy.yaml");
    std::fs::write(&file, text).unwrap();
    let mut envoy = command(envoy_binary());
    envoy.args([
        "--mode",
        "validate",
        "--log-level",
        "error",
        "--config-path",
    ]);
    let validated = envoy.arg(&file).kill_on_drop(true).output().await.unwrap();
    let told = String::from_utf8_lossy(&validated.stderr);
    assert!(validated.status.success(), "{of}: {told}");
}

/// The findings about a file: the exit code, and the names of the checks that found something.
async fn found(file: &Path, user: Option<&str>) -> (i32, Vec<String>) {
    let mut words = vec!["envoy-check", "--json", file.to_str().unwrap()];
    words.extend(user.iter().flat_map(|user| ["--user", user]));
    let (code, out, errors) = run(&words, &[]).await;
    assert_eq!(errors, "", "{words:?}");
    let findings = out.lines().map(|line| {
        let finding: Value = serde_json::from_str(line).unwrap();
        assert!(finding["line"].as_u64().unwrap() > 0, "{finding}");
        finding["check"].as_str().unwrap().to_owned()
    });
    (code, findings.collect())
}

#[tokio::test]
async fn envoy_accepts_each_variant() {
    let files = Files::new();
    let variants = include_str!("../fixtures/envoy-config-variants.txt");
    for arguments in variants.lines().filter(|line| !line.starts_with('#')) {
        let text = files.name(&written(arguments).await);
        validate(&text, arguments).await;
    }
}

/// The main scenario: a second stream is refused at a limit of 1, and gets in when the first has
/// ended.
async fn count(viewers: &Viewers, of: impl Fn(&str) -> RequestBuilder) {
    let playing = viewers.watch(of("/live/news")).await;
    let refusal = viewers.refused(of("/live/sports")).await;
    refusal.assert_full(&[&playing]);
    drop(playing);
    let bound = std::time::Duration::from_secs(1);
    viewers.let_in_within(bound, || of("/live/sports")).await;
}

#[tokio::test]
async fn a_gateway_behind_a_proxy_that_verifies_counts_the_users_whom_that_names() {
    let origin = Origin::start().await;
    let settings = [
        ("limits.default", "1"),
        ("limits.grace", "0s"),
        ("identity.user", "header:x-account"),
    ];
    let streamgate = Streamgate::start(&settings).await;
    let arguments = "--user header:x-account --live /live --hls /vod";
    let text = written(arguments).await;
    let setup = Setup(serde_saphyr::from_str(&text).unwrap())
        .streamgates(&[streamgate.grpc])
        .cluster("origin", &[origin.address]);
    let gateway = setup.start().await;
    let viewers = &Viewers::of(gateway.address);
    let of = |path: &str| viewers.anonymous(path).header("x-account", "alice");
    count(viewers, of).await;
    // The dump of a running Envoy is as good as the file.
    let url = format!("http://{}/config_dump", gateway.admin);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let dump = client.get(url).send().await.unwrap().text().await.unwrap();
    let mut check = command(env!("CARGO_BIN_EXE_streamgate"));
    check.args(["envoy-check", "-", "--user", "header:x-account"]);
    check.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut check = check.kill_on_drop(true).spawn().unwrap();
    let mut input = check.stdin.take().unwrap();
    input.write_all(dump.as_bytes()).await.unwrap();
    drop(input);
    let checked = check.wait_with_output().await.unwrap();
    let told = String::from_utf8_lossy(&checked.stdout);
    assert!(told.starts_with("ok: "), "{told}");
    // What else a client sends means nothing.
    let nobody = viewers.http1("bob", "/live/news");
    assert_eq!(viewers.refused(nobody).await.status, 401);
}

/// The pieces for these arguments, each with where it goes.
async fn pieces(arguments: &str) -> Vec<(String, Value)> {
    let text = written(&format!("{arguments} --fragments")).await;
    let documents = text.split("\n---\n").skip(1);
    let pieces = documents.map(|document| {
        let (place, _) = document.split_once("\n\n").unwrap();
        let value = serde_saphyr::from_str(document).unwrap();
        (place.to_owned(), value)
    });
    pieces.collect()
}

/// The piece that goes there.
fn piece(pieces: &[(String, Value)], place: &str) -> Value {
    let mut found = pieces
        .iter()
        .filter(|(it, _)| it.starts_with(&format!("# {place}")));
    let (_, piece) = found.next().unwrap_or_else(|| panic!("{place}"));
    piece.clone()
}

fn list_mut<'a>(envoy: &'a mut Value, map: &str, name: &str) -> &'a mut Vec<Value> {
    let map = at_mut(envoy, map).as_object_mut().unwrap();
    let list = map.entry(name).or_insert_with(|| json!([]));
    list.as_array_mut().unwrap()
}

/// Pastes the parts that all setups share. `login` says whether the piece has a filter that
/// verifies, which all of these have.
fn paste(envoy: &mut Value, pieces: &[(String, Value)], login: bool) {
    let items = |place| piece(pieces, place).as_array().unwrap().clone();
    let clusters = items("Paste under `clusters:`.");
    list_mut(envoy, "/static_resources", "clusters").extend(clusters);
    let filters = list_mut(envoy, CONNECTION_MANAGER, "http_filters");
    let router = filters.len() - 1;
    let ours = items("Paste under `http_filters:`");
    filters.splice(router..router, ours.into_iter().skip(usize::from(login)));
    list_mut(envoy, CONNECTION_MANAGER, "access_log").extend(items("Paste under `access_log:`"));
    let manager = at_mut(envoy, CONNECTION_MANAGER);
    set(manager, piece(pieces, "Set in the HTTP connection manager"));
    set(manager, json!({"use_remote_address": true}));
    set(
        at_mut(envoy, LISTENER),
        piece(pieces, "Set in the listener"),
    );
    let breakers = piece(pieces, "Set in each cluster that streams come from");
    for cluster in at_mut(envoy, CLUSTERS).as_array_mut().unwrap() {
        if !cluster["name"].as_str().unwrap().contains("streamgate") {
            set(cluster, breakers.clone());
        }
    }
}

/// The settings of a route in a virtual host.
fn set_route(envoy: &mut Value, host: usize, route: usize, settings: Value) {
    let path = format!("{CONNECTION_MANAGER}/route_config/virtual_hosts/{host}/routes/{route}");
    set(at_mut(envoy, &path), settings);
}

/// Somebody's file after pasting: Envoy accepts it, and nothing is found in it.
async fn assert_well(envoy: &Value, user: Option<&str>) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("envoy.json");
    std::fs::write(&file, format!("{envoy:#}")).unwrap();
    assert_eq!(found(&file, user).await, (0, Vec::new()));
    validate(&envoy.to_string(), "pasted").await;
}

/// Before pasting, the findings include these.
async fn assert_found(file: &str, user: Option<&str>, checks: &[&str]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let (code, found) = found(&path, user).await;
    assert_eq!(code, 1, "{file}");
    for check in checks {
        assert!(found.iter().any(|it| it == check), "{check}: {found:?}");
    }
}

/// What everybody misses who knows nothing of streamgate.
const MISSED: [&str; 6] = [
    "ext_authz",
    "access_log",
    "periodic",
    "normalize_path",
    "client_header",
    "socket_options",
];

const ALL_ROUTES: &str = "--live /live --hls /vod --without api,cors";

/// A streamgate with a limit of 1.
async fn streamgate(user: &str) -> Streamgate {
    let settings = [
        ("limits.default", "1"),
        ("limits.grace", "0s"),
        ("identity.user", user),
    ];
    Streamgate::start(&settings).await
}

#[tokio::test]
async fn an_edge_with_tls_and_tokens_counts_after_pasting() {
    let name = "tests/fixtures/envoys/tls-and-jwt.yaml";
    assert_found(name, None, &MISSED).await;
    assert_found(
        name,
        None,
        &["claim_to_headers", "request", "route_timeout"],
    )
    .await;
    let files = Files::new();
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
    let mut envoy: Value = serde_saphyr::from_str(&files.name(&text)).unwrap();
    let pieces = pieces(ALL_ROUTES).await;
    paste(&mut envoy, &pieces, true);
    let provider = format!("{CONNECTION_MANAGER}/http_filters/0/typed_config/providers/login");
    let ours = piece(&pieces, "Paste under `http_filters:`");
    let theirs = at(&ours, "/0/typed_config/providers/login");
    for key in ["claim_to_headers", "payload_in_metadata"] {
        set(at_mut(&mut envoy, &provider), json!({key: theirs[key]}));
    }
    set_route(
        &mut envoy,
        0,
        0,
        piece(&pieces, "Set in each route where one request"),
    );
    set_route(
        &mut envoy,
        0,
        1,
        piece(&pieces, "Set in each route where many short"),
    );
    assert_well(&envoy, None).await;

    // The clients of these tests speak no TLS.
    let chain = format!("{LISTENER}/filter_chains/0");
    at_mut(&mut envoy, &chain)
        .as_object_mut()
        .unwrap()
        .remove("transport_socket");
    let (origin, streamgate) = (Origin::start().await, streamgate("header:x-user-id").await);
    let setup = Setup(envoy)
        .streamgates(&[streamgate.grpc])
        .cluster("origin", &[origin.address]);
    let gateway = setup.start().await;
    let viewers = &Viewers::of(gateway.address);
    let token = token("alice");
    count(viewers, |path| viewers.anonymous(path).bearer_auth(&token)).await;
}

#[tokio::test]
async fn an_envoy_behind_a_proxy_counts_after_pasting() {
    let name = "tests/fixtures/envoys/behind-a-proxy.yaml";
    let user = Some("header:x-account");
    assert_found(name, user, &MISSED).await;
    assert_found(name, user, &["use_remote_address", "request"]).await;
    assert_found(name, None, &["user"]).await;
    let mut envoy = read(name);
    let pieces = pieces(&format!("--user header:x-account {ALL_ROUTES}")).await;
    paste(&mut envoy, &pieces, false);
    set_route(
        &mut envoy,
        0,
        0,
        piece(&pieces, "Set in each route where one request"),
    );
    set_route(
        &mut envoy,
        0,
        1,
        piece(&pieces, "Set in each route where many short"),
    );
    assert_well(&envoy, user).await;
    let (origin, streamgate) = (Origin::start().await, streamgate("header:x-account").await);
    let setup = Setup(envoy)
        .streamgates(&[streamgate.grpc])
        .cluster("media", &[origin.address]);
    let gateway = setup.start().await;
    let viewers = &Viewers::of(gateway.address);
    let of = |path: &str| viewers.anonymous(path).header("x-account", "alice");
    count(viewers, of).await;
}

#[tokio::test]
async fn a_gateway_for_many_sites_counts_on_one_of_them_after_pasting() {
    let name = "tests/fixtures/envoys/many-hosts.yaml";
    assert_found(name, None, &MISSED).await;
    assert_found(name, None, &["stream_idle_timeout", "route_timeout"]).await;
    let mut envoy = read(name);
    let pieces = pieces(&format!("--user basic {ALL_ROUTES}")).await;
    paste(&mut envoy, &pieces, true);
    set_route(
        &mut envoy,
        0,
        0,
        piece(&pieces, "Set in each route where one request"),
    );
    let unchecked = piece(
        &pieces,
        "Set in each route that streamgate isn't asked about",
    );
    set_route(&mut envoy, 0, 1, unchecked.clone());
    for host in [1, 2] {
        let path = format!("{CONNECTION_MANAGER}/route_config/virtual_hosts/{host}");
        set(at_mut(&mut envoy, &path), unchecked.clone());
    }
    assert_well(&envoy, None).await;
    let (origin, streamgate) = (Origin::start().await, streamgate("header:x-user-id").await);
    let setup = Setup(envoy)
        .streamgates(&[streamgate.grpc])
        .cluster("media-a", &[origin.address])
        .cluster("media-b", &[origin.address]);
    let gateway = setup.start().await;
    let viewers = &Viewers::of(gateway.address);
    let of = |path: &str| viewers.anonymous(path).basic_auth("alice", Some("secret"));
    count(viewers, of).await;
    assert_eq!(streamgate.checks("started").await, 2.0);
}

/// What the command prints about something that is no Envoy configuration: one line, and 2.
async fn refused(file: &Path) -> String {
    let (code, out, errors) = run(&["envoy-check", file.to_str().unwrap()], &[]).await;
    assert_eq!((code, out.as_str()), (2, ""), "{errors}");
    let file = file.display();
    assert!(errors.starts_with("streamgate: "), "{errors}");
    assert_eq!(errors.matches('\n').count(), 1, "{errors}");
    assert!(errors.contains(&file.to_string()), "{errors}");
    errors
}

/// A reverse proxy's configuration that is not Envoy's, and what is said of it.
const OTHERS: [(&str, &str, &str); 6] = [
    (
        "nginx.conf",
        "http {\n  upstream media { server 127.0.0.1:8000; }\n  server { listen 80; }\n}\n",
        "",
    ),
    (
        "haproxy.cfg",
        "frontend http\n    bind *:80\n    default_backend media\n",
        "",
    ),
    (
        "traefik.yaml",
        "http:\n  routers:\n    live: {rule: \"PathPrefix(`/live`)\", service: media}\n",
        "none of static_resources",
    ),
    (
        "caddy.json",
        "{\"apps\": {\"http\": {\"servers\": {\"media\": {\"listen\": [\":443\"]}}}}}\n",
        "none of static_resources",
    ),
    ("list.json", "[\"static_resources\"]\n", "none of"),
    ("cut.json", "{\"static_resources\": {\n", "neither YAML nor"),
];

#[tokio::test]
async fn what_is_no_envoy_configuration_is_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let missing = refused(&folder.path().join("nowhere.yaml")).await;
    assert!(missing.contains("failed to read"), "{missing}");
    refused(folder.path()).await;
    for (name, text, expected) in OTHERS {
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        let told = refused(&file).await;
        assert!(told.contains("no Envoy configuration"), "{told}");
        assert!(told.contains(expected), "{told}");
    }
}

/// Some 10 MB, of an Envoy with very many clusters and of things that are none.
#[tokio::test]
async fn ten_megabytes_are_checked_if_they_are_envoy_s_and_refused_if_not() {
    const BYTES: usize = 10_000_000;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("large");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("envoy/envoy.yaml");
    let ours = std::fs::read_to_string(path).unwrap();
    let (before, after) = ours.split_once("  clusters:\n").unwrap();
    // Mostly comments: an unoptimised build takes long for values.
    let comment = format!("  # {}\n", "media ".repeat(300));
    let clusters = (0..BYTES / comment.len()).map(|number| {
        format!("{comment}  - {{name: media-{number}, type: STATIC, connect_timeout: 1s}}\n")
    });
    let clusters: String = clusters.collect();
    let large = format!("{before}  clusters:\n{clusters}{after}");
    assert!(large.len() > BYTES);
    std::fs::write(&file, large).unwrap();
    assert_eq!(found(&file, None).await, (0, Vec::new()));

    for (line, expected) in [
        ("GET /live/news 200 -\n", "no Envoy configuration"),
        ("[", "neither YAML nor JSON"),
    ] {
        std::fs::write(&file, line.repeat(BYTES / line.len())).unwrap();
        let told = refused(&file).await;
        assert!(told.contains(expected), "{told}");
    }
}
