//! Configuration as a whole: files named by what is wrong with them, variables, and what is said about either.

mod reference;

use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::identity::Source;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/config")
        .join(name)
}

fn load_fixture(name: &str) -> Result<Config, ConfigError> {
    Config::load(Some(&fixture(name)), [])
}

fn load_text(text: &str) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("streamgate.yaml");
    std::fs::write(&file, text).unwrap();
    Config::load(Some(&file), [])
}

fn load_variables(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::load(
        None,
        variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
    )
}

/// What is said about a file, without the folder it is in.
fn complaint(result: Result<Config, ConfigError>) -> String {
    let error = result.expect_err("a mistake").to_string();
    let without_folder = |line: &str| match line.split_once(": ") {
        Some((place, rest)) => format!("{}: {rest}", place.rsplit('/').next().unwrap()),
        None => line.to_owned(),
    };
    error
        .lines()
        .map(without_folder)
        .collect::<Vec<_>>()
        .join("\n")
}

// === What is taken ===

#[test]
fn the_defaults_are_those_that_are_documented() {
    let default = Config::default();
    assert_eq!(Config::load(None, []), Ok(default.clone()));
    for name in [
        "documented_defaults.yaml",
        "nothing_set.yaml",
        "sections_without_keys.yaml",
    ] {
        assert_eq!(load_fixture(name), Ok(default.clone()), "{name}");
    }
    assert_eq!(load_text("\n"), Ok(default.clone()));
    let shown = |sources: &[Source]| {
        sources
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(
        shown(&default.identity.session),
        "header:x-playback-session-id cmcd:sid query:session request"
    );
    assert_eq!(
        shown(&default.identity.fresh),
        "header:x-playback-session-id cmcd:sid query:session"
    );
    assert_eq!(
        default.store.redis.urls.first().map(RedisUrl::expose),
        Some("redis://127.0.0.1:6379")
    );
}

#[test]
fn each_key_of_a_file_is_understood() {
    let config = load_fixture("everything_set.yaml").unwrap();
    let limit = |user: &str, plan: &str| {
        let (user, plan) = (
            crate::session::UserId::parse(user),
            crate::session::PlanName::parse(plan),
        );
        config
            .limits
            .policy
            .allowance(&user.unwrap(), plan.ok().as_ref())
            .allowance
            .limit
    };
    assert_eq!(
        config.grpc.listen,
        Listen::Unix("/run/streamgate/grpc.sock".into())
    );
    assert_eq!(config.store.backend, Backend::Redis);
    assert_eq!(
        config.store.redis.urls.first().unwrap().expose(),
        "rediss://cache.example.com:6380/2"
    );
    assert_eq!(
        (
            limit("bert", "gold"),
            limit("bert", "premium 4k"),
            limit("bert", "no")
        ),
        (2, 4, 0)
    );
    assert_eq!(
        (limit("42", "basic"), limit("anna@example.com", "basic")),
        (9, 0)
    );
    assert_eq!(
        (config.leases.request, config.leases.longest()),
        (Duration::from_secs(90), Duration::from_secs(7200))
    );
    assert_eq!(
        config.identity.user.last().unwrap().to_string(),
        "header:x-user-id"
    );
    assert_eq!(
        (config.identity.plan.len(), config.identity.content.len()),
        (0, 1)
    );
    assert!(config.refusal.show.is_empty());
    let page = "https://watch.example/help/problems?lang=en";
    assert_eq!(config.refusal.problems.as_deref(), Some(page));
    assert_eq!(
        config.telemetry,
        Telemetry {
            log_format: LogFormat::Json,
            log_level: tracing::Level::DEBUG,
            log_starts: Share::of_a_million(2_500)
        }
    );
}

#[test]
fn the_files_of_a_ports_tls_are_understood() {
    let config = load_fixture("everything_set.yaml").unwrap();
    assert_eq!(
        config.http.tls,
        Some(Tls {
            cert: "/etc/streamgate/tls/tls.crt".into(),
            key: "/etc/streamgate/tls/tls.key".into(),
            client_ca: Some("/etc/streamgate/a: b.pem".into()),
        })
    );
    let pair = [
        ("STREAMGATE_GRPC__TLS__CERT", "a.pem"),
        ("STREAMGATE_GRPC__TLS__KEY", "b.pem"),
    ];
    let tls = load_variables(&pair).unwrap().grpc.tls.unwrap();
    assert_eq!((tls.key, tls.client_ca), ("b.pem".into(), None));
}

#[test]
fn what_happens_at_the_limit_and_at_the_end_is_understood() {
    let config = load_fixture("everything_set.yaml").unwrap();
    assert_eq!(
        (
            config.limits.grace,
            config.limits.when_full,
            config.shutdown.grace
        ),
        (
            Duration::ZERO,
            WhenFull::DisplaceIdlest,
            Duration::from_millis(500)
        )
    );
    assert_eq!(config.identity.takeover.len(), 1);
    assert!(!config.limits.enforce);
    let users_file = config.limits.users_file.as_deref();
    assert_eq!(users_file, Some(Path::new("/etc/streamgate/users")));
    assert_eq!(
        (config.limits.displacements, config.limits.quiet),
        (0, Duration::from_secs(60))
    );
}

#[test]
fn an_id_is_derived_unless_its_source_is_fresh() {
    let derived = |identity: &Identity, source: &str| identity.is_derived(&source.parse().unwrap());
    let default = Identity::default();
    for (source, expected) in [
        ("header:x-playback-session-id", false),
        ("cmcd:sid", false),
        ("query:session", false),
        ("request", false),
        ("header:x-device-id", true),
        ("cookie:playback", true),
        ("jwt:sid", true),
        ("header:x-device-id+path:^/vod/([^/]+)", true),
        // One fresh part makes a join fresh.
        ("cmcd:sid+path:^/vod/([^/]+)", false),
    ] {
        assert_eq!(derived(&default, source), expected, "{source}");
    }
    let none = load_text("identity: {fresh: []}").unwrap().identity;
    for (source, expected) in [("cmcd:sid", true), ("request", false)] {
        assert_eq!(derived(&none, source), expected, "{source}");
    }
    // A join can be named as a whole.
    let listed = load_fixture("everything_set.yaml").unwrap().identity;
    for (source, expected) in [
        ("header:x-device-id+path:^/vod/([^/]+)", false),
        ("header:x-device-id+path:^/live/([^/]+)", true),
        ("header:x-device-id", true),
    ] {
        assert_eq!(derived(&listed, source), expected, "{source}");
    }
}

#[test]
fn each_key_of_the_http_door_is_understood() {
    let config = load_fixture("everything_set.yaml").unwrap();
    assert_eq!(config.http.listen.to_string(), "[::]:8081");
    assert_eq!(
        config.http.tokens_file,
        Some("/etc/streamgate/tokens".into())
    );
    let origins = ["https://app.example", "http://[::1]:3000"].map(str::to_owned);
    assert_eq!(config.http.cors_origins, Origins::These(origins.into()));
    assert_eq!(config.http.hosts, ["streams.example", "tv_1"]);
    let endpoint = config.http.endpoint.as_ref().unwrap();
    assert_eq!(
        endpoint.of("a%20b"),
        "https://cdn.example/a%20b/index.m3u8?x=1"
    );
}

#[test]
fn the_summary_can_be_read_back() {
    for name in ["documented_defaults.yaml", "everything_set.yaml"] {
        let config = load_fixture(name).unwrap();
        assert_eq!(
            load_text(&config.to_string()),
            Ok(config.clone()),
            "{config}"
        );
    }
    let sentinel = ("STREAMGATE_STORE__REDIS__TOPOLOGY", "sentinel");
    let master = ("STREAMGATE_STORE__REDIS__MASTER_URL", "rediss://mymaster/2");
    let urls = (
        "STREAMGATE_STORE__REDIS__URLS",
        "redis://s1,rediss://s2:7000",
    );
    let config = load_variables(&[sentinel, master, urls]).unwrap();
    assert_eq!(load_text(&config.to_string()), Ok(config));
}

#[test]
fn a_variable_beats_the_file() {
    let variables = [
        ("STREAMGATE_GRPC__LISTEN", "127.0.0.1:1"),
        ("STREAMGATE_LIMITS__DEFAULT", "7"),
        ("STREAMGATE_LIMITS__PLANS__gold", "8"),
        ("STREAMGATE_LIMITS__PLANS__basic", "2"),
        ("STREAMGATE_LIMITS__USERS", "a=b=1, carl=3"),
        ("STREAMGATE_LIMITS__USERS__x__Y", "5"),
        ("STREAMGATE_IDENTITY__SESSION", "cmcd:sid, request"),
        ("STREAMGATE_IDENTITY__DEVICE", ""),
        ("STREAMGATE_HTTP__TLS__CERT", ""),
        ("STREAMGATE_HTTP__TLS__KEY", ""),
        ("STREAMGATE_HTTP__TLS__CLIENT_CA", ""),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config = Config::load(Some(&fixture("everything_set.yaml")), variables).unwrap();
    let policy = &config.limits.policy;
    let plans: Vec<_> = policy
        .plans
        .iter()
        .map(|(name, limit)| (name.as_str(), *limit))
        .collect();
    let mut users: Vec<_> = policy
        .users
        .iter()
        .map(|(name, limit)| (name.as_str(), *limit))
        .collect();
    users.sort_unstable();
    assert_eq!(config.grpc.listen.to_string(), "127.0.0.1:1");
    assert_eq!(policy.default, 7);
    // One entry keeps the rest of the file's map; the whole map replaces it.
    assert_eq!(
        plans,
        [("basic", 2), ("gold", 8), ("no", 0), ("premium 4k", 4)]
    );
    assert_eq!(users, [("a=b", 1), ("carl", 3), ("x__Y", 5)]);
    assert_eq!(
        (config.identity.session.len(), config.identity.device.len()),
        (2, 0)
    );
    assert_eq!(config.http.listen.to_string(), "[::]:8081");
    assert_eq!(config.http.tls, None, "an empty variable takes it back");
}

#[test]
fn sentinels_are_named_in_a_file_or_by_variables() {
    let file = "store: {backend: redis, redis: {topology: sentinel, sentinel_service: tv.eu, urls: ['redis://s1', 'redis://app:a,b@s2:7000'], \
                master_url: 'redis://gate:c@tv.eu/2'}}";
    let variables = [
        ("STREAMGATE_STORE__BACKEND", "redis"),
        ("STREAMGATE_STORE__REDIS__TOPOLOGY", "sentinel"),
        ("STREAMGATE_STORE__REDIS__SENTINEL_SERVICE", "tv.eu"),
        (
            "STREAMGATE_STORE__REDIS__URLS",
            "redis://s1, redis://app:a,b@s2:7000",
        ),
        (
            "STREAMGATE_STORE__REDIS__MASTER_URL",
            "redis://gate:c@tv.eu/2",
        ),
    ];
    for config in [load_text(file), load_variables(&variables)] {
        let redis = config.unwrap().store.redis;
        let urls: Vec<_> = redis.urls.iter().map(RedisUrl::expose).collect();
        assert_eq!(redis.topology, Topology::Sentinel);
        assert_eq!(urls, ["redis://s1", "redis://app:a,b@s2:7000"]);
        assert_eq!(redis.sentinel_service, "tv.eu");
        assert_eq!(redis.master().expose(), "redis://gate:c@tv.eu/2");
    }
}

#[test]
fn the_examples_of_the_documents_are_taken() {
    let examples = |text: &'static str| {
        let blocks = text.split("```yaml\n").skip(1);
        blocks.map(|block| block.split("```").next().unwrap())
    };
    for yaml in examples(include_str!("../../../README.md")) {
        let config = load_text(yaml).unwrap();
        assert_eq!(config.store.backend, Backend::Redis);
    }
    let yaml = examples(include_str!("../../../docs/redis.md"))
        .next()
        .unwrap();
    let redis = load_text(yaml).unwrap().store.redis;
    assert_eq!((redis.topology, redis.urls.len()), (Topology::Sentinel, 3));
}

#[test]
fn a_master_is_spoken_to_without_a_password_and_as_the_sentinels_are_unless_it_is_said() {
    for (urls, master) in [
        ("redis://:secret@s1,redis://:secret@s2", "redis://mymaster"),
        ("redis://s1,rediss://s2", "rediss://mymaster"),
    ] {
        let variables = [
            ("STREAMGATE_STORE__REDIS__TOPOLOGY", "sentinel"),
            ("STREAMGATE_STORE__REDIS__URLS", urls),
        ];
        let config = load_variables(&variables).unwrap();
        assert_eq!(config.store.redis.master().expose(), master);
        let shown = config.to_string();
        assert!(shown.contains("    topology: sentinel\n"), "{shown}");
        assert!(
            shown.contains("    sentinel_service: mymaster\n"),
            "{shown}"
        );
        let master = format!("    master_url: \"{master}\"\n");
        assert!(shown.contains(&master), "{shown}");
        assert!(!shown.contains("secret"), "{shown}");
    }
}

#[test]
fn every_key_has_a_variable() {
    for (key, _) in keys() {
        let name = format!("STREAMGATE_{}", key.replace('.', "__").to_uppercase());
        let shown = match key {
            "store.redis.urls" | "store.redis.master_url" | "http.tokens_file" => {
                "got a value that is not shown here"
            }
            key if key.contains(".tls.") => "got a value that is not shown here",
            _ => "\"\u{1f600}\\u{7}\"",
        };
        // No key takes this, so a variable that has no effect would show.
        let said = complaint(load_variables(&[(&name, "\u{1f600}\u{7}")]));
        assert!(
            said.starts_with(&format!("{name}: {key}: ")) && said.contains(shown),
            "{said}"
        );
        assert!(said.contains("; allowed: "), "{said}");
    }
}

#[test]
fn variables_of_others_are_left_alone() {
    for name in [
        "PATH",
        "STREAMGATE",
        "STREAMGATE_",
        "STREAMGATE_CONFIG",
        "STREAMGATE_URL",
        "STREAMGATE_TOKEN",
        "STREAMGATE_TOKEN_FILE",
        "STREAMGATE_TEST_REDIS__URL",
        // Kubernetes, for services named streamgate and streamgate-grpc.
        "STREAMGATE_PORT",
        "STREAMGATE_SERVICE_HOST",
        "STREAMGATE_PORT_50051_TCP_ADDR",
        "STREAMGATE_GRPC_SERVICE_PORT",
        "STREAMGATE_GRPC_PORT",
        "streamgate_store__backend",
    ] {
        assert_eq!(
            load_variables(&[(name, "tcp://10.0.0.1:50051")]),
            Ok(Config::default()),
            "{name}"
        );
    }
}

// === What is refused, and what is said ===

#[test]
fn a_bad_file_is_named_with_line_key_value_and_what_is_allowed() {
    for (name, said) in [
        (
            "unknown_key.yaml",
            "unknown_key.yaml:4: store.bakend: unknown key; allowed here: backend, outage, timeout, redis",
        ),
        (
            "unknown_section.yaml",
            "unknown_section.yaml:1: stores: unknown key; allowed here: grpc, http, store, limits, leases, identity, refusal, telemetry, shutdown",
        ),
        (
            "unknown_nested_key.yaml",
            "unknown_nested_key.yaml:3: store.redis.url: unknown key; allowed here: topology, urls, sentinel_service, master_url, key_prefix",
        ),
        (
            "duplicate_key.yaml",
            "duplicate_key.yaml:3: limits.default: written twice; allowed: once",
        ),
        (
            "duplicate_section.yaml",
            "duplicate_section.yaml:3: limits: written twice; allowed: once",
        ),
        (
            "duplicate_plan.yaml",
            "duplicate_plan.yaml:4: limits.plans.basic: written twice; allowed: once",
        ),
        (
            "section_is_a_text.yaml",
            "section_is_a_text.yaml:2: store: got string; allowed: a section, with keys of its own below it",
        ),
        (
            "section_is_a_list.yaml",
            "section_is_a_list.yaml:2: store.redis: got sequence; allowed: a section, with keys of its own below it",
        ),
        (
            "two_documents.yaml",
            "two_documents.yaml:3: got a second YAML document; allowed: one",
        ),
        (
            "many_mistakes.yaml",
            "many_mistakes.yaml:2: store.backend: got \"memcached\"; allowed: memory, redis\n\
             many_mistakes.yaml:3: store.timeout: got 50, which has no unit: write 50ms or 50s; \
             allowed: a duration from 1ms to 10s, such as 250ms, 15s or 1m30s\n\
             many_mistakes.yaml:7: limits.plans.premium: got \"four\"; allowed: a whole number from 0 to 1000\n\
             many_mistakes.yaml:9: leases.request: got \"500ms\"; \
             allowed: a duration from 1s to 24h, such as 250ms, 15s or 1m30s\n\
             many_mistakes.yaml:13: identity.session: got \"cookies:sid\"; \
             allowed: header:NAME, cookie:NAME, query:NAME, cmcd:KEY, jwt:CLAIM, context:KEY, path:REGEX, basic, principal or request; several joined by +",
        ),
        (
            "timeout_longer_than_lease.yaml",
            "timeout_longer_than_lease.yaml:4: leases.request: got 3s; allowed: more than store.timeout, which is 5s",
        ),
    ] {
        assert_eq!(complaint(load_fixture(name)), said, "{name}");
    }
}

#[test]
fn a_file_without_a_byte_is_an_error_and_how_to_mean_it_is_said() {
    let said = "streamgate.yaml: the configuration file is empty (0 bytes), as after an interrupted write; \
                to use only the defaults, write a comment into it, such as `# end`";
    assert_eq!(complaint(load_text("")), said);
    assert_eq!(load_text("# end"), Ok(Config::default()));
}

#[test]
fn an_unreadable_file_hides_no_mistake_in_the_environment() {
    let variable = ("STREAMGATE_LIMITS__DEFAULT".to_owned(), "many".to_owned());
    let file = fixture("missing.yaml");
    for loaded in [
        Config::load(Some(&file), [variable.clone()]),
        ConfigFile::load(file.clone(), vec![variable]).map(|(_, config)| config),
    ] {
        let lines: Vec<_> = loaded.unwrap_err().lines().collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(
            lines[0].contains("can't read the configuration file"),
            "{lines:?}"
        );
        assert!(
            lines[1].starts_with("STREAMGATE_LIMITS__DEFAULT: "),
            "{lines:?}"
        );
    }
}

#[test]
fn a_file_that_is_no_yaml_is_named_with_its_line() {
    for (name, said) in [
        (
            "broken_yaml.yaml",
            "broken_yaml.yaml:3: store.redis.urls: not valid YAML: unclosed quote",
        ),
        ("not_a_map.yaml", "not_a_map.yaml:1: "),
        (
            "missing.yaml",
            "missing.yaml: can't read the configuration file: No such file",
        ),
    ] {
        let complaint = complaint(load_fixture(name));
        assert!(complaint.starts_with(said), "{complaint}");
        assert!(
            !complaint.contains("hunter2") && !complaint.contains("at line"),
            "{complaint}"
        );
    }
}

/// A section with a mistake in it, and how what is said about it begins after the line.
const BAD_VALUES: &[(&str, &str)] = &[
    (
        "grpc: {listen: 50051}",
        "grpc.listen: got 50051; allowed: an IP address with a port such as 127.0.0.1:50051, localhost:50051, :50051 for 0.0.0.0:50051, or unix:/path.sock",
    ),
    (
        "grpc: {listen: 'example.com:50051'}",
        "grpc.listen: got \"example.com:50051\"; allowed: an IP address",
    ),
    (
        "grpc: {listen: ':8080'}",
        "grpc.listen: http.listen (127.0.0.1:8080) and grpc.listen (0.0.0.0:8080) use the same port; allowed: two different ports",
    ),
    (
        "{grpc: {listen: '127.0.0.1:1'}, http: {listen: 'localhost:1'}}",
        "http.listen: http.listen (127.0.0.1:1) and grpc.listen (127.0.0.1:1) use the same port; allowed: two different ports",
    ),
    (
        "grpc: {tls: a.pem}",
        "grpc.tls: got string; allowed: a section, with keys of its own below it",
    ),
    (
        "grpc: {tls: {ca: a.pem}}",
        "grpc.tls.ca: unknown key; allowed here: cert, key, client_ca",
    ),
    (
        "grpc: {tls: {cert: a.pem}}",
        "grpc.tls.key: got nothing; allowed: the file with the certificate's private key, since TLS needs both",
    ),
    (
        "http: {tls: {key: a.pem, client_ca: null}}",
        "http.tls.cert: got nothing; allowed: the file with the certificate, since TLS needs both",
    ),
    (
        "http: {tls: {cert: 1, key: a.pem}}",
        "http.tls.cert: got a value that is not shown here; allowed: the path of a PEM file",
    ),
    (
        "grpc: {listen: 'unix:/a.sock', tls: {cert: a.pem}}",
        "grpc.tls.cert: a Unix socket has no TLS, and grpc.listen is unix:/a.sock; allowed: null, or an IP address with a port in grpc.listen",
    ),
    (
        "http: {listen: 'unix:/a.sock'}",
        "http.listen: got \"unix:/a.sock\"; allowed: an IP address with a port such as 127.0.0.1:8080, localhost:8080, or :8080 for 0.0.0.0:8080",
    ),
    (
        "http: {tokens_file: 7}",
        "http.tokens_file: got a value that is not shown here; allowed: the path of a file with a token on each line",
    ),
    (
        "http: {tokens_file: 4711471147114711}",
        "http.tokens_file: got a value that is not shown here; allowed: the path of a file with a token on each line",
    ),
    (
        "store: {redis: {topology: sentinel, urls: [redis://s1], master_url: 12345678}}",
        "store.redis.master_url: got a value that is not shown here; allowed: redis://[user:password@]mymaster",
    ),
    (
        "store: {redis: {urls: [12345678]}}",
        "store.redis.urls: got a value that is not shown here; allowed: one URL",
    ),
    (
        "store: {redis: {urls: 12345678}}",
        "store.redis.urls: got a value that is not shown here; allowed: one URL",
    ),
    (
        "store: {backend: hunter2@cache.example.com}",
        "store.backend: got a value that is not shown here; allowed: ",
    ),
    (
        "store: {backend: 'http://app:1234'}",
        "store.backend: got a value that is not shown here; allowed: ",
    ),
    (
        "limits: {plans: {hunter2@cache.example.com: 5000}}",
        "limits.plans.hunter2@cache.example.com: got a value that is not shown here; allowed: a whole number from 0 to 1000",
    ),
    (
        "http: {cors_origins: app.example}",
        "http.cors_origins: got \"app.example\"; allowed: * alone, or a list of origins such as https://app.example.com: scheme, host in lower case and port, without a path",
    ),
    (
        "http: {cors_origins: ['*', 'https://app.example']}",
        "http.cors_origins: got \"*\"; allowed: * alone, or a list of origins such as https://app.example.com: scheme, host in lower case and port, without a path",
    ),
    (
        "http: {cors_origins: ['https://app.example/']}",
        "http.cors_origins: got \"https://app.example/\"; allowed: * alone, or a list of origins such as https://app.example.com: scheme, host in lower case and port, without a path",
    ),
    (
        "http: {cors_origins: ['https://app.example:443']}",
        "http.cors_origins: got \"https://app.example:443\"; allowed: * alone, or a list of origins such as https://app.example.com: scheme, host in lower case and port, without a path",
    ),
    (
        "http: {cors_origins: ['https://app.example:99999']}",
        "http.cors_origins: got \"https://app.example:99999\"; allowed: * alone, or a list of origins such as https://app.example.com: scheme, host in lower case and port, without a path",
    ),
    (
        "http: {cors_origins: ['https://a:b:c']}",
        "http.cors_origins: got a value that is not shown here; allowed: * alone, or a list of origins such as https://app.example.com: scheme, host in lower case and port, without a path",
    ),
    (
        "http: {cors_origins: ['https://app.example', 'https://*.example.com']}",
        "http.cors_origins: got \"https://*.example.com\"; wildcards within an origin are not supported; list each origin in full, such as https://app.example.com, or use * alone",
    ),
    (
        "http: {cors_origins: ['https://app:hunter2@app.example']}",
        "http.cors_origins: got a value that is not shown here; allowed: * alone",
    ),
    (
        "http: {hosts: ['streams.example:8080']}",
        "http.hosts: got \"streams.example:8080\"; allowed: a list of host names without a port, such as streamgate.example.com; no IP address, and not localhost, which browsers may always use",
    ),
    (
        "http: {hosts: ['*.example.com']}",
        "http.hosts: got \"*.example.com\"; allowed: a list of host names without a port, such as streamgate.example.com; no IP address, and not localhost, which browsers may always use",
    ),
    (
        "http: {hosts: 'streams.example,127.0.0.1'}",
        "http.hosts: got \"127.0.0.1\"; allowed: a list of host names without a port, such as streamgate.example.com; no IP address, and not localhost, which browsers may always use",
    ),
    (
        "http: {hosts: [localhost]}",
        "http.hosts: got \"localhost\"; allowed: a list of host names without a port, such as streamgate.example.com; no IP address, and not localhost, which browsers may always use",
    ),
    (
        "http: {hosts: ['https://streams.example']}",
        "http.hosts: got \"https://streams.example\"; allowed: a list of host names without a port, such as streamgate.example.com; no IP address, and not localhost, which browsers may always use",
    ),
    (
        "http: {hosts: ['']}",
        "http.hosts: got \"\"; allowed: a list of host names without a port, such as streamgate.example.com; no IP address, and not localhost, which browsers may always use",
    ),
    (
        "http: {hosts: {}}",
        "http.hosts: got {}; allowed: a list of host names without a port, such as streamgate.example.com; no IP address, and not localhost, which browsers may always use",
    ),
    (
        "limits: {users: {anna@example.com: 5000}}",
        "limits.users.anna@example.com: got 5000; allowed: a whole number from 0 to 1000",
    ),
    (
        "http: {endpoint: 'https://{id}'}",
        "http.endpoint: got \"https://{id}\"; allowed: an http:// or https:// address with {id} in it once, such as https://cdn.example.com/{id}",
    ),
    (
        "http: {endpoint: 'https://u:pw@cdn.example/{id}'}",
        "http.endpoint: got a value that is not shown here; allowed: an http:// or https:// address with {id} in it once, such as https://cdn.example.com/{id}",
    ),
    (
        "http: {endpoint: '/{id}'}",
        "http.endpoint: got \"/{id}\"; allowed: an http:// or https:// address with {id} in it once, such as https://cdn.example.com/{id}",
    ),
    (
        "http: {endpoint: 'https://cdn.example/{id}/{id}'}",
        "http.endpoint: got \"https://cdn.example/{id}/{id}\"; allowed: an http:// or https:// address with {id} in it once, such as https://cdn.example.com/{id}",
    ),
    (
        "http: {endpoint: 'ftp://cdn.example/{id}'}",
        "http.endpoint: got a value that is not shown here; allowed: an http:// or https:// address with {id} in it once, such as https://cdn.example.com/{id}",
    ),
    (
        "store: {backend: [redis]}",
        "store.backend: got [\"redis\"]; allowed: memory, redis",
    ),
    (
        "store: {outage: open}",
        "store.outage: got \"open\"; allowed: allow, deny, local",
    ),
    (
        "store: {timeout: 0s}",
        "store.timeout: got \"0s\"; allowed: a duration from 1ms to 10s, such as 250ms, 15s or 1m30s",
    ),
    (
        "store: {timeout: 1m}",
        "store.timeout: got \"1m\"; allowed: a duration from 1ms to 10s, such as 250ms, 15s or 1m30s",
    ),
    (
        "store: {timeout: .inf}",
        "store.timeout: got \".inf\"; allowed: a duration",
    ),
    (
        "store: {redis: {topology: cluster}}",
        "store.redis.topology: \"cluster\" is not available in this version; allowed: standalone, sentinel",
    ),
    (
        "store: {redis: {topology: cluster, urls: [redis://a, redis://b], sentinel_service: tv}}",
        "store.redis.topology: \"cluster\" is not available in this version; allowed: standalone, sentinel",
    ),
    (
        "store: {redis: {topology: sentinel}}",
        "store.redis.topology: sentinel needs the sentinels' URLs in store.redis.urls",
    ),
    (
        "store: {redis: {topology: sentinels}}",
        "store.redis.topology: got \"sentinels\"; allowed: standalone, sentinel",
    ),
    (
        "store: {redis: {sentinel_service: tv}}",
        "store.redis.sentinel_service: got \"tv\"; allowed: mymaster, unless store.redis.topology is sentinel",
    ),
    (
        "store: {redis: {topology: sentinel, urls: 'redis://s1', sentinel_service: 'my master'}}",
        "store.redis.sentinel_service: got \"my master\"; allowed: 1 to 128 letters, digits, `.`, `_` or `-`, as Sentinel has it",
    ),
    (
        "store: {redis: {topology: sentinel, urls: []}}",
        "store.redis.urls: got []; allowed: the URLs of the sentinels, each as redis://[user:password@]host[:26379], or rediss:// for TLS, with one host, by its name or address; # in a password is %23; a database belongs into store.redis.master_url",
    ),
    (
        "store: {redis: {topology: sentinel, urls: [redis://s1, redis://s2/1]}}",
        "store.redis.urls: got a value that is not shown here as URL 2 of 2; allowed: the URLs of the sentinels",
    ),
    (
        "store: {redis: {topology: sentinel, urls: 'redis://s1,redis://:a#b@s2,redis://s3'}}",
        "store.redis.urls: got a value that is not shown here as URL 2 of 3; allowed: the URLs of the sentinels",
    ),
    (
        "store: {redis: {topology: sentinel, urls: 'redis://s1,s2,s3'}}",
        "store.redis.urls: got a value that is not shown here; allowed: the URLs of the sentinels, each as redis://[user:password@]host[:26379], or rediss:// for TLS, with one host",
    ),
    (
        "store: {redis: {topology: sentinel, urls: ['redis://s1:26379,s2']}}",
        "store.redis.urls: got a value that is not shown here; allowed: the URLs of the sentinels",
    ),
    (
        "store: {redis: {urls: 'redis://s1,s2,s3'}}",
        "store.redis.urls: got a value that is not shown here; allowed: one URL, as redis://[user:password@]host[:port][/database], or rediss:// for TLS, with one host, by its name or address",
    ),
    (
        "store: {redis: {topology: sentinel, urls: [s1:26379]}}",
        "store.redis.urls: got a value that is not shown here; allowed: the URLs of the sentinels",
    ),
    (
        "store: {redis: {master_url: 'redis://mymaster'}}",
        "store.redis.master_url: got a value that is not shown here; allowed: nothing, unless store.redis.topology is sentinel; a single server's URL goes into store.redis.urls",
    ),
    (
        "store: {redis: {topology: sentinel, urls: 'redis://s1', sentinel_service: tv, master_url: 'redis://:secret@mymaster'}}",
        "store.redis.master_url: got a value that is not shown here; allowed: redis://[user:password@]tv[/database], or rediss:// for TLS; # in a password is %23; in the place of host and port, which the sentinels tell, stands store.redis.sentinel_service",
    ),
    (
        "store: {redis: {topology: sentinel, urls: 'redis://s1', master_url: 'redis://mymaster:6379'}}",
        "store.redis.master_url: got a value that is not shown here; allowed: redis://[user:password@]mymaster[/database]",
    ),
    (
        "store: {redis: {topology: sentinel, urls: 'redis://s1', master_url: ':secret@mymaster'}}",
        "store.redis.master_url: got a value that is not shown here; allowed: redis://[user:password@]mymaster[/database]",
    ),
    (
        "store: {redis: {urls: []}}",
        "store.redis.urls: got []; allowed: one URL, as redis://[user:password@]host[:port][/database], or rediss:// for TLS, with one host, by its name or address",
    ),
    (
        "store: {redis: {urls: [redis://a, redis://b]}}",
        "store.redis.urls: got a value that is not shown here; allowed: one URL, as redis://[user:password@]host[:port][/database], or rediss:// for TLS, with one host, by its name or address; # in a password is %23; several are sentinels, with store.redis.topology: sentinel",
    ),
    (
        "store: {redis: {urls: 'cache:6379'}}",
        "store.redis.urls: got a value that is not shown here; allowed: one URL",
    ),
    (
        "store: {redis: {key_prefix: 'a{b}'}}",
        "store.redis.key_prefix: got \"a{b}\"; allowed: 1 to 64 letters, digits, `.`, `_`, `:` or `-`",
    ),
    (
        "limits: {default: -1}",
        "limits.default: got -1; allowed: a whole number from 0 to 1000",
    ),
    (
        "limits: {default: 1001}",
        "limits.default: got 1001; allowed: a whole number from 0 to 1000",
    ),
    (
        "limits: {default: 2.5}",
        "limits.default: got 2.5; allowed: a whole number from 0 to 1000",
    ),
    (
        "limits: {enforce: no}",
        "limits.enforce: got \"no\"; allowed: true, false",
    ),
    (
        "limits: {when_full: displace}",
        "limits.when_full: got \"displace\"; allowed: refuse, displace_oldest, displace_idlest",
    ),
    (
        "limits: {displacements: 1001}",
        "limits.displacements: got 1001; allowed: a whole number from 0 to 1000",
    ),
    (
        "limits: {quiet: 999ms}",
        "limits.quiet: got \"999ms\"; allowed: a duration from 1s to 1h, such as 250ms, 15s or 1m30s",
    ),
    (
        "limits: {quiet: 61m}",
        "limits.quiet: got \"61m\"; allowed: a duration from 1s to 1h",
    ),
    (
        "identity: {fresh: [request]}",
        "identity.fresh: got \"request\"; allowed: any other source; request is only for identity.session",
    ),
    (
        "limits: {grace: 6s}",
        "limits.grace: got \"6s\"; allowed: a duration from 0s to 5s, such as 250ms, 15s or 1m30s",
    ),
    (
        "limits: {grace: 0}",
        "limits.grace: got 0, which has no unit: write 0ms or 0s; allowed: a duration from 0s to 5s",
    ),
    (
        "limits: {plans: [basic]}",
        "limits.plans: got [\"basic\"]; allowed: a map of names to whole numbers",
    ),
    (
        "limits: {plans: {basic: null}}",
        "limits.plans.basic: got null; allowed: a whole number from 0 to 1000",
    ),
    (
        "limits: {users_file: 7}",
        "limits.users_file: got 7; allowed: the path of a file with `name limit` on each line",
    ),
    (
        "limits: {users: {'': 1}}",
        "limits.users.: got the name \"\", which ",
    ),
    (
        "limits: {users: {\"a\\tb\": 1}}",
        "limits.users.a\\tb: got the name \"a\\tb\", which ",
    ),
    (
        "leases: {playback: 25h}",
        "leases.playback: got \"25h\"; allowed: a duration from 1s to 24h, such as 250ms, 15s or 1m30s",
    ),
    (
        "identity: {user: []}",
        "identity.user: got []; allowed: at least one source, such as header:x-user-id",
    ),
    (
        "identity: {user: [request]}",
        "identity.user: got \"request\"; allowed: any other source; request is only for identity.session",
    ),
    (
        "identity: {user: {header: x}}",
        "identity.user: got {header: \"x\"}; allowed: a list of sources",
    ),
    (
        "identity: {plan: [[a]]}",
        "identity.plan: got [\"a\"]; allowed: a source",
    ),
    (
        "identity: {content: 'header:x y'}",
        "identity.content: got \"header:x y\"; allowed: header:NAME with the name of an HTTP header",
    ),
    (
        "refusal: {show: [session, user]}",
        "refusal.show: got \"user\"; allowed: session, device, content, started_at",
    ),
    (
        "refusal: {problems: /v1/problems}",
        "refusal.problems: got \"/v1/problems\"; allowed: an http:// or https:// address without #, such as https://api.example.com/v1/problems",
    ),
    (
        "refusal: {problems: 'https://a.example/problems#'}",
        "refusal.problems: got \"https://a.example/problems#\"; allowed: an http:// or https:// address without #, such as https://api.example.com/v1/problems",
    ),
    (
        "telemetry: {log_format: xml}",
        "telemetry.log_format: got \"xml\"; allowed: text, json",
    ),
    (
        "telemetry: {log_starts: 1.5}",
        "telemetry.log_starts: got 1.5; allowed: a number from 0 to 1 with at most six decimals, such as 0.01",
    ),
    (
        "telemetry: {log_starts: 0.00000001}",
        "telemetry.log_starts: got 0.00000001; allowed: a number from 0 to 1 with at most six decimals, such as 0.01",
    ),
    (
        "telemetry: {log_starts: all}",
        "telemetry.log_starts: got \"all\"; allowed: a number from 0 to 1 with at most six decimals, such as 0.01",
    ),
    (
        "telemetry: {log_level: loud}",
        "telemetry.log_level: got \"loud\"; allowed: error, warn, info, debug, trace",
    ),
    (
        "telemetry: {otlp_endpoint: 'http://a:4317'}",
        "telemetry.otlp_endpoint: a value that is not shown here is not available in this version; allowed: null",
    ),
    (
        "shutdown: {deadline: 2s}",
        "shutdown.deadline: got 2s; allowed: at least 3s, which is shutdown.grace (2s) and 1s to finish calls and deliver what is queued",
    ),
    (
        "shutdown: {grace: 60s, deadline: 60999ms}",
        "shutdown.deadline: got 1m999ms; allowed: at least 1m1s, which is shutdown.grace (1m) and 1s to finish calls and deliver what is queued",
    ),
];

#[test]
fn a_bad_value_is_named_with_what_is_allowed() {
    for (section, said) in BAD_VALUES {
        let complaint = complaint(load_text(section));
        let expected = format!("streamgate.yaml:1: {said}");
        assert!(
            complaint.starts_with(&expected) && complaint.lines().count() == 1,
            "{section}\n{complaint}\n{expected}"
        );
    }
}

/// A variable, its value, and how what is said about it begins after its name.
const BAD_VARIABLES: &[(&str, &str, &str)] = &[
    (
        "STREAMGATE_STORE__BACKEND",
        "disk",
        "store.backend: got \"disk\"; allowed: memory, redis",
    ),
    (
        "STREAMGATE_STORE__TIMEOUT",
        "50",
        "store.timeout: got \"50\", which has no unit: write 50ms or 50s; allowed: ",
    ),
    (
        "STREAMGATE_LIMITS__DEFAULT",
        "",
        "limits.default: got \"\"; allowed: a whole number from 0 to 1000",
    ),
    (
        "STREAMGATE_LIMITS__PLANS",
        "basic:1",
        "limits.plans: got \"basic:1\"; allowed: a map of names to whole numbers, such as {basic: 1} in the file or basic=1 in the environment",
    ),
    (
        "STREAMGATE_LIMITS__PLANS",
        "a=1,a=2",
        "limits.plans.a: written twice; allowed: once",
    ),
    (
        "STREAMGATE_LIMITS__PLANS__premium",
        "four",
        "limits.plans.premium: got \"four\"; allowed: a whole number from 0 to 1000",
    ),
    (
        "STREAMGATE_REFUSAL__SHOW",
        "session,,device",
        "refusal.show: got \"\"; allowed: session, device, content, started_at",
    ),
    (
        "STREAMGATE_LIMITS__PLANS__",
        "1",
        "no key has this variable; allowed: STREAMGATE_LIMITS__PLANS",
    ),
    (
        "STREAMGATE_STORE__BAKEND",
        "redis",
        "no key has this variable; allowed: STREAMGATE_STORE__BACKEND, STREAMGATE_STORE__OUTAGE, ",
    ),
    (
        "STREAMGATE_STORES__BACKEND",
        "redis",
        "no key has this variable; allowed: STREAMGATE_SECTION__KEY with a section of grpc, http, store, limits, leases, identity, refusal, telemetry, shutdown",
    ),
    (
        "STREAMGATE_STORE",
        "redis",
        "no key has this variable; allowed: STREAMGATE_STORE__BACKEND, ",
    ),
    (
        "STREAMGATE_STORE_BACKEND",
        "redis",
        "no key has this variable; allowed: STREAMGATE_STORE__BACKEND",
    ),
    (
        "STREAMGATE_store__backend",
        "redis",
        "no key has this variable; allowed: STREAMGATE_STORE__BACKEND",
    ),
];

#[test]
fn a_bad_variable_is_named_with_what_is_allowed() {
    for (name, value, said) in BAD_VARIABLES {
        let complaint = complaint(load_variables(&[(name, value)]));
        assert!(
            complaint.starts_with(&format!("{name}: {said}")),
            "{complaint}"
        );
    }
}

#[test]
fn of_two_settings_that_clash_the_one_that_was_written_is_named() {
    let said = "allowed: more than store.timeout, which is 10s";
    let name = "STREAMGATE_LEASES__REQUEST";
    let complaint_of = |variables: &[(&str, &str)]| complaint(load_variables(variables));
    let both = complaint_of(&[("STREAMGATE_STORE__TIMEOUT", "10s"), (name, "10s")]);
    assert_eq!(both, format!("{name}: leases.request: got 10s; {said}"));
    assert!(load_variables(&[("STREAMGATE_STORE__TIMEOUT", "10s")]).is_ok());
    let grace = complaint_of(&[("STREAMGATE_SHUTDOWN__GRACE", "20s")]);
    assert_eq!(
        grace,
        "STREAMGATE_SHUTDOWN__GRACE: shutdown.deadline: got 15s; allowed: at least 21s, which is shutdown.grace (20s) and 1s to finish calls and deliver what is queued"
    );
}

#[test]
fn a_long_value_is_not_repeated_whole() {
    let said = complaint(load_variables(&[(
        "STREAMGATE_STORE__BACKEND",
        &"é".repeat(10_000),
    )]));
    assert!(said.len() < 400 && said.contains('…'), "{said}");
}

// === Secrets and warnings ===

#[test]
fn a_password_never_shows() {
    for url in [
        "redis://:hunter2@cache",
        "rediss://app:hunter2@cache:6380/1",
        "redis://:hun@hunter2@cache",
    ] {
        let config = load_variables(&[("STREAMGATE_STORE__REDIS__URLS", url)]).unwrap();
        assert_eq!(config.store.redis.urls.first().unwrap().expose(), url);
        assert!(
            !format!("{config:?}{config}").contains("hunter2"),
            "{config:?}\n{config}"
        );
    }
    for url in [
        "redis://:hunter2@",
        "redis://a:hunter2@cache:port",
        "redis://:a,hunter2@cache/x",
        "http://:hunter2@cache",
        ":hunter2@cache",
        "redis://:hunter2@a,redis://:hunter2@b",
        "redis://cache#hunter2",
        "redis://app:#hunter2@cache",
        "redis+unix:///run/redis.sock?pass=hunter2",
    ] {
        let error = load_variables(&[("STREAMGATE_STORE__REDIS__URLS", url)]).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        assert!(error.to_string().contains("not shown here"), "{error}");
        // The same in the wrong place, and as a list in a file.
        let error = load_variables(&[("STREAMGATE_STORE__BACKEND", url)]).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        let error = load_text(&format!("store: {{redis: {{urls: ['{url}']}}}}")).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
}

/// Files that are wrong around a password.
const WRONG_AROUND_A_PASSWORD: &[&str] = &[
    "store: {redis: {urls: redis://app:hunter2}}",
    "store: {redis: {urls: 'app:hunter2'}}",
    "store: {redis: {urls: 'redis:/app:hunter2'}}",
    "store: {redis: {urls: [redis://:hunter2, secret@cache:6379]}}",
    "store: {redis: {urls: [redis://:a, hunter2, b@cache:6379]}}",
    "store: {redis: {urls: [[hunter2]]}}",
    "store: {redis: {urls: {hunter2: 1}}}",
    "store: {redis: {urls: {hunter2: 1, hunter2: 2}}}",
    "store: {redis: {urls: {a: {hunter2: 1, hunter2: 2}}}}",
    "store: {redis: {urls: redis://:hunter2, secret@cache:6379}}",
    "store: {redis: {urls: redis://:a, hunter2@cache:6379}}",
    "store: {redis: {urls: redis://:a, hunter2, b@cache:6379}}",
    "store: {redis: {urls: redis://:a, hunter2, hunter2, b@cache:6379}}",
    "store: {redis: {urls: redis://:a,\n  hunter2,\n  b@cache:6379}}",
    "store: {redis: {urls: redis://:a,\n  hunter2: b@cache:6379}}",
    "store: {redis: {urls: redis://:a, urls: redis://:hunter2@cache}}",
    "store:\n  redis:\n    urls: redis://:a\n    urls: redis://:hunter2@cache",
    "store:\n  redis:\n    urls: redis://:a: hunter2@cache",
    "store:\n  redis:\n    urls: redis://:a\n      hunter2: b@cache",
    "store:\n  redis:\n    urls: redis://:a,\n      hunter2@cache",
    "store:\n  redis:\n    urls: redis://:a #hunter2@cache",
    "store:\n  redis:\n    urls: [redis://:hunter2@cache",
    "store:\n  redis:\n    urls: 'redis://:hunter2@cache",
    "store:\n  redis:\n    urls: \"redis://:\\hunter2@cache\"",
    "store:\n  redis:\n    urls: \"redis://:a\"hunter2@cache\"",
    "store:\n  redis:\n    urls: \"redis://:a\" hunter2: \"b@cache\"",
    "store:\n  redis:\n    urls: @hunter2",
    "store:\n  redis:\n    urls: %hunter2",
    "store:\n  redis:\n    urls: *hunter2",
    "store:\n  redis:\n    urls: &hunter2 &hunter2 x",
    "store:\n  redis:\n    urls: !hunter2 x",
    "store:\n  redis:\n    urls: !hunter2!x redis://a",
    "store:\n  redis:\n    urls: !!int hunter2",
    "store:\n  redis:\n    urls: !!float redis://:hunter2@cache",
    "store:\n  redis:\n    urls: !!binary hunter2",
    "store:\n  redis:\n    urls: ${hunter2}",
    "store:\n  redis:\n    urls: |\n      redis://app:hunter2\n",
    "store:\n  redis:\n\turls: redis://:hunter2@cache",
    "store:\n  redis:\n    urls:redis://:hunter2@cache",
    "store:\n  redis:\n    - redis://app:hunter2",
    "store:\n  redis: redis://app:hunter2",
    "store:\n  redis: hunter2",
    "store: hunter2",
    "redis://app:hunter2",
    "redis://app:hunter2: 1",
    "- redis://app:hunter2",
    "a: &a redis://app:hunter2\nstore: *a",
    "store: &a redis://app:hunter2\nhttp: *a",
    "store: {redis://app:hunter2: 1}",
    "store: {redis://app:hunter2: 1, redis://app:hunter2: 2}",
    "store: {? [hunter2] : 1}",
    "store: {'hunter2@cache': 1}",
    "store: {backend: redis://app:hunter2}",
    "store: {backend: [redis://a, hunter2, b@cache]}",
    "store: {backend: {redis://app:hunter2: 1}}",
    "store: {backend: {redis://app:hunter2: 1, redis://app:hunter2: 2}}",
    "store: {timeout: redis://app:hunter2}",
    "store: {redis: {key_prefix: redis://app:hunter2}}",
    "identity: {session: redis://app:hunter2}",
    "identity: {session: 'header:a,hunter2,redis://@b'}",
    "identity: {session: [hunter2, redis://b]}",
    "limits: {users: {redis://app:hunter2: x}}",
    "limits: {users: {redis://app:hunter2: 1, redis://app:hunter2: 2}}",
    "limits: {plans: {'app:hunter2@cache': x}}",
    "refusal: {show: 'redis://:a,hunter2@cache'}",
    "telemetry: {otlp_endpoint: 'http://app:hunter2'}",
];

#[test]
fn no_mistake_makes_a_password_show() {
    for text in WRONG_AROUND_A_PASSWORD {
        if let Err(error) = load_text(text) {
            let said = format!("{error} {error:?}");
            assert!(!said.contains("hunter2"), "{text}\n{error}");
        }
    }
    for (key, _) in keys() {
        for value in [
            "redis://app:hunter2",
            "redis://:a,hunter2,b@cache",
            "app:hunter2@cache",
            "redis:app:hunter2",
            "a=1,hunter2@cache=2,c=x",
        ] {
            let name = format!("STREAMGATE_{}", key.replace('.', "__").to_uppercase());
            let said =
                load_variables(&[(&name, value)]).map_err(|error| format!("{error} {error:?}"));
            if let Err(said) = said {
                let is_name =
                    value.starts_with("a=1") && ["limits.users", "limits.plans"].contains(&key);
                assert!(
                    is_name || !said.contains("hunter2"),
                    "{name}={value}\n{said}"
                );
            }
        }
    }
    for name in [
        "STREAMGATE_STORE__redis://app:hunter2",
        "STREAMGATE_STORE__REDIS__URLS__app:hunter2@cache",
        "STREAMGATE_redis://app:hunter2__X",
        "STREAMGATE_LIMITS__USERS__redis://app:hunter2",
    ] {
        let error = load_variables(&[(name, "x")]).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
}

#[test]
fn a_private_key_in_the_place_of_its_file_never_shows() {
    let variable = |name: &str| format!("STREAMGATE_{}", name.replace('.', "__").to_uppercase());
    for pem in [
        "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n",
        "-----BEGIN PRIVATE KEY-----\\nhunter2\\n-----END PRIVATE KEY-----",
        "hunter2\nhunter2",
    ] {
        for name in [
            "grpc.tls.cert",
            "grpc.tls.key",
            "http.tls.key",
            "http.tls.client_ca",
        ] {
            let error = load_variables(&[(&variable(name), pem)]).unwrap_err();
            let said = format!("{error} {error:?}");
            assert!(!said.contains("hunter2"), "{said}");
            assert!(
                said.contains("not shown here; allowed: the path of a PEM file"),
                "{said}"
            );
        }
        let socket = ("STREAMGATE_GRPC__LISTEN", "unix:/a.sock");
        let error = load_variables(&[socket, (&variable("grpc.tls.key"), pem)]).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
}

#[test]
fn an_unknown_key_that_may_be_a_secret_is_not_shown() {
    let allowed = "allowed here: backend, outage, timeout, redis";
    for text in [
        "store: {redis://app:hunter2: 1}",
        "store: {'app:hunter2@cache': 1}",
    ] {
        assert_eq!(
            complaint(load_text(text)),
            format!("streamgate.yaml:1: store: unknown key, which is not shown here; {allowed}")
        );
    }
    // A password elsewhere in the file doesn't hide where the mistake is.
    assert_eq!(
        complaint(load_text(
            "store:\n  redis: {urls: redis://:hunter2@cache}\n  bakend: redis"
        )),
        format!("streamgate.yaml:3: store.bakend: unknown key; {allowed}")
    );
}

#[test]
fn doors_open_beyond_this_machine_are_warned_about() {
    let (grpc, http) = ("STREAMGATE_GRPC__LISTEN", "STREAMGATE_HTTP__LISTEN");
    let redis = ("STREAMGATE_STORE__BACKEND", "redis");
    let cert = ("STREAMGATE_GRPC__TLS__CERT", "/c");
    let key = ("STREAMGATE_GRPC__TLS__KEY", "/k");
    let client_ca = ("STREAMGATE_GRPC__TLS__CLIENT_CA", "/a");
    for (variables, expected) in [
        (&[][..], &[][..]),
        (&[(grpc, "unix:/run/a.sock"), (http, "[::1]:8080")], &[]),
        (
            &[(grpc, "0.0.0.0:50051")],
            &[
                "grpc.listen: 0.0.0.0:50051 is open",
                "store.backend: memory counts",
            ],
        ),
        (
            &[(http, "10.0.0.1:8080")],
            &[
                "http.listen: 10.0.0.1:8080 is open",
                "store.backend: memory counts",
            ],
        ),
        (
            &[(grpc, "[::]:1"), (http, "[::]:2"), redis],
            &["grpc.listen: [::]:1 is open", "http.listen: [::]:2 is open"],
        ),
        (
            &[(grpc, "[::]:1"), cert, key, redis],
            &[
                "grpc.listen: [::]:1 is open beyond this machine, and grpc.tls.client_ca is not set: ",
            ],
        ),
        (&[(grpc, "[::]:1"), cert, key, client_ca, redis], &[]),
    ] {
        let warnings = load_variables(variables).unwrap().warnings();
        let matches = warnings
            .iter()
            .zip(expected)
            .all(|(warning, start)| warning.starts_with(start));
        assert!(
            matches && warnings.len() == expected.len(),
            "{variables:?}: {warnings:?}"
        );
    }
}

#[test]
fn settings_for_redis_without_its_backend_are_warned_about() {
    let (redis, memory) = (("BACKEND", "redis"), ("BACKEND", "memory"));
    let (urls, prefix) = (
        ("REDIS__URLS", "redis://cache"),
        ("REDIS__KEY_PREFIX", "tv"),
    );
    let sentinel = ("REDIS__TOPOLOGY", "sentinel");
    let warning = "store.redis: what is set there has no effect, since store.backend is memory";
    for (variables, is_warned) in [
        (&[urls][..], true),
        (&[urls, memory], true),
        (&[prefix], true),
        (&[urls, sentinel], true),
        (&[urls, sentinel, redis], false),
        (&[memory], false),
    ] {
        let variables = variables.iter();
        let variables: Vec<_> = variables
            .map(|(name, value)| (format!("STREAMGATE_STORE__{name}"), *value))
            .collect();
        let variables = variables.iter().map(|(name, value)| (&**name, *value));
        let variables: Vec<_> = variables.collect();
        let warnings = load_variables(&variables).unwrap().warnings();
        let warned = warnings.iter().filter(|text| text.starts_with(warning));
        assert_eq!(
            warned.count(),
            usize::from(is_warned),
            "{variables:?}: {warnings:?}"
        );
    }
}

// === Very many users ===

/// A file with that many users, in a form for each key that has a map.
fn many(key: &str, users: usize) -> String {
    let mut text = format!("limits:\n  {key}:\n");
    (0..users).for_each(|n| text.push_str(&format!("    user-{n}: {}\n", n % 7)));
    text
}

#[test]
fn a_map_is_searched_for_secrets_as_often_as_it_is_long() {
    for key in ["users", "plans"] {
        let searched = |users| {
            let text = many(key, users);
            load::redact::tests::SEARCHES.set(0);
            assert!(load_text(&text).is_ok());
            load::redact::tests::SEARCHES.get()
        };
        // It was in proportion to the square of that: 300 times as many here.
        let (few, many) = (searched(10), searched(1000));
        assert!(many < 200 * few, "{key}: {few} and {many}");
    }
}

#[test]
fn entries_from_the_environment_are_searched_for_as_often_as_there_are_entries() {
    let searched = |entries: usize| {
        let variables: Vec<_> = (0..entries)
            .map(|n| (format!("STREAMGATE_LIMITS__USERS__u{n}"), "1".to_owned()))
            .collect();
        load::redact::tests::SEARCHES.set(0);
        let config = Config::load(None, variables).unwrap();
        assert_eq!(config.limits.policy.users.len(), entries);
        load::redact::tests::SEARCHES.get()
    };
    let (few, many) = (searched(10), searched(1000));
    assert!(many < 200 * few, "{few} and {many}");
}

#[test]
fn a_file_may_have_more_nodes_than_the_yaml_library_allows_by_default() {
    let text = format!("limits: {{users: [{}]}}", "1,".repeat(250_001));
    assert!(Raw::new(known_keys()).parse(&text).is_ok());
}

// === Nothing panics ===

fn variable_name() -> impl Strategy<Value = String> {
    let keys: Vec<_> = keys()
        .into_iter()
        .map(|(key, _)| key.replace('.', "__").to_uppercase())
        .collect();
    prop_oneof![
        proptest::sample::select(keys).prop_map(|key| format!("STREAMGATE_{key}")),
        "STREAMGATE_LIMITS__(PLANS|USERS)__\\PC{0,9}",
        "STREAMGATE_[A-Z_]{0,20}",
        "STREAMGATE_\\PC{0,20}",
    ]
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        "\\PC{0,40}",
        "[a-z0-9:=,@/.+\\[\\] -]{0,40}",
        "(redis|header|jwt|cmcd|unix)://?[a-z0-9:@/.?,]{0,30}",
        "[0-9.]{1,30}(ms|s|m|h|d|y|)",
        any::<String>(),
    ]
}

proptest! {
    #[test]
    fn no_variables_make_it_panic(variables in proptest::collection::vec((variable_name(), value()), 0..8)) {
        match Config::load(None, variables) {
            Ok(config) => { let _ = (config.to_string(), config.warnings()); }
            Err(error) => prop_assert!(error.lines().count() > 0),
        }
    }

    #[test]
    fn no_file_makes_it_panic(text in "(store|limits|identity|leases|[a-z]{1,6}|)(:|: |:\n  |)(\\PC|[\n \\[\\]{}:,*&!|>'\"-]){0,60}") {
        if let Ok(config) = load_text(&text) {
            prop_assert_eq!(config.to_string().is_empty(), false);
        }
    }
}
