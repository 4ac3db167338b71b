//! streamgate as a process, told by its variables where the sentinels are.

use std::path::Path;

use testkit::gateway_client::{Check, Gateway};
use testkit::pki::{Authority, Folder};
use testkit::port::ReservedPort;
use testkit::redis::RedisServer;
use testkit::sentinel::{SERVICE, watching};
use testkit::streamgate::Streamgate;

/// How a server or a sentinel speaks TLS on that port, by the words of its configuration.
fn with_tls(port: &ReservedPort, folder: &Folder) -> Vec<[String; 2]> {
    let file = |name| folder.path(name).display().to_string();
    [
        ("tls-port", port.number().to_string()),
        ("tls-cert-file", file("cert")),
        ("tls-key-file", file("key")),
        ("tls-ca-cert-file", file("client_ca")),
        ("tls-auth-clients", "no".to_owned()),
    ]
    .map(|(name, value)| [name.to_owned(), value])
    .into()
}

/// Has the streamgate start a playback, which that server has to count.
async fn counts_in(streamgate: &Streamgate, server: &RedisServer) {
    let gateway = Gateway::connect(streamgate.grpc).await;
    streamgate
        .metric_becomes("streamgate_store_up", &[], |up| up == 1.0)
        .await;
    let answer = gateway.check(Check::of_playback("anna", "film")).await;
    assert!(answer.is_allowed(), "{answer:?}");
    let rosters: Vec<String> = server.run(&["KEYS", "streamgate:{*}"]);
    assert_eq!(rosters, ["streamgate:{anna}"]);
}

/// The settings for those sentinels.
fn settings(urls: &str) -> [(&'static str, &str); 4] {
    [
        ("store.backend", "redis"),
        ("store.timeout", "500ms"),
        ("store.redis.topology", "sentinel"),
        ("store.redis.urls", urls),
    ]
}

#[tokio::test]
async fn where_sentinels_are_spoken_to_over_tls_the_master_is_too() {
    let authority = Authority::new("of Redis");
    let folder = Folder::with(&authority.issue(), &authority);
    let (of_master, of_sentinel) = (ReservedPort::reserve(), ReservedPort::reserve());
    let options = with_tls(&of_master, &folder);
    let options: Vec<_> = options
        .iter()
        .flat_map(|[name, value]| [format!("--{name}"), value.clone()])
        .collect();
    let server = RedisServer::start_with(&options.iter().map(String::as_str).collect::<Vec<_>>());
    let lines = with_tls(&of_sentinel, &folder);
    let lines: String = lines.iter().map(|words| words.join(" ") + "\n").collect();
    let monitor = format!(
        "sentinel monitor {SERVICE} 127.0.0.1 {} 2\n",
        of_master.number()
    );
    let _sentinel = RedisServer::sentinel(&format!("tls-replication yes\n{lines}{monitor}"));
    let url = format!("rediss://{}", of_sentinel.address());
    let authorities: &Path = &folder.path("client_ca");
    let streamgate = Streamgate::start_trusting(authorities, &settings(&url)).await;
    counts_in(&streamgate, &server).await;
    let connected = streamgate.told("connected to Redis", 1).await;
    assert_eq!(connected[0]["address"], of_master.address().to_string());
}

#[tokio::test]
async fn its_log_names_the_sentinels_and_the_master_and_holds_no_password() {
    let server = RedisServer::start();
    server.run::<()>(&["ACL", "SETUSER", "gate", "on", ">hunter2", "~*", "+@all"]);
    let sentinel = RedisServer::sentinel(&format!(
        "requirepass swordfish\n{}",
        watching("tv.eu", &server, 2)
    ));
    let nobody = ReservedPort::reserve();
    let urls = format!(
        "redis://:swordfish@{},{}",
        nobody.address(),
        sentinel.url_as("", "swordfish")
    );
    let mut settings = settings(&urls).to_vec();
    settings.push(("store.redis.sentinel_service", "tv.eu"));
    settings.push(("store.redis.master_url", "redis://gate:hunter2@tv.eu"));
    settings.push(("telemetry.log_level", "trace"));
    let streamgate = Streamgate::start(&settings).await;
    counts_in(&streamgate, &server).await;
    let address = format!("127.0.0.1:{}", server.port());
    let sentinels = format!("{}, 127.0.0.1:{}", nobody.address(), sentinel.port());
    let connected = streamgate.told("connected to Redis", 1).await;
    assert_eq!(connected[0]["address"], address);
    assert_eq!(connected[0]["sentinels"], sentinels);
    streamgate.says("a sentinel names no master").await;
    let log = streamgate.log();
    for secret in ["hunter2", "swordfish"] {
        assert!(!log.contains(secret), "{log}");
    }
}
