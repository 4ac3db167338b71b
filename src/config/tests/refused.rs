//! Invalid configurations, and their errors.

use super::*;

#[test]
fn a_bad_file_is_named_with_line_key_value_and_what_is_allowed() {
    for (name, said) in [
        (
            "unknown_key.yaml",
            "unknown_key.yaml:4: store.bakend: unknown key; allowed here: backend, outage, timeout, redis",
        ),
        (
            "unknown_section.yaml",
            "unknown_section.yaml:1: stores: unknown key; allowed here: grpc, http, store, limits, leases, identity, refusal, events, telemetry, runtime, shutdown",
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

/// A section with a mistake, and the beginning of the error after the line number.
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
        "events: {webhooks_file: [whsec_hunter2]}",
        "events.webhooks_file: got a value that is not shown here; allowed: the path of a file with a webhook on each line",
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
        "store.redis.topology: cluster needs the URLs of some of its nodes in store.redis.urls",
    ),
    (
        "store: {redis: {topology: cluster, urls: [redis://a, redis://b], sentinel_service: tv}}",
        "store.redis.sentinel_service: got \"tv\"; allowed: mymaster, unless store.redis.topology is sentinel",
    ),
    (
        "store: {redis: {topology: cluster, urls: redis://a, master_url: 'redis://mymaster'}}",
        "store.redis.master_url: got a value that is not shown here; allowed: nothing, unless store.redis.topology is sentinel; the URLs of a cluster's nodes go into store.redis.urls",
    ),
    (
        "store: {redis: {topology: cluster, urls: []}}",
        "store.redis.urls: got []; allowed: the URLs of some nodes of the cluster, each as redis://[user:password@]host[:6379], or rediss:// for TLS, with one host",
    ),
    (
        "store: {redis: {topology: cluster, urls: [redis://a, redis://b/1]}}",
        "store.redis.urls: got a value that is not shown here as URL 2 of 2; allowed: the URLs of some nodes of the cluster, each as redis://[user:password@]host[:6379], or rediss:// for TLS, with one host, by its name or address; # in a password is %23; a cluster has no database but 0, so name none",
    ),
    (
        "store: {redis: {topology: cluster, urls: ['redis://:x@a', 'redis://:y@b']}}",
        "store.redis.urls: got a value that is not shown here; allowed: the same scheme, user and password in each URL, because all other nodes of the cluster get them too",
    ),
    (
        "store: {redis: {topology: cluster, urls: ['redis://a', 'rediss://a']}}",
        "store.redis.urls: got a value that is not shown here; allowed: the same scheme, user and password in each URL",
    ),
    (
        "store: {redis: {topology: sentinel}}",
        "store.redis.topology: sentinel needs the sentinels' URLs in store.redis.urls",
    ),
    (
        "store: {redis: {topology: sentinels}}",
        "store.redis.topology: got \"sentinels\"; allowed: standalone, sentinel, cluster",
    ),
    (
        "store: {redis: {sentinel_service: tv}}",
        "store.redis.sentinel_service: got \"tv\"; allowed: mymaster, unless store.redis.topology is sentinel",
    ),
    (
        "store: {redis: {topology: sentinel, urls: 'redis://s1', sentinel_service: 'my master'}}",
        "store.redis.sentinel_service: got \"my master\"; allowed: 1 to 128 letters, digits, `.`, `_` or `-`, as Sentinel allows",
    ),
    (
        "store: {redis: {topology: sentinel, urls: []}}",
        "store.redis.urls: got []; allowed: the URLs of the sentinels, each as redis://[user:password@]host[:26379], or rediss:// for TLS, with one host, by its name or address; # in a password is %23; a database goes into store.redis.master_url",
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
        "store.redis.master_url: got a value that is not shown here; allowed: redis://[user:password@]tv[/database], or rediss:// for TLS; # in a password is %23; in the place of host and port, which the sentinels provide, write store.redis.sentinel_service",
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
        "store.redis.urls: got a value that is not shown here; allowed: one URL, as redis://[user:password@]host[:port][/database], or rediss:// for TLS, with one host, by its name or address; # in a password is %23; several are sentinels or nodes of a cluster, with store.redis.topology: sentinel or cluster",
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
        "runtime: {workers: 257}",
        "runtime.workers: got 257; allowed: a whole number from 0 to 256",
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
        "telemetry: {log_users: sha256}",
        "telemetry.log_users: got \"sha256\"; allowed: plain, hashed",
    ),
    (
        "telemetry: {log_users: hashed}",
        "telemetry.log_users: hashed needs a secret key: set telemetry.log_users_key_file to a file with at least 32 random characters",
    ),
    (
        "telemetry: {log_users: hashed, log_users_key_file: ''}",
        "telemetry.log_users: hashed needs a secret key: set telemetry.log_users_key_file",
    ),
    (
        "telemetry: {log_users_key_file: [hunter2]}",
        "telemetry.log_users_key_file: got a value that is not shown here; allowed: the path of a file with a secret key",
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

/// A variable, its value, and the beginning of the error after its name.
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
        "no key has this variable; allowed: STREAMGATE_SECTION__KEY with a section of grpc, http, store, limits, leases, identity, refusal, events, telemetry, runtime, shutdown",
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
