//! The values of every key that the program is started with: each word, the edges, each unit.
//!
//! Keys that only make sense together are one factor. `<…>` in a value stands for what differs from
//! row to row.

use std::net::TcpListener;
use std::time::Duration;

use serde_json::{Value, json};

/// Keys that are set together.
#[derive(Debug)]
pub(super) struct Factor {
    pub(super) keys: Vec<&'static str>,
    pub(super) choices: Vec<Choice>,
}

/// A value for each key of a factor that is set, in the order of its keys; `None` leaves it out.
pub(super) type Choice = Vec<Option<Value>>;

/// The longest path of a Unix socket.
pub(super) const LONGEST_SOCKET: usize = 107;

fn one(key: &'static str, values: Vec<Value>) -> Factor {
    let unset = std::iter::once(vec![None]);
    let set = values.into_iter().map(|value| vec![Some(value)]);
    Factor {
        keys: vec![key],
        choices: unset.chain(set).collect(),
    }
}

/// A factor that is always set: its default would be the same for every row.
fn always(key: &'static str, values: Vec<Value>) -> Factor {
    let mut factor = one(key, values);
    factor.choices.remove(0);
    factor
}

fn words(key: &'static str, words: &[&str]) -> Factor {
    one(key, words.iter().map(|word| json!(word)).collect())
}

