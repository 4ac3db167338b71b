//! No error and no log repeats a secret; risky settings are warned about.

use super::*;

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
