//! `telemetry.log_users: hashed`: no line of the log names a user, and one hash finds all of a
//! user's lines, at every instance.

use serde_json::{Value, json};
use tempfile::TempDir;

use testkit::gateway_client::{Check, Gateway, end, periodic};
use testkit::port::ReservedPort;
use testkit::streamgate::run;
use testkit::streamgate::{Setting, Streamgate};

const USER: &str = "anna@example.com";

const KEY: &str = "bd4d1d6e0f6c4a3b9a8e7f1c2d3e4f50\n";

/// The file that the tests change: it names the user too.
const CONFIG: &str = "limits:\n  default: 1\n  grace: 0s\n  users:\n    anna@example.com: 1\n";

/// A file with a key, and one with a configuration.
struct Files {
    folder: TempDir,
    key: String,
    config: String,
}

impl Files {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        Self {
            key: write("key", KEY),
            config: write("config", CONFIG),
            folder,
        }
    }

    /// A process that hashes users and logs at the most verbose level.
    async fn start(&self, more: &[Setting<'_>]) -> Streamgate {
        let usual = [
            ("config", self.config.as_str()),
            ("telemetry.log_level", "trace"),
            ("telemetry.log_starts", "1"),
            ("telemetry.log_users", "hashed"),
            ("telemetry.log_users_key_file", &self.key),
        ];
        Streamgate::start(&[&usual, more].concat()).await
    }

    /// What `streamgate hash-user` prints for the user.
    async fn hash(&self) -> String {
        let arguments = ["hash-user", "--key-file", &self.key, USER];
        let (code, hash, errors) = run(&arguments, &[]).await;
        assert_eq!((code, errors.as_str()), (0, ""));
        hash.strip_suffix('\n').unwrap().to_owned()
    }
}

/// Waits until it has logged so many of these lines; all of them have the hash for their user.
async fn names_the_hash(streamgate: &Streamgate, message: &str, count: usize, hash: &str) {
    let lines = streamgate.told(message, count).await;
    let users: Vec<_> = lines.iter().map(|line| &line["user.id"]).collect();
    assert_eq!(users, vec![&json!(hash); count], "{message}");
}

/// Nothing in the log is the user's id, or its name, or its domain.
fn names_nobody(streamgate: &Streamgate) {
    let log = streamgate.log();
    let named: Vec<_> = log
        .lines()
        .filter(|line| line.contains("anna") || line.contains("example.com"))
        .collect();
    assert_eq!(named, [""; 0]);
}

#[tokio::test]
async fn no_line_names_a_user_and_one_hash_finds_them_all() {
    let files = Files::new();
    let (hash, streamgate) = (files.hash().await, files.start(&[]).await);
    assert!(hash.len() == 37 && hash.starts_with("hmac:"), "{hash}");
    let gateway = Gateway::connect(streamgate.grpc).await;

    // At Envoy's door: a start, a refusal, a malformed claim, a sign of life, an end.
    let first = gateway.check(Check::of(USER, "r1")).await;
    assert!(first.is_allowed());
    let refused = gateway.check(Check::of_playback(USER, "p1")).await;
    assert_eq!(refused.reason(), "full");
    let mut log = gateway.access_log().await;
    log.send(vec![periodic("r1", &first)]);
    log.flush().await;
    names_the_hash(&streamgate, "a running stream was seen", 1, &hash).await;
    log.send(vec![end("r1", &first)]);
    log.finish().await;
    names_the_hash(&streamgate, "a session is over", 1, &hash).await;

    // Over HTTP: a start, a refusal, an end.
    let path = |id: &str| format!("http://{}/v1/users/{USER}/sessions/{id}", streamgate.http);
    let client = reqwest::Client::new();
    for (id, status) in [("p2", 201), ("p3", 429)] {
        let answer = client.put(path(id)).send().await.unwrap();
        assert_eq!(answer.status(), status);
    }
    client.delete(path("p2")).send().await.unwrap();
    names_the_hash(&streamgate, "a session is over", 2, &hash).await;
    names_the_hash(&streamgate, "a start was decided", 4, &hash).await;
    names_the_hash(&streamgate, "a stream has started", 2, &hash).await;
    // One at each door: the next within ten seconds is only counted.
    names_the_hash(&streamgate, "a stream was refused", 2, &hash).await;
    names_nobody(&streamgate);
}