fn tls(keys: [&'static str; 3]) -> Factor {
    let file = |name: &str| Some(json!(format!("<pki>/{name}")));
    Factor {
        keys: keys.to_vec(),
        choices: vec![
            vec![None, None, None],
            vec![Some(Value::Null), Some(Value::Null), Some(json!(""))],
            vec![file("cert"), file("key"), None],
            vec![file("cert"), file("key"), file("client_ca")],
        ],
    }
}

fn redis() -> Factor {
    let set = |topology: Option<&str>, urls: Value, service: Option<&str>, master: Option<&str>| {
        let text = |text: Option<&str>| text.map(|text| json!(text));
        vec![text(topology), Some(urls), text(service), text(master)]
    };
    Factor {
        keys: vec![
            "store.redis.topology",
            "store.redis.urls",
            "store.redis.sentinel_service",
            "store.redis.master_url",
        ],
        choices: vec![
            set(None, json!(["<redis>"]), None, None),
            set(
                Some("standalone"),
                json!("<redis>/1"),
                Some("mymaster"),
                Some(""),
            ),
            // This server speaks no TLS: an outage from the start.
            set(None, json!(["<rediss>"]), None, None),
            set(Some("sentinel"), json!(["<sentinel>"]), None, None),
            set(
                Some("sentinel"),
                json!(["<sentinel>", "<sentinel>/"]),
                Some("s.v-c_1"),
                Some("redis://s.v-c_1/2"),
            ),
            set(Some("cluster"), json!("<cluster>"), None, None),
        ],
    }
}

fn log_users() -> Factor {
    let set = |users: &str, key: Value| vec![Some(json!(users)), Some(key)];
    Factor {
        keys: vec!["telemetry.log_users", "telemetry.log_users_key_file"],
        choices: vec![
            vec![None, None],
            set("plain", Value::Null),
            set("hashed", json!("<pki>/log-users")),
        ],
    }
}

/// Sources of every kind, with names of that fact's own.
fn sources(key: &'static str, fact: &str, more: Vec<Value>) -> Factor {
    let mut values = vec![
        json!([format!("cookie:{fact}")]),
        json!(format!("query:{fact}")),
        json!([format!("cmcd:{fact}")]),
        json!([format!("jwt:realm.{fact}")]),
        json!([format!("context:{fact}")]),
        json!([format!("path:/{fact}=([^/]+)/")]),
        json!(["basic"]),
        json!(["principal"]),
        json!([format!("header:x-{fact}"), format!("query:no-{fact}")]),
        json!([format!("header:x-{fact}+cookie:part-{fact}")]),
    ];
    values.extend(more);
    one(key, values)
}

/// Whether this machine has IPv6.
pub(super) fn has_ipv6() -> bool {
    TcpListener::bind("[::1]:0").is_ok()
}

fn addresses(key: &'static str, port: &str, more: &[&str]) -> Factor {
    let hosts = ["127.0.0.1", "localhost", "", "0.0.0.0", "[::1]", "[::]"];
    let hosts = hosts
        .iter()
        .filter(|host| !host.starts_with('[') || has_ipv6());
    let mut values: Vec<_> = hosts.map(|host| json!(format!("{host}:{port}"))).collect();
    values.extend(more.iter().map(|value| json!(value)));
    always(key, values)
}

fn limits() -> Vec<Factor> {
    let long = "x".repeat(64);
    vec![
        one("limits.enforce", vec![json!(true), json!(false)]),
        one(
            "limits.default",
            vec![json!(0), json!(1), json!(3), json!(1000)],
        ),
        one(
            "limits.plans",
            vec![
                json!({}),
                json!({"basic": 0, "premium 4k": 1000}),
                json!({long: 1}),
            ],
        ),
        one(
            "limits.users",
            vec![
                json!({}),
                json!({"<user>": 3, "42": 0, "anna@example.com": 1000}),
            ],
        ),
        words(
            "limits.when_full",
            &["refuse", "displace_oldest", "displace_idlest"],
        ),
        one("limits.users_file", vec![Value::Null, json!("<pki>/users")]),
        one("limits.displacements", vec![json!(0), json!("1000")]),
        words("limits.grace", &["0s", "1ns", "2us", "250ms", "5s"]),
        words("limits.quiet", &["1000ms", "1s", "20s", "60m", "1h"]),
        words("leases.request", &["1s", "1000ms", "1m30s", "24h", "1day"]),
        words("leases.playback", &["1s", "60000000us", "1m", "24h"]),
    ]
}

fn facts() -> Vec<Factor> {
    vec![
        sources("identity.user", "user", Vec::new()),
        sources("identity.session", "session", vec![json!(["request"])]),
        sources("identity.plan", "plan", vec![json!([])]),
        sources("identity.device", "device", vec![json!([])]),
        sources("identity.content", "content", vec![json!("")]),
        sources("identity.takeover", "takeover", vec![json!([])]),
        sources("identity.fresh", "fresh", vec![json!([])]),
    ]
}

fn rest() -> Vec<Factor> {
    vec![
        one(
            "refusal.show",
            vec![
                json!([]),
                json!(["session"]),
                json!("device,content"),
                json!(["session", "device", "content", "started_at"]),
            ],
        ),
        one(
            "refusal.problems",
            vec![
                Value::Null,
                json!("http://127.0.0.1/p"),
                json!("https://watch.example/help?lang=en"),
            ],
        ),
        one(
            "events.webhooks_file",
            vec![Value::Null, json!("<pki>/webhooks")],
        ),
        words("telemetry.log_format", &["text", "json"]),
        words(
            "telemetry.log_level",
            &["error", "warn", "info", "debug", "trace"],
        ),
        one(
            "telemetry.log_starts",
            vec![json!(0), json!(1), json!("0.000001"), json!("0.5")],
        ),
        log_users(),
        one("telemetry.otlp_endpoint", vec![Value::Null]),
        one("runtime.workers", vec![json!(0), json!("1"), json!(256)]),
        words("shutdown.grace", &["0s", "500ms", "1m"]),
        words("shutdown.deadline", &["1s", "15s", "10m"]),
    ]
}

/// All of them.
pub(super) fn factors() -> Vec<Factor> {
    let sockets = [
        "unix:<dir>/grpc.sock",
        "unix://<dir>/grpc.sock",
        "unix:<longest>",
    ];
    let mut all = vec![
        addresses("grpc.listen", "<grpc>", &sockets),
        tls(["grpc.tls.cert", "grpc.tls.key", "grpc.tls.client_ca"]),
        addresses("http.listen", "<http>", &[]),
        tls(["http.tls.cert", "http.tls.key", "http.tls.client_ca"]),
        one("http.tokens_file", vec![Value::Null, json!("<pki>/tokens")]),
        one(
            "http.cors_origins",
            vec![
                json!([]),
                json!("*"),
                json!(["https://app.example", "http://[::1]:3000"]),
            ],
        ),
        one(
            "http.hosts",
            vec![json!([]), json!("tv"), json!(["streams.example", "tv_1"])],
        ),
        one(
            "http.endpoint",
            vec![
                Value::Null,
                json!("http://127.0.0.1:1/{id}"),
                json!("https://cdn.example/a/{id}/b?c=1"),
            ],
        ),
        words("store.backend", &["memory", "redis"]),
        words("store.outage", &["allow", "deny", "local"]),
        words(
            "store.timeout",
            &["1ms", "1000000ns", "2000us", "1s", "10s"],
        ),
        redis(),
        one(
            "store.redis.key_prefix",
            vec![json!("a"), json!("tv:live_1.x-y"), json!("p".repeat(64))],
        ),
    ];
    all.extend(limits());
    all.extend(facts());
    all.extend(rest());
    all
}

/// The choices of the keys that are decided so far.
pub(super) struct Settings<'a>(pub(super) Vec<(&'a Factor, &'a Choice)>);

impl Settings<'_> {
    /// Whether the choice of a key is decided.
    fn knows(&self, key: &str) -> bool {
        self.0.iter().any(|(factor, _)| factor.keys.contains(&key))
    }

    /// What a key is set to, if it is.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.0.iter().find_map(|(factor, choice)| {
            let at = factor.keys.iter().position(|name| *name == key)?;
            choice[at].as_ref()
        })
    }

    /// The text of a decided key, or its default.
    pub(super) fn text(&self, key: &str, default: &'static str) -> Option<String> {
        if !self.knows(key) {
            return None;
        }
        Some(match self.get(key) {
            None => default.to_owned(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        })
    }

    /// The same for a duration.
    pub(super) fn duration(&self, key: &str, default: &'static str) -> Option<Duration> {
        let text = self.text(key, default)?;
        Some(humantime::parse_duration(&text).expect("a duration"))
    }

    /// Whether these can be together: what the documentation says of two keys.
    pub(super) fn fit(&self) -> bool {
        let is_unix = self
            .text("grpc.listen", "")
            .is_some_and(|at| at.starts_with("unix:"));
        let cert = self.get("grpc.tls.cert");
        let has_tls = cert.is_some_and(|cert| !cert.is_null());
        let is_less = |less: Option<Duration>, more: Option<Duration>| match (less, more) {
            (Some(less), Some(more)) => less < more,
            _ => true,
        };
        let after_grace = Duration::from_secs(1);
        let grace = self.duration("shutdown.grace", "2s");
        let drained = grace.map(|grace| grace + after_grace - Duration::from_nanos(1));
        let timeout = self.duration("store.timeout", "50ms");
        !(is_unix && has_tls)
            && is_less(timeout, self.duration("leases.request", "15s"))
            && is_less(timeout, self.duration("leases.playback", "30s"))
            && is_less(drained, self.duration("shutdown.deadline", "15s"))
    }
}

