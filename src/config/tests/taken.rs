//! Valid configurations, from a file and from the environment.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::*;
use crate::identity::Source;

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
            crate::identity::UserId::parse(user),
            crate::identity::PlanName::parse(plan),
        );
        config
            .limits
            .policy
            .allowance(&user.unwrap(), plan.ok().as_ref())
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
            log_starts: Share::of_a_million(2_500),
            log_users: LogUsers::Hashed,
            log_users_key_file: Some("/etc/streamgate/log-users.key".into()),
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
            FullRule::DisplaceIdlest,
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
    let threads = config.runtime.threads().map(NonZeroUsize::get);
    assert_eq!(threads, Some(2));
    assert_eq!(Config::default().runtime.threads(), None, "one per core");
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
    let yaml = examples(include_str!("../../../docs/redis-cluster.md"))
        .next()
        .unwrap();
    let redis = load_text(yaml).unwrap().store.redis;
    assert_eq!((redis.topology, redis.urls.len()), (Topology::Cluster, 2));
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
            "store.redis.urls"
            | "store.redis.master_url"
            | "http.tokens_file"
            | "events.webhooks_file"
            | "telemetry.log_users_key_file" => "got a value that is not shown here",
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