#[tokio::test]
async fn a_malformed_claim_names_the_hash_of_its_user() {
    let files = Files::new();
    let (hash, streamgate) = (files.hash().await, files.start(&[]).await);
    let gateway = Gateway::connect(streamgate.grpc).await;
    let long = "x".repeat(257);
    let answer = gateway.check(Check::of_playback(USER, &long)).await;
    assert_eq!(answer.http, 400);
    streamgate.says("a request was refused").await;
    let log = streamgate.log();
    let line = log
        .lines()
        .find(|line| line.contains("a request was refused"));
    let line: Value = serde_json::from_str(line.unwrap()).unwrap();
    assert_eq!(line["user.id"], json!(hash));
    names_nobody(&streamgate);
}

#[tokio::test]
async fn no_line_about_a_changed_configuration_names_a_user() {
    let files = Files::new();
    let (hash, streamgate) = (files.hash().await, files.start(&[]).await);
    let write = |text: &str| std::fs::write(&files.config, text).unwrap();
    write(&CONFIG.replace("com: 1", "com: 2"));
    names_the_hash(&streamgate, "a setting has changed", 1, &hash).await;
    let changed = &streamgate.lines("a setting has changed")[0];
    assert_eq!(
        (&changed["key"], &changed["from"], &changed["to"]),
        (&json!("limits.users"), &json!("1"), &json!("2"))
    );
    let unusable = "the changed files can't be used; what was read before stays in force";
    let config = &files.config;
    for (count, mistake) in [(1, "com: many"), (2, "com: [1]")] {
        write(&CONFIG.replace("com: 1", mistake));
        let told = streamgate.told(unusable, count).await;
        assert_eq!(
            told.last().unwrap()["problem"],
            json!(format!(
                "{config}:5: `streamgate check-config` says what is wrong there"
            ))
        );
    }
    // A name that stands where a key should.
    write("limits:\n  default: 1\n  anna@example.com: 1\n# end\n");
    streamgate.told(unusable, 3).await;
    names_nobody(&streamgate);
    drop(files.folder);
}

#[tokio::test]
async fn no_line_about_an_outage_names_a_user() {
    let files = Files::new();
    let hash = files.hash().await;
    // No server listens there.
    let port = ReservedPort::reserve();
    let url = format!("redis://{}", port.address());
    for (rule, message) in [
        ("allow", "a stream was let in by the outage rule"),
        ("deny", "a stream could not be decided"),
    ] {
        let streamgate = files
            .start(&[
                ("store.backend", "redis"),
                ("store.redis.urls", &url),
                ("store.outage", rule),
            ])
            .await;
        let gateway = Gateway::connect(streamgate.grpc).await;
        let answer = gateway.check(Check::of_playback(USER, "p1")).await;
        assert_eq!(answer.is_allowed(), rule == "allow");
        streamgate.says(message).await;
        let log = streamgate.log();
        let line = log.lines().find(|line| line.contains(message));
        let line: Value = serde_json::from_str(line.unwrap()).unwrap();
        assert_eq!(line["user.id"], json!(hash), "the same at every instance");
        names_nobody(&streamgate);
    }
}

#[tokio::test]
async fn without_a_good_key_nothing_starts_and_no_key_is_shown() {
    let files = Files::new();
    let short = files.folder.path().join("short");
    std::fs::write(&short, "hunter2\n").unwrap();
    let short = short.to_str().unwrap();
    let hashed = ("STREAMGATE_TELEMETRY__LOG_USERS", "hashed");
    let key_file = |path| ("STREAMGATE_TELEMETRY__LOG_USERS_KEY_FILE", path);
    let too_short = "the key has 7 bytes; allowed: at least 32";
    for (arguments, environment, said) in [
        (&["serve"][..], &[hashed][..], "hashed needs a secret key"),
        (&["serve"], &[hashed, key_file(short)], too_short),
        (
            &["serve"],
            &[hashed, key_file("/nowhere/key")],
            "/nowhere/key",
        ),
        (
            &["check-config", &files.config],
            &[hashed, key_file(short)],
            too_short,
        ),
        (&["hash-user", USER, "--key-file", short], &[], too_short),
        (&["hash-user", USER], &[], "--key-file"),
    ] {
        let (code, out, errors) = run(arguments, environment).await;
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}");
        assert!(errors.contains(said), "{arguments:?}: {errors}");
        assert!(!errors.contains("hunter2"), "{errors}");
    }
}