/// Values just beyond the edges, and of the wrong form: all of them are refused.
pub(super) const REFUSED: &[(&str, &str)] = &[
    ("grpc.listen", "example.com:1"),
    ("grpc.listen", "unix:relative"),
    ("grpc.tls.cert", "/nowhere/cert"),
    ("grpc.tls.key", "/nowhere/key"),
    ("grpc.tls.client_ca", "/nowhere/ca"),
    ("http.listen", "unix:/run/http.sock"),
    ("http.tls.cert", "/nowhere/cert"),
    ("http.tls.key", "/nowhere/key"),
    ("http.tls.client_ca", "/nowhere/ca"),
    ("http.tokens_file", "/nowhere/tokens"),
    ("http.cors_origins", "*,https://app.example"),
    ("http.cors_origins", "https://*.example"),
    ("http.hosts", "streams.example:8080"),
    ("http.hosts", "127.0.0.1"),
    ("http.endpoint", "https://cdn.example/"),
    ("store.backend", "etcd"),
    ("store.outage", "Allow"),
    ("store.timeout", "0s"),
    ("store.timeout", "10001ms"),
    ("store.timeout", "50"),
    ("store.redis.topology", "cluster"),
    ("store.redis.topology", "sentinel"),
    ("store.redis.urls", "redis://a,redis://b"),
    ("store.redis.sentinel_service", "other"),
    ("store.redis.master_url", "redis://mymaster"),
    ("store.redis.key_prefix", "a b"),
    ("limits.enforce", "yes"),
    ("limits.default", "1001"),
    ("limits.default", "-1"),
    ("limits.plans", "basic=1001"),
    ("limits.users", "anna"),
    ("limits.when_full", "displace"),
    ("limits.users_file", "/nowhere/users"),
    ("limits.displacements", "1001"),
    ("limits.grace", "5001ms"),
    ("limits.quiet", "999ms"),
    ("limits.quiet", "3601s"),
    ("leases.request", "999ms"),
    ("leases.request", "86401s"),
    ("leases.playback", "0s"),
    ("identity.user", ""),
    ("identity.user", "request"),
    ("identity.session", ""),
    ("identity.plan", "request"),
    ("identity.device", "header:"),
    ("identity.content", "path:("),
    ("identity.takeover", "basic:x"),
    ("identity.fresh", "request"),
    ("refusal.show", "user"),
    ("refusal.problems", "https://a.example/#b"),
    ("events.webhooks_file", "/nowhere/webhooks"),
    ("telemetry.log_format", "logfmt"),
    ("telemetry.log_level", "off"),
    ("telemetry.log_starts", "1.1"),
    ("telemetry.log_users", "hash"),
    ("telemetry.log_users", "hashed"),
    ("telemetry.log_users_key_file", "/nowhere/key"),
    ("telemetry.otlp_endpoint", "http://127.0.0.1:4317"),
    ("runtime.workers", "257"),
    ("runtime.workers", "all"),
    ("shutdown.grace", "61s"),
    ("shutdown.deadline", "999ms"),
    ("shutdown.deadline", "601s"),
    ("shutdown.deadline", "2999ms"),
];
